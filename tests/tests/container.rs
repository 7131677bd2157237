//! Namespaces and containers: mounts of one's own, PID namespaces, a limits file, podman with a CDI spec.
//! Each test needs something that not every machine has. Without it the test is skipped, by name and with the reason.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use gpuquota_promises::{
    Agent, GIB, MIB, Machine, NO_NAMESPACE, Outcome, Podman, Program, Promise, Scratch, Setting, Verdict,
    after, artifact, mount_namespace, own_etc, program, trials, twice,
};

const CAP: i64 = 2 * GIB;

fn main() -> ExitCode {
    trials(&[
        ("a_full_disk_is_a_failed_quota_and_no_signal", full_disk),
        ("a_read_only_file_system_is_a_failed_quota_that_says_so", read_only),
        ("a_container_with_ld_so_preload_sees_its_slice", ld_so_preload),
        ("a_32_bit_program_starts_silently_where_ld_so_preload_names_lib", class32),
        ("a_limits_file_outranks_the_environment_and_holds_without_it", limits_file),
        ("a_limits_file_is_the_ceiling_whatever_the_region_says", limits_file_ceiling),
        ("a_limits_file_that_cannot_be_read_means_no_gpu", limits_file_unreadable),
        ("a_limits_file_of_an_odd_kind_or_with_odd_bytes_is_read_or_refused_at_once", limits_file_odd),
        ("a_region_that_the_limits_file_names_outranks_every_variable", limits_file_region),
        ("a_program_with_more_rights_than_its_caller_believes_no_variable", setuid_program),
        ("processes_of_sibling_pid_namespaces_share_one_cap", pid_namespaces),
        ("activity_in_a_pid_namespace_is_the_container_s_own_or_unknown", activity_by_driver),
        ("drivers_name_the_processes_of_a_container_each_in_its_way", pids_by_driver),
        ("a_podman_container_with_a_cdi_spec_sees_its_slice", podman),
        ("a_podman_container_is_called_by_its_name", podman_name),
        ("users_of_one_container_share_its_cap_in_any_order", other_users),
        ("users_who_share_the_default_region_by_accident_are_told_once", shared_tmp),
        ("java_starts_and_ends_as_without_the_library", java),
        ("a_musl_program_starts_and_ends_as_without_the_library", musl),
        ("the_release_runs_on_glibc_2_17", glibc_floor),
    ])
}

/// Whether the region was there before or not: a process that cannot write cannot take.
fn read_only() -> Verdict {
    let Some(options) = mount_namespace() else { return Verdict::Skipped(NO_NAMESPACE.into()) };
    let machine = Machine::new("H100");
    for made_before in [false, true] {
        let scratch = Scratch::new();
        let region = scratch.path().join("quota.cache");
        let quota = machine.quota().memory(CAP).with("GPUQUOTA_REGION", &region);
        if made_before {
            quota.run("views", &[]).success();
        }
        let folder = scratch.path().display();
        let mount = format!("mount --bind {folder} {folder}; mount -o remount,bind,ro {folder}");
        let outcome = after(options, &mount, quota.command(program("door_linked"), &[]));
        assert_eq!((outcome.status.code(), outcome.stderr.lines().count()), (Some(1), 1), "{outcome}");
        assert!(outcome.stderr.contains("its file system is read-only"), "{outcome}");
        assert_eq!(machine.truth().device("requested_bytes"), 0);
    }
    Verdict::Kept
}

fn full_disk() -> Verdict {
    let Some(options) = mount_namespace() else { return Verdict::Skipped(NO_NAMESPACE.into()) };
    let machine = Machine::new("H100");
    let scratch = Scratch::new();
    let region = scratch.path().join("quota.cache");
    let quota = machine.quota().memory(CAP).with("GPUQUOTA_REGION", &region);
    let mount = format!("mount -t tmpfs -o size=1m none {}", scratch.path().display());
    let outcome = after(options, &mount, quota.command(program("door_linked"), &[]));
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    assert!(outcome.stderr.contains(region.to_str().expect("text")), "{outcome}");
    assert_eq!(machine.truth().device("requested_peak_bytes"), 0);
    Verdict::Kept
}

/// The slice's view in a program that was started without LD_PRELOAD.
fn sees_the_slice(outcome: Outcome) {
    let outcome = outcome.success();
    assert_eq!(outcome.value("total"), CAP, "{outcome}");
    assert_eq!(outcome.value("nvml_total"), CAP, "{outcome}");
}

fn ld_so_preload() -> Verdict {
    let Some(options) = mount_namespace() else { return Verdict::Skipped(NO_NAMESPACE.into()) };
    let machine = Machine::new("H100");
    let scratch = Scratch::new();
    let script =
        format!("{}; echo {} > /etc/ld.so.preload", own_etc(&scratch), artifact("libgpuquota.so").display());
    let region = scratch.path().join("quota.cache");
    let container = machine.bare().memory(CAP).with("GPUQUOTA_REGION", region);
    sees_the_slice(after(options, &script, container.command(program("views"), &[])));
    Verdict::Kept
}

/// With the tree of the release. glibc's loader writes a line about a preloaded file of the other class.
fn class32() -> Verdict {
    let promise = &Promise::to(&["proxychains#386"]);
    let Some(options) = mount_namespace() else { return Verdict::Skipped(NO_NAMESPACE.into()) };
    if !Path::new("/lib/ld-linux.so.2").exists() {
        return Verdict::Skipped("this machine has no loader of 32-bit programs (Debian: libc6-i386)".into());
    }
    let machine = Machine::new("H100");
    let scratch = Scratch::new();
    let tree = scratch.path().join("gpuquota");
    let mut make = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/preload-tree"));
    let status = make.arg(artifact("libgpuquota.so")).arg("x86_64").arg(&tree).status();
    assert!(status.is_ok_and(|status| status.success()), "the tree is not made");
    let preload =
        |path: &str| format!("{}; echo '{}/{path}' > /etc/ld.so.preload", own_etc(&scratch), tree.display());
    let narrow = |path: &str| {
        after(options, &preload(path), machine.bare().command(program("class32"), &[])).success()
    };
    let told = narrow("libgpuquota.so").stderr;
    assert!(told.contains("wrong ELF class"), "the loader did not look: {told:?}");
    promise.asserts(|| assert_eq!(narrow("$LIB/libgpuquota.so").stderr, ""));

    let region = scratch.path().join("quota.cache");
    let container = machine.bare().memory(CAP).with("GPUQUOTA_REGION", region);
    let wide = container.command(program("views"), &[]);
    sees_the_slice(after(options, &preload("$LIB/libgpuquota.so"), wide));
    Verdict::Kept
}

fn limits_file() -> Verdict {
    let Some(options) = mount_namespace() else { return Verdict::Skipped(NO_NAMESPACE.into()) };
    let promise = &Promise::to(&["HAMi#2125"]);
    let machine = Machine::new("H100");
    let scratch = Scratch::new();
    let limits = "mkdir -p /etc/gpuquota; echo 'memory = 2GiB' > /etc/gpuquota/limits";
    let script = format!("{}; {limits}", own_etc(&scratch));
    for quota in [machine.quota().memory("40GiB"), machine.quota()] {
        promise.asserts(|| sees_the_slice(after(options, &script, quota.command(program("views"), &[]))));
    }
    Verdict::Kept
}

/// The operator raises both limits in the region; then a tenant wipes them out there.
fn limits_file_ceiling() -> Verdict {
    // `Header::shares` and `Device::core_limit` of the first device (include/gpuquota_region.h).
    const WORDS: [u64; 2] = [0x1E_B000 + 160, 0x1E_C000 + 100];
    let Some(options) = mount_namespace() else { return Verdict::Skipped(NO_NAMESPACE.into()) };
    let attempt = || {
        let machine = Machine::new("H100");
        let scratch = Scratch::new();
        let limits = r"mkdir -p /etc/gpuquota; printf 'memory = 2GiB\ncores = 30\n' > /etc/gpuquota/limits";
        let script = format!("{}; {limits}", own_etc(&scratch));
        let quota = machine.quota();
        let command = || quota.command(program("launch_loop"), &["busy_5ms", "9"]);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| after(options, &script, command()).success());
            while machine.truth().device("busy_ns") == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
            quota.limit(&["--memory", "40GiB", "--cores", "90"]).success();
            std::thread::sleep(Duration::from_millis(500));
            let raised = machine.busy_percent(0, Duration::from_secs(2));
            let region =
                std::fs::File::options().write(true).open(quota.region()).expect("anybody can write it");
            WORDS.iter().for_each(|at| region.write_all_at(&[0; 4], *at).expect("it is that long"));
            let wiped = machine.busy_percent(0, Duration::from_secs(2));
            running.join().expect("no panic");
            sees_the_slice(after(options, &script, quota.command(program("views"), &[])));
            ((raised, wiped), (raised - 30.0).abs() < 5.0 && (wiped - 30.0).abs() < 5.0)
        })
    };
    twice(attempt).expect("30 percent of the time in both cases");
    Verdict::Kept
}

/// None of these is a file without limits, and nothing waits for any of them.
fn limits_file_odd() -> Verdict {
    let Some(options) = mount_namespace() else { return Verdict::Skipped(NO_NAMESPACE.into()) };
    let machine = Machine::new("H100");
    // A container is told once.
    let refused = |script: &str| {
        let quota = machine.quota().memory(CAP);
        let outcome = after(options, script, quota.command(program("door_linked"), &[]));
        assert_eq!(
            (outcome.status.code(), outcome.stderr.lines().count()),
            (Some(1), 1),
            "{script}: {outcome}"
        );
        outcome
    };
    for make in
        ["mkfifo", "mkdir", "ln -s /nowhere", "ln -s limits", "ln -s /dev/zero", "ln -s /proc/self/mem"]
    {
        let scratch = Scratch::new();
        let script = format!("{}; mkdir -p /etc/gpuquota; {make} /etc/gpuquota/limits", own_etc(&scratch));
        let outcome = refused(&script);
        assert!(outcome.stderr.contains("limits file"), "{make}: {outcome}");
    }
    for text in [r"memory = 2GiB\r\n", r"\tmemory\t=2GiB # two", r"\n\n# \377\nmemory = 2GiB"] {
        let scratch = Scratch::new();
        let write = format!("mkdir -p /etc/gpuquota; printf '{text}' > /etc/gpuquota/limits");
        let script = format!("{}; {write}", own_etc(&scratch));
        sees_the_slice(after(options, &script, machine.quota().command(program("views"), &[])));
    }
    for text in [
        r"memory = 2GiB\rcores = 30\r",
        r"\357\273\277memory = 2GiB\n",
        r"memory = 2GiB\n\000",
        r"memory\000 = 2GiB\n",
        r"memory = 2GiB\n\377\376\n",
        r"memory = 2GiB\nmemory = 2GiB\n",
        r"memory\302\240= 2GiB\n",
    ] {
        let scratch = Scratch::new();
        let write = format!("mkdir -p /etc/gpuquota; printf '{text}' > /etc/gpuquota/limits");
        let script = format!("{}; {write}", own_etc(&scratch));
        let outcome = refused(&script);
        assert!(outcome.stderr.contains("limits file, line "), "{text}: {outcome}");
    }
    Verdict::Kept
}

/// The library does not know the file's limits, so no limit of the environment replaces them.
fn limits_file_unreadable() -> Verdict {
    let Some(options) = mount_namespace() else { return Verdict::Skipped(NO_NAMESPACE.into()) };
    let machine = Machine::new("H100");
    let scratch = Scratch::new();
    let folder = "mkdir -p /etc/gpuquota/limits";
    let endless = "mkdir -p /etc/gpuquota; yes '# nothing' | head -c 10000 > /etc/gpuquota/limits";
    for limits in [folder, endless] {
        let script = format!("{}; {limits}", own_etc(&scratch));
        let quota =
            machine.quota().memory("2GiB").with("GPUQUOTA_ON_ERROR", "open").with("GPUQUOTA_MODE", "off");
        let outcome = after(options, &script, quota.command(program("door_linked"), &[]));
        assert!(!outcome.status.success(), "{limits}: {outcome}");
        assert!(outcome.stderr.contains("/etc/gpuquota/limits"), "{limits}: {outcome}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{limits}: {outcome}");
    }
    assert_eq!(machine.truth().device("requested_peak_bytes"), 0);
    Verdict::Kept
}

fn limits_file_region() -> Verdict {
    let Some(options) = mount_namespace() else { return Verdict::Skipped(NO_NAMESPACE.into()) };
    let machine = Machine::new("H100");
    let scratch = Scratch::new();
    let [named, other] = ["named.cache", "other.cache"].map(|name| scratch.path().join(name));
    let limits = format!(
        r"mkdir -p /etc/gpuquota; printf 'memory = 2GiB\nregion = {}\n' > /etc/gpuquota/limits",
        named.display()
    );
    let script = format!("{}; {limits}", own_etc(&scratch));
    for name in ["GPUQUOTA_REGION", "CUDA_DEVICE_MEMORY_SHARED_CACHE"] {
        let quota = machine.quota().with(name, &other);
        sees_the_slice(after(options, &script, quota.command(program("views"), &[])));
        assert!(named.exists() && !other.exists(), "{name}");
    }
    let relative = r"mkdir -p /etc/gpuquota; echo 'region = here.cache' > /etc/gpuquota/limits";
    let script = format!("{}; {relative}", own_etc(&scratch));
    let outcome = after(options, &script, machine.quota().command(program("door_linked"), &[]));
    assert!(!outcome.status.success() && outcome.stderr.contains("here.cache"), "{outcome}");
    Verdict::Kept
}

/// The caller names a region in a folder that only the program may write to, and a limit of its own.
fn setuid_program() -> Verdict {
    let Some(options) = mount_namespace() else { return Verdict::Skipped(NO_NAMESPACE.into()) };
    if !is_root() {
        return Verdict::Skipped("only root can make a setuid program of root".into());
    }
    let machine = Machine::new("H100");
    let scratch = Scratch::new();
    let [theirs, ours, copy] = ["theirs.cache", "ours.cache", "views"].map(|name| scratch.path().join(name));
    let quota = machine.bare().memory("1GiB").with("GPUQUOTA_REGION", &theirs);
    // The loader takes no folder from the environment of such a program either.
    let folders = "echo $LD_LIBRARY_PATH | tr : '\\n' > /etc/ld.so.conf.d/driver.conf; ldconfig";
    let script = format!(
        "{etc}; mkdir -p /etc/gpuquota; echo 'region = {ours}' > /etc/gpuquota/limits; \
         echo {library} > /etc/ld.so.preload; cp {views} {copy}; chmod 4755 {copy}; chmod 755 {scratch}",
        etc = own_etc(&scratch),
        ours = ours.display(),
        library = artifact("libgpuquota.so").display(),
        views = program("views").display(),
        copy = copy.display(),
        scratch = scratch.path().display(),
    );
    let inner =
        format!("{folders}; exec setpriv --reuid 65534 --regid 65534 --clear-groups {}", copy.display());
    let outcome = after(options, &script, quota.command("sh", &["-c", &inner]));
    assert_eq!(outcome.success().value("total"), 80 * GIB, "the caller's limit is not the program's");
    assert!(ours.exists() && !theirs.exists());
    Verdict::Kept
}

/// Whether the tests run as root.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// The options of `unshare` that make a PID namespace with a /proc of its own.
const PID_NAMESPACE: [&str; 5] = ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// The reason, if this machine allows no PID namespace.
fn no_pid_namespace() -> Option<Verdict> {
    let works = Command::new("unshare").args(PID_NAMESPACE).arg("true").output();
    let works = works.is_ok_and(|output| output.status.success());
    (!works).then(|| Verdict::Skipped("this machine lets nobody here make a PID namespace".into()))
}

/// Starts a program in a PID namespace of its own.
fn start_apart(setting: &Setting<'_>, name: &str) -> Program {
    let inner = setting.command(program(name), &[]);
    let mut command = Command::new("unshare");
    command.args(PID_NAMESPACE).arg(inner.get_program()).args(inner.get_args());
    Program::start(command)
}

/// Starts a program there beside one of the same container that keeps half of the device's time busy, if it can.
fn start_apart_beside_work(setting: &Setting<'_>, name: &str) -> Program {
    let inner = setting.command("sh", &[]);
    let script = r#""$1" busy_1ms 60 plain 1 >/dev/null & exec "$0""#;
    let mut command = Command::new("unshare");
    command.args(PID_NAMESPACE).arg(inner.get_program()).args(inner.get_args()).args(["-c", script]);
    command.arg(program(name)).arg(program("launch_loop"));
    Program::start(command)
}

/// Runs a program there that waits for one line.
fn run_apart(setting: &Setting<'_>, name: &str) -> Outcome {
    let mut program = start_apart(setting, name);
    program.wait_for("pid");
    program.tell("go on");
    program.finish()
}

/// The behaviour of the open kernel modules, by branch: a quota lists its processes correctly on each of them.
fn pids_by_driver() -> Verdict {
    if let Some(skipped) = no_pid_namespace() {
        return skipped;
    }
    // Above every pid: a pid of the node that no container can know.
    let of_the_node = |pid: &i64| *pid >= 1 << 22;
    for (driver, lists_ours, tells_memory, samples_ours) in [
        ("535.104.12", false, true, false),
        ("550.163.01", true, false, false),
        ("580.65.06", true, true, true),
    ] {
        let scratch = Scratch::new();
        let file = format!("driver = \"{driver}\"\n[[device]]\nlike = \"H100\"\n");
        let machine = Machine::new(scratch.file("machine.toml", file).to_str().expect("text"));
        let mut neighbour = machine.bare().start("processes", &[]);
        neighbour.wait_for("pid");
        let listed = run_apart(&machine.bare(), "processes").success();
        let pids = listed.values("v3_pid");
        if lists_ours {
            assert_eq!(pids, [1], "{driver} shows what it cannot see: {listed}");
        } else {
            assert_eq!(pids.len(), 2, "{driver} hides processes: {listed}");
            assert_eq!(pids.iter().filter(|pid| of_the_node(pid)).count(), 1, "{driver}: {listed}");
        }
        let memory = listed.values("v3_bytes").iter().all(|bytes| *bytes > 0);
        assert_eq!(memory, tells_memory, "{driver}: {listed}");
        let sampled = run_apart(&machine.bare(), "samples").success();
        assert_eq!(sampled.value("sample") == 1, samples_ours, "{driver}: {sampled}");
        assert_eq!(of_the_node(&sampled.value("sample")), !samples_ours, "{driver}: {sampled}");

        let quota = machine.quota().memory(CAP);
        let listed = run_apart(&quota, "processes").success();
        assert_eq!(listed.values("v3_pid"), [1], "{driver}: {listed}");
        assert!(listed.value("v3_bytes") >= MIB, "{driver}: {listed}");
        // The library leaves out a sample that it cannot recognise as the container's: NVML_ERROR_NOT_FOUND.
        let sampled = run_apart(&quota, "samples");
        if samples_ours {
            assert_eq!(sampled.success().values("sample"), [1]);
        } else {
            assert_eq!((sampled.value("rc"), sampled.value("idle")), (6, 6), "{driver}: {sampled}");
        }
        // On the node itself each driver gives true figures.
        let mut apart = start_apart(&machine.bare(), "processes");
        apart.wait_for("pid");
        neighbour.tell("look");
        neighbour.wait_for("graphics");
        let seen = neighbour.finish().success();
        let pids = seen.values("v3_pid");
        assert!(
            pids.len() == 2 && seen.values("v3_bytes").iter().all(|bytes| *bytes > 0),
            "{driver}: {seen}"
        );
        apart.finish().success();
    }
    Verdict::Kept
}

/// Beside a neighbour that never rests. Where a driver gives samples with pids that the library cannot recognise, it says what
/// it knows by itself: that nobody of the container is there, or what it measures because there is a share. Else it says
/// that it does not know (NVML_ERROR_NOT_SUPPORTED), and nothing of the neighbour's.
fn activity_by_driver() -> Verdict {
    if let Some(skipped) = no_pid_namespace() {
        return skipped;
    }
    let promise = &Promise::to(&["dcgm-exporter#642"]);
    const UNKNOWN: i64 = -3;
    for (driver, told) in [("535.104.12", false), ("550.163.01", false), ("580.65.06", true)] {
        let scratch = Scratch::new();
        let file = format!("driver = \"{driver}\"\n[[device]]\nlike = \"H100\"\n");
        let machine = Machine::new(scratch.file("machine.toml", file).to_str().expect("text"));
        let mut neighbour = machine.bare().start("launch_loop", &["busy_5ms", "60"]);
        neighbour.wait_for("ready");
        std::thread::sleep(Duration::from_millis(500));
        let looked = |tool: &mut Program| {
            let gpu = tool.ask("look", "gpu");
            tool.wait_for("looked");
            gpu
        };
        let settings =
            [machine.quota().memory(CAP), machine.quota().memory(CAP), machine.quota().memory(CAP).cores(20)];
        let [empty, cap, share] = &settings;
        let mut alone = start_apart(empty, "activity");
        assert_eq!(looked(&mut alone), 0, "{driver}: nobody of the container is there");
        let mut capped = start_apart_beside_work(cap, "activity");
        let mut shared = start_apart_beside_work(share, "activity");
        std::thread::sleep(Duration::from_millis(1500));
        let figure = looked(&mut capped);
        let own = (5..=60).contains(&figure);
        promise.asserts(|| assert!(if told { own } else { figure == UNKNOWN }, "{driver}: {figure}"));
        let figures = [0; 4].map(|_| {
            std::thread::sleep(Duration::from_millis(300));
            looked(&mut shared)
        });
        let mean = figures.iter().sum::<i64>() / 4;
        assert!((10..=30).contains(&mean), "{driver}: a share of 20%, {figures:?}");
        let outcome = capped.finish();
        assert!(told || outcome.values("left").iter().all(|left| *left == 0), "{driver}: {outcome}");
        neighbour.kill();
    }
    Verdict::Kept
}

fn pid_namespaces() -> Verdict {
    if let Some(skipped) = no_pid_namespace() {
        return skipped;
    }
    let promise = &Promise::to(&["HAMi#820"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB);
    let (mut one, mut other) = (start_apart(&quota, "hold"), start_apart(&quota, "hold"));
    assert_eq!((one.wait_for("pid"), other.wait_for("pid")), (1, 1), "each namespace is its own");
    let free = one.ask("info", "free");
    assert_eq!(one.ask(&format!("alloc {GIB}"), "rc"), 0);
    // Both are process 1 of their namespace: neither may mistake the other for a dead process, or for itself.
    let seen = other.ask("info", "free");
    assert!(seen <= free - GIB, "the other namespace's memory is not counted: {seen} free");
    assert_eq!(other.ask(&format!("alloc {}", seen + 1), "rc"), 2);
    assert_eq!(other.ask("info", "free"), seen, "a living process was reaped from another namespace");
    // From outside each is another one, also after they have looked at the region's locks themselves.
    let told = quota.inspect();
    let processes = told["processes"].as_array().expect("a list").iter();
    let mut outside: Vec<_> = processes.filter_map(|process| process["host_pid"].as_i64()).collect();
    outside.sort_unstable();
    outside.dedup();
    promise.asserts(|| assert!(outside.len() == 2 && outside[0] > 1, "{told:#}"));
    // This kills its parent; the kernel kills the program itself a little later.
    one.kill();
    let alive = |quota: &Setting<'_>| {
        let told = quota.inspect();
        let processes = told["processes"].as_array().expect("a list").iter();
        processes.filter(|process| process["alive"] == true).count()
    };
    let until = Instant::now() + Duration::from_secs(20);
    while alive(&quota) > 1 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let rc = other.ask(&format!("alloc {}", seen + GIB), "rc");
    assert_eq!(rc, 0, "a dead process was not reaped from another namespace");
    other.finish().success();
    Verdict::Kept
}

fn podman() -> Verdict {
    let podman = match Podman::here() {
        Ok(podman) => podman,
        Err(skipped) => return skipped,
    };
    let scratch = Scratch::new();
    let slice = ["--device", "gpuquota.test/slice=two"];
    sees_the_slice(podman.start_on_h100(&cdi_spec(&scratch), &slice, "views").finish());
    Verdict::Kept
}

fn podman_name() -> Verdict {
    let podman = match Podman::here() {
        Ok(podman) => podman,
        Err(skipped) => return skipped,
    };
    let regions = Scratch::new();
    let name = format!("gpuquota-test-{}", std::process::id());
    let volume = format!("{}:/var/lib/gpuquota", regions.path().display());
    let scratch = Scratch::new();
    let options = ["--device", "gpuquota.test/slice=two", "-i", "--name", &name, "-v", &volume];
    let mut running = podman.start_on_h100(&cdi_spec(&scratch), &options, "hold");
    running.wait_for("pid");
    let agent = Agent::start(regions.path());
    let wanted = [format!("container=\"{name}\""), "engine=\"podman\"".to_owned()];
    let until = Instant::now() + Duration::from_secs(20);
    let told = loop {
        let metrics = agent.metrics();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("gpuquota_container_info{"))
            .unwrap_or("")
            .to_owned();
        if wanted.iter().all(|label| line.contains(label)) || Instant::now() > until {
            break line;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(wanted.iter().all(|label| told.contains(label)), "{told}");
    running.finish().success();
    Verdict::Kept
}

/// The CDI device by which a node gives a container its slice: an ld.so.preload that names the library, and its limits. The
/// library has the same path as on the host. The answer is a script that puts it in place.
fn cdi_spec(scratch: &Scratch) -> String {
    let preload = scratch.file("ld.so.preload", format!("{}\n", artifact("libgpuquota.so").display()));
    let edits = serde_json::json!({
        "env": [format!("GPUQUOTA_MEMORY={CAP}"), "GPUQUOTA_REGION=/var/lib/gpuquota/quota.cache"],
        "mounts": [{
            "hostPath": preload,
            "containerPath": "/etc/ld.so.preload",
            "options": ["ro", "nosuid", "nodev", "rbind"],
        }],
    });
    let spec = serde_json::json!({
        "cdiVersion": "0.5.0",
        "kind": "gpuquota.test/slice",
        "devices": [{ "name": "two", "containerEdits": edits }],
    });
    let spec = scratch.file("gpuquota-test.json", spec.to_string());
    format!("mkdir -p /etc/cdi; cp {} /etc/cdi", spec.display())
}

fn java() -> Verdict {
    if Command::new("java").arg("-version").output().is_err() {
        return Verdict::Skipped("java is not installed".into());
    }
    let promise = &Promise::to(&["HAMi-core#160"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let arguments = ["-Xint", "-Xcheck:jni", "-XX:+PrintFlagsFinal", "-version"];
    let (bare, quota) =
        (machine.bare().run_command("java", &arguments), quota.run_command("java", &arguments));
    assert_eq!(quota.status, bare.status, "{quota}");
    promise.asserts(|| assert_eq!(quota.stderr, bare.stderr));
    Verdict::Kept
}

/// [HAMi#961](https://github.com/Project-HAMi/HAMi/issues/961): containers that do not run as root ended in a crash.
const AS_NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

const NO_OTHER_USER: &str = "nobody here may start programs as another user";

fn as_nobody(command: &Command) -> Command {
    let mut all = Command::new(AS_NOBODY[0]);
    all.args(&AS_NOBODY[1..]).arg(command.get_program()).args(command.get_args());
    all
}

/// Whether another user can start the programs.
fn may_be_nobody(machine: &Machine) -> bool {
    let output = as_nobody(&machine.bare().command(program("hold"), &[])).output();
    output.is_ok_and(|output| output.status.success())
}

/// A /tmp of several users, none of whom has named a region.
fn shared_tmp() -> Verdict {
    let Some(options) = mount_namespace().filter(|options| options.len() == 1) else {
        return Verdict::Skipped(NO_NAMESPACE.into());
    };
    let machine = Machine::with_driver("bound");
    if !may_be_nobody(&machine) {
        return Verdict::Skipped(NO_OTHER_USER.into());
    }
    let quota = machine.quota().memory(CAP);
    let program = program("door_linked");
    let command = || quota.command("env", &["-u", "GPUQUOTA_REGION", program.to_str().expect("text")]);
    let words = |command: &Command| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| format!("'{}'", word.display())).collect::<Vec<_>>().join(" ")
    };
    let (run, nobody) = (words(&command()), AS_NOBODY.join(" "));
    // The programs may lie in /tmp themselves.
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder in the workspace").display();
    let own_tmp = format!("mount --bind {ours} /mnt; mount -t tmpfs none /tmp; chmod 1777 /tmp");
    let back = format!("mkdir -p {ours}; mount --bind /mnt {ours}");
    let script = format!("{own_tmp}; {back}; {nobody} {run} 2>&1; {run} >/dev/null");
    let outcome = after(options, &script, command());
    assert!(outcome.status.success(), "{outcome}");
    let told = |text: &str| text.matches("/tmp/cudevshr.cache was made by user 65534").count();
    assert_eq!((told(&outcome.out), told(&outcome.stderr)), (0, 1), "{outcome}");
    Verdict::Kept
}

fn other_users() -> Verdict {
    let machine = Machine::with_driver("bound");
    if !may_be_nobody(&machine) {
        return Verdict::Skipped(NO_OTHER_USER.into());
    }
    let promise = &Promise::to(&["HAMi#961"]);
    for nobody_first in [false, true] {
        let quota = machine.quota().memory(2 * GIB);
        let open = PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(quota.home(), open).expect("the scratch folder is ours");
        let start = |nobody: bool| {
            let command = quota.command(program("hold"), &[]);
            let mut program = Program::start(if nobody { as_nobody(&command) } else { command });
            program.wait_for("pid");
            program
        };
        let (mut first, mut second) = (start(nobody_first), start(!nobody_first));
        assert_eq!(first.ask(&format!("alloc {}", 3 * GIB / 2), "rc"), 0);
        promise.asserts(|| assert_eq!(second.ask(&format!("alloc {GIB}"), "rc"), 2));
        first.kill();
        assert_eq!(second.ask(&format!("alloc {GIB}"), "rc"), 0, "the dead one's bytes are back");
        second.finish().success();
    }
    Verdict::Kept
}

const MUSL_PROGRAM: &str = r#"
    #include <dlfcn.h>
    #include <pthread.h>
    #include <stdio.h>
    static void *thread(void *driver) { return driver ? dlsym(driver, "cuInit") : dlsym(RTLD_DEFAULT, "cuInit"); }
    int main(void)
    {
        void *found;
        pthread_t id;
        pthread_create(&id, NULL, thread, dlopen("libcuda.so.1", RTLD_NOW));
        pthread_join(id, &found);
        return printf("found=%d\n", found != NULL) < 0 ? 1 : 3;
    }
"#;

/// An image of Alpine whose `LD_PRELOAD` the node has set. NVIDIA's driver does not run there; everything else shall.
fn musl() -> Verdict {
    let scratch = Scratch::new();
    let (source, binary) = (scratch.path().join("musl.c"), scratch.path().join("musl"));
    std::fs::write(&source, MUSL_PROGRAM).expect("the scratch folder is ours");
    match Command::new("musl-gcc").arg("-o").arg(&binary).arg(&source).output() {
        Err(why) => return Verdict::Skipped(format!("musl-gcc, of musl-tools: {why}")),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
    let promise = &Promise::to(&["HAMi-core#174"]);
    let started = |library: Option<&Path>| {
        let mut command = Command::new(&binary);
        command.env("GPUQUOTA_MEMORY", "1GiB").env("LD_PRELOAD", library.unwrap_or(Path::new("")));
        Program::start(command).finish()
    };
    let bare = started(None);
    assert_eq!(bare.out, "found=0\n", "{bare}");
    for library in [Some(artifact("libgpuquota.so")), released().ok()].into_iter().flatten() {
        let quota = started(Some(&library));
        let told = |outcome: &Outcome| (outcome.status, outcome.out.clone(), outcome.stderr.clone());
        promise.asserts(|| assert_eq!(told(&quota), told(&bare), "{}", library.display()));
    }
    Verdict::Kept
}

/// The library of the release build, or the reason why it is missing.
fn released() -> Result<PathBuf, String> {
    let folder = std::env::var_os("GPUQUOTA_DIST");
    let folder = folder.as_deref().unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/../dist").as_ref());
    let library = Path::new(folder).join("libgpuquota.so");
    if library.exists() {
        Ok(library)
    } else {
        Err(format!("no {}; make release builds it", library.display()))
    }
}

/// The release build is the one that runs in other people's containers.
fn glibc_floor() -> Verdict {
    let library = match released() {
        Ok(library) => library,
        Err(why) => return Verdict::Skipped(why),
    };
    let promise = &Promise::to(&["HAMi-core#174"]);
    let output =
        Command::new("readelf").arg("-VW").arg(&library).output().expect("readelf comes with binutils");
    let table = String::from_utf8_lossy(&output.stdout);
    let versions = table.split_whitespace().filter_map(|word| {
        let mut parts = word.strip_prefix("GLIBC_")?.split('.').map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    });
    let newest = versions.max().expect("it asks for some glibc");
    promise.asserts(|| assert!(newest <= (2, 17), "it asks for glibc {newest:?}"));
    assert!(
        library.metadata().expect("it is there").len() < 4 * MIB as u64,
        "it is large for a library in every process"
    );
    Verdict::Kept
}
