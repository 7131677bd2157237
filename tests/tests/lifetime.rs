//! A container's life: whatever becomes of its region's file and of its processes, there is one cap, and somebody is told.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gpuquota_promises::{Agent, GIB, Machine, OUT_OF_MEMORY, Program, Promise, Setting, artifact, program};

/// The cap: room for two contexts and for [`MOST`], not for as much again.
const CAP: i64 = 4 * GIB;
const MOST: i64 = 2 * GIB;

/// A process that holds most of the cap and does nothing more.
fn idle_holder(quota: &Setting<'_>) -> (Program, i64) {
    let mut holder = quota.start("hold", &[]);
    let pid = holder.wait_for("pid");
    assert_eq!(holder.ask(&format!("alloc {MOST}"), "rc"), 0);
    (holder, pid)
}

/// The second name of a region.
fn second(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().expect("a file has a name"));
    name.push(".gpuquota");
    path.with_file_name(name)
}

fn events(quota: &Setting<'_>, of: &str) -> usize {
    let seen = quota.inspect();
    let events = seen["events"].as_array().expect("a list");
    events.iter().filter(|event| event["event"] == of).count()
}

/// A newcomer has the container's cap and sees the holder's bytes.
#[track_caller]
fn shares_the_cap(quota: &Setting<'_>, case: &str) -> Program {
    let mut newcomer = quota.start("hold", &[]);
    newcomer.wait_for("pid");
    assert_eq!(newcomer.ask(&format!("alloc {MOST}"), "rc"), OUT_OF_MEMORY, "{case}: a second cap");
    assert_eq!(newcomer.ask(&format!("alloc {}", CAP / 8), "rc"), 0, "{case}: not even the rest");
    newcomer
}

type Fate = fn(&Path);

/// What may become of the region's path while a process holds the region and makes no call.
const FATES: [(&str, Fate); 4] = [
    ("rm", |path| fs::remove_file(path).expect("the region")),
    ("mv", |path| fs::rename(path, path.with_extension("elsewhere")).expect("the region")),
    ("cp, mv", |path| {
        let copy = path.with_extension("copy");
        fs::copy(path, &copy).expect("the region");
        fs::rename(copy, path).expect("the region");
    }),
    ("rm, touch", |path| {
        fs::remove_file(path).expect("the region");
        fs::write(path, "").expect("a file");
    }),
];

#[test]
fn a_region_whose_path_is_gone_stays_the_one_cap_of_old_and_new_processes() {
    let promise = &Promise::to(&["systemd#30760"]);
    for (case, fate) in FATES {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let (mut holder, pid) = idle_holder(&quota);
        fate(&quota.region());
        let newcomer = shares_the_cap(&quota, case);
        let processes = quota.inspect()["processes"].clone();
        let alive: Vec<_> =
            processes.as_array().into_iter().flatten().filter(|one| one["alive"] == true).collect();
        assert!(alive.len() == 2 && alive.iter().any(|one| one["pid"] == pid), "{case}: {alive:?}");
        assert_eq!(events(&quota, "name_restored"), 1, "{case}");
        let told = newcomer.finish().success().stderr;
        assert!(
            told.lines().any(|line| line.contains(quota.region().to_str().expect("text"))),
            "{case}: {told}"
        );
        quota.limit(&["--memory", "1GiB"]).success();
        assert_eq!(holder.ask("info", "total"), GIB, "{case}: the old process does not obey");
        promise.asserts(|| assert!(machine.truth().device("requested_peak_bytes") <= CAP, "{case}"));
        holder.finish().success();
    }
}

#[test]
fn tools_and_the_agent_find_a_region_whose_path_is_gone() {
    for (case, fate) in FATES {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let agent = Agent::start(quota.home());
        for tool in ["inspect", "limit", "agent"] {
            let (holder, pid) = idle_holder(&quota);
            fate(&quota.region());
            match tool {
                "inspect" => {}
                "limit" => _ = quota.limit(&["--memory", "4GiB"]).success(),
                _ => {
                    std::thread::sleep(Duration::from_millis(1100));
                    let metrics = agent.metrics();
                    let used = metrics
                        .lines()
                        .find(|line| line.starts_with("gpuquota_container_memory_used_bytes{"));
                    let used = used.and_then(|line| line.split_whitespace().last()?.parse::<i64>().ok());
                    assert!(used.is_some_and(|used| used >= MOST), "{case}, {tool}: {used:?}\n{metrics}");
                    assert!(quota.region().exists(), "{case}: the agent gave no path back");
                }
            }
            let seen = quota.inspect();
            let processes = seen["processes"].as_array().into_iter().flatten();
            assert_eq!(
                processes.filter(|one| one["alive"] == true && one["pid"] == pid).count(),
                1,
                "{case}, {tool}"
            );
            holder.finish().success();
        }
    }
}

#[test]
fn a_living_process_gives_its_region_the_path_back() {
    for (case, fate) in FATES {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let (mut holder, _) = idle_holder(&quota);
        // It has just looked.
        std::thread::sleep(Duration::from_millis(1100));
        let before = fs::metadata(quota.region()).expect("the region");
        fate(&quota.region());
        assert_eq!(holder.ask(&format!("alloc {MOST}"), "rc"), OUT_OF_MEMORY, "{case}");
        let after = fs::metadata(quota.region()).unwrap_or_else(|why| panic!("{case}: {why}"));
        let inode = std::os::unix::fs::MetadataExt::ino;
        assert_eq!(inode(&before), inode(&after), "{case}");
        assert!(second(&quota.region()).exists(), "{case}");
        holder.finish().success();
    }
}

/// `rm -rf DIR; mkdir DIR`: the region has no name, and nothing can give it one.
#[test]
fn a_region_without_any_name_is_joined_by_newcomers() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let (holder, pid) = idle_holder(&quota);
    fs::remove_dir_all(quota.home()).expect("the folder");
    fs::create_dir(quota.home()).expect("the folder");
    let first = shares_the_cap(&quota, "the first newcomer");
    assert_eq!(events(&quota, "name_restored"), 1);
    holder.finish().success();
    // Now it lives by the first newcomer alone, which holds an eighth of the cap.
    let mut second = quota.start("hold", &[]);
    second.wait_for("pid");
    assert_eq!(second.ask(&format!("alloc {MOST}"), "rc"), 0, "what the dead one held is back");
    assert_eq!(second.ask(&format!("alloc {MOST}"), "rc"), OUT_OF_MEMORY);
    let told = first.finish().success().stderr;
    assert!(told.contains(&format!("process {pid}")), "{told}");
    second.finish().success();
    assert!(machine.truth().device("requested_peak_bytes") <= CAP);
    // Nobody lives: a fresh one.
    let mut last = quota.start("hold", &[]);
    last.wait_for("pid");
    assert!(quota.region().exists());
    last.finish().success();
}

#[test]
fn a_region_that_is_removed_while_nobody_uses_it_is_made_anew() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    quota.run("views", &[]).success();
    quota.limit(&["--memory", "1GiB"]).success();
    fs::remove_file(quota.region()).expect("the region");
    assert_eq!(
        quota.run("views", &[]).success().value("total"),
        CAP,
        "a region that somebody removed came back"
    );
    assert!(second(&quota.region()).exists());
}

/// Somebody's own file is neither overwritten nor removed.
#[test]
fn a_file_that_took_the_region_s_path_is_left_alone_and_the_line_says_who_holds_the_region() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let (holder, pid) = idle_holder(&quota);
    fs::remove_file(quota.region()).expect("the region");
    fs::write(quota.region(), "precious").expect("a file");
    let outcome = quota.run("door_linked", &[]);
    assert!(!outcome.status.success(), "{outcome}");
    assert!(outcome.stderr.contains(&format!("process {pid}")), "{outcome}");
    assert_eq!(fs::read(quota.region()).expect("the file"), b"precious");
    fs::remove_file(quota.region()).expect("the file");
    shares_the_cap(&quota, "its path is free again").finish().success();
    holder.finish().success();
}

/// systemd-tmpfiles leaves files that have the sticky bit, and files on which somebody has a BSD lock.
#[test]
fn a_cleaner_of_old_files_is_told_to_leave_the_region() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let (holder, _) = idle_holder(&quota);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(quota.region()).expect("the region").permissions(),
    );
    assert_eq!(mode & 0o7777, 0o1666, "{mode:o}");
    let file = fs::File::open(quota.region()).expect("the region");
    assert!(matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)), "nobody has a BSD lock");
    holder.finish().success();
    assert!(file.try_lock().is_ok(), "its process has ended");
}

/// What `gpuquota run` made for a command goes with the command, its second name too.
#[test]
fn a_fresh_region_of_a_command_leaves_nothing_behind() {
    let machine = Machine::new("H100");
    let script = format!("{}; echo \"region=$GPUQUOTA_REGION\"", program("views").display());
    let arguments = ["run", "--memory", "1GiB", "--", "sh", "-c", &script];
    let outcome = Program::start(machine.bare().command(artifact("gpuquota"), &arguments)).finish().success();
    assert_eq!(outcome.value("total"), GIB);
    let region = outcome.out.lines().find_map(|line| line.strip_prefix("region=")).expect("it has one");
    let region = Path::new(region);
    assert!(!region.exists() && !second(region).exists(), "{}", region.display());
}

/// The sums of HAMi's view, as its monitor adds them up.
fn hami_used(region: &Path) -> u64 {
    use gpuquota_region::hami::{Process, Used, View};
    use std::mem::{offset_of, size_of};
    let bytes = fs::read(region).expect("the region");
    let total = |slot: usize| {
        let at = offset_of!(View, procs)
            + slot * size_of::<Process>()
            + offset_of!(Process, used)
            + offset_of!(Used, total);
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    };
    (0..16).map(total).sum()
}

fn metric(agent: &Agent, name: &str) -> u64 {
    let metrics = agent.metrics();
    let lines = metrics.lines().filter(|line| line.starts_with(&format!("gpuquota_container_{name}{{")));
    lines
        .map(|line| {
            line.split_whitespace().last().and_then(|value| value.parse::<u64>().ok()).expect("a number")
        })
        .sum()
}

/// The last process of a container ends, by itself or killed: nobody is left there who could clean up.
#[test]
fn no_view_counts_processes_that_have_ended_when_nobody_of_the_container_lives() {
    let promise = &Promise::to(&["HAMi#128"]);
    for killed in [true, false] {
        for agent_looks in [true, false] {
            let machine = Machine::new("H100");
            let quota = machine.quota().memory(CAP);
            let agent = agent_looks.then(|| Agent::start(quota.home()));
            let (holder, _) = idle_holder(&quota);
            assert!(hami_used(&quota.region()) >= MOST as u64);
            match killed {
                true => _ = holder.kill(),
                false => _ = holder.finish().success(),
            }
            let case = format!("killed: {killed}, agent: {agent_looks}");
            if let Some(agent) = agent {
                std::thread::sleep(Duration::from_millis(1000));
                // HAMi's monitor asks nobody.
                assert_eq!(hami_used(&quota.region()), 0, "{case}");
                promise.asserts(|| assert_eq!(metric(&agent, "memory_used_bytes"), 0, "{case}"));
                assert_eq!(metric(&agent, "memory_held_bytes"), 0, "{case}");
            }
            let seen = quota.inspect();
            assert_eq!(
                (&seen["devices"][0]["used"], &seen["processes"]),
                (&0.into(), &serde_json::json!([])),
                "{case}"
            );
            assert_eq!(hami_used(&quota.region()), 0, "{case}");
            let free = quota.run("views", &[]).success();
            assert!(free.value("free") > CAP - GIB, "{case}: {free}");
        }
    }
}

/// The kernel has closed the driver's files at the exec, and the process lives on.
#[test]
fn a_process_that_became_a_program_without_cuda_has_given_back() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let mut witness = quota.start("hold", &[]);
    witness.wait_for("pid");
    let mut other = quota.start("exec_other", &[&MOST.to_string()]);
    assert_eq!(other.wait_for("rc"), 0);
    let until = Instant::now() + Duration::from_secs(1);
    while witness.ask(&format!("alloc {MOST}"), "rc") != 0 {
        assert!(Instant::now() < until, "a second later its bytes are still held");
    }
    // It is `cat` now.
    assert_eq!(other.ask("answer=1", "answer"), 1);
    let seen = quota.inspect();
    assert_eq!(seen["processes"].as_array().map(Vec::len), Some(1), "{seen:#}");
    other.finish().success();
    witness.finish().success();
}
