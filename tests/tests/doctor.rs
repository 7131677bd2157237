//! `gpuquota doctor`: each fault is made on purpose, and found by its code.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use gpuquota_promises::{GIB, Machine, Outcome, Program, Promise, Scratch, artifact, program};
use serde_json::Value;

/// What a doctor is given: a machine or none, a system of files, variables and arguments.
struct Visit<'m> {
    machine: Option<&'m Machine>,
    system: Scratch,
    variables: Vec<(OsString, OsString)>,
    arguments: Vec<String>,
}

impl<'m> Visit<'m> {
    fn new() -> Self {
        let visit =
            Self { machine: None, system: Scratch::new(), variables: Vec::new(), arguments: Vec::new() };
        let region = visit.system.path().join("region.cache");
        visit.with("GPUQUOTA_REGION", region).with("GPUQUOTA_LIBRARY", artifact("libgpuquota.so"))
    }

    fn on(machine: &'m Machine) -> Self {
        Self { machine: Some(machine), ..Self::new() }
    }

    fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    fn asked(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.system.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
        self
    }

    fn path(&self, name: &str) -> String {
        self.system.path().join(name).display().to_string()
    }

    fn run(&self, more: &[&str]) -> Outcome {
        let program = artifact("gpuquota");
        let mut arguments = vec!["doctor", "--system", self.system.path().to_str().expect("UTF-8")];
        arguments.extend(more);
        arguments.extend(self.arguments.iter().map(String::as_str));
        let mut command = match self.machine {
            Some(machine) => machine.bare().command(program, &arguments),
            None => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
        };
        let of_tests = |name: &OsString| name.as_encoded_bytes().starts_with(b"GPUQUOTA_");
        let names = std::env::vars_os().map(|(name, _)| name).filter(of_tests);
        names.chain([OsString::from("LD_PRELOAD")]).for_each(|name| _ = command.env_remove(name));
        command.env("GPUQUOTA_AGENT", "none");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Program::start(command).finish()
    }

    /// The finding with this code has this severity, and these words.
    #[track_caller]
    fn finds(&self, severity: &str, code: &str, words: &[&str]) {
        let told = self.run(&["--json"]);
        let json: Value = serde_json::from_str(&told.out).unwrap_or_else(|why| panic!("{why}: {told}"));
        let findings = json["findings"].as_array().expect("findings");
        let found =
            findings.iter().find(|finding| finding["code"] == code && finding["severity"] == severity);
        let found = found.unwrap_or_else(|| panic!("{severity} {code} is not among {findings:#?}"));
        let says = found["says"].as_str().expect("a sentence");
        assert!(words.iter().all(|word| says.contains(word)), "{words:?} are not in {says}");
        assert!(found["next"].as_str().is_some_and(|next| !next.is_empty()));
        let worst = json["severity"].as_str().expect("the worst");
        let status = match worst {
            "fine" | "note" => 0,
            "warning" => 3,
            _ => 4,
        };
        assert_eq!(told.status.code(), Some(status), "{told}");
        let rank =
            |severity: &str| ["fine", "note", "warning", "error"].iter().position(|one| *one == severity);
        assert!(rank(worst) >= rank(severity), "{worst} is worse than {severity}");
    }

    #[track_caller]
    fn does_not_find(&self, code: &str) {
        let told = self.run(&["--json"]);
        assert!(!told.out.contains(&format!("\"{code}\"")), "{told}");
    }
}

#[test]
fn a_container_in_order_has_nothing_worse_than_a_note() {
    let machine = Machine::new("H100");
    let library = artifact("libgpuquota.so");
    let quota = machine.quota().memory("2GiB");
    let mut holder = quota.start("hold", &[]);
    let pid = holder.wait_for("pid").to_string();
    let visit = Visit::on(&machine)
        .with("LD_PRELOAD", &library)
        .with("GPUQUOTA_REGION", quota.region())
        .with("GPUQUOTA_MEMORY", "2GiB")
        .asked(&["--pid", &pid, "--", program("hold").to_str().expect("UTF-8")]);
    for (code, words) in [
        ("GQ400", "LD_PRELOAD names"),
        ("GQ410", pid.as_str()),
        ("GQ418", "would be started with libgpuquota.so"),
        ("GQ423", "NVIDIA H100"),
        ("GQ426", "libcuda.so"),
        ("GQ443", "GPUQUOTA_MEMORY=2GiB"),
        ("GQ456", "1 living"),
    ] {
        visit.finds("fine", code, &[words]);
    }
    visit.finds("note", "GQ461", &[]);
    let told = visit.run(&[]).success();
    assert!(told.out.contains("fine    GQ400 the library is preloaded\n"), "{told}");
    holder.finish().success();
}

#[test]
fn what_keeps_the_library_out_is_found() {
    let promise = &Promise::to(&["website#741"]);
    Visit::new().finds("warning", "GQ401", &["do not name libgpuquota.so"]);
    let missing = Visit::new().file("etc/ld.so.preload", "/usr/lib/gpuquota/libgpuquota.so\n");
    promise.asserts(|| missing.finds("error", "GQ402", &["ld.so.preload", "is not there"]));
    missing.does_not_find("GQ401");
    let by_lib = Visit::new()
        .file("etc/ld.so.preload", "/opt/$LIB/libgpuquota.so\n")
        .file("opt/lib64/libgpuquota.so", fs::read(artifact("libgpuquota.so")).expect("the library"));
    by_lib.finds("fine", "GQ400", &["opt/lib64/libgpuquota.so"]);
    Visit::new()
        .file("etc/ld.so.preload", "/lib/libgpuquota.so")
        .file("lib/libgpuquota.so", "#!/bin/sh\n")
        .finds("error", "GQ403", &["no shared library of this processor"]);
    let folder = Visit::new().file("etc/ld.so.preload/file", "");
    folder.finds("error", "GQ404", &["ld.so.preload"]);
    Visit::new().file("etc/ld.so.preload", "/usr/local/vgpu/libvgpu.so\n").finds(
        "error",
        "GQ409",
        &["libvgpu.so, which is HAMi's"],
    );
}

#[test]
fn cards_that_two_give_away_are_found() {
    let visit = Visit::new();
    let listen = |name: &str| {
        let path = visit.system.path().join("var/lib/kubelet").join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        UnixListener::bind(path).expect("a socket")
    };
    let _theirs = listen("device-plugins/nvidia-gpu.sock");
    visit.does_not_find("GQ464");
    let ours = listen("plugins_registry/gpuquota.dev-reg.sock");
    visit.finds("error", "GQ464", &["gpuquota's DRA driver is on this node", "NVIDIA's device plugin"]);
    // One that is gone has left its socket.
    drop(ours);
    visit.does_not_find("GQ464");
}

/// `gpuquota install --engine hami` puts it there.
#[test]
fn the_library_under_an_engines_name_is_no_other_quota() {
    let own = fs::read(artifact("libgpuquota.so")).expect("the library");
    let engine = Visit::new()
        .file("etc/ld.so.preload", "/usr/local/vgpu/libvgpu.so\n")
        .file("usr/local/vgpu/libvgpu.so", own);
    engine.finds("fine", "GQ400", &["usr/local/vgpu/libvgpu.so"]);
    engine.does_not_find("GQ409");
    let library = engine.path("usr/local/vgpu/libvgpu.so");
    let mut sleeper = Command::new("sleep").arg("60").env("LD_PRELOAD", library).spawn().expect("sleep");
    std::thread::sleep(std::time::Duration::from_millis(300));
    engine.asked(&["--pid", &sleeper.id().to_string()]).finds("fine", "GQ410", &["libvgpu.so mapped"]);
    sleeper.kill().expect("it sleeps");
    sleeper.wait().expect("its end");
}

#[test]
fn another_build_and_a_replaced_library_are_found() {
    let libc = fs::read_to_string("/proc/self/maps").expect("maps");
    let libc = libc.split_whitespace().find(|word| word.ends_with("libc.so.6")).expect("a libc").to_owned();
    let other = Visit::new().file("lib/libgpuquota.so", fs::read(libc).expect("a library"));
    other.file("etc/ld.so.preload", "/lib/libgpuquota.so").finds(
        "warning",
        "GQ406",
        &["is another build than"],
    );

    let machine = Machine::new("H100");
    let scratch = Scratch::new();
    let copy = scratch.path().join("libgpuquota.so");
    fs::copy(artifact("libgpuquota.so"), &copy).expect("a copy");
    let setting =
        machine.bare().with("GPUQUOTA_REGION", scratch.path().join("a.cache")).preloading(copy.clone(), true);
    let mut holder = setting.start("hold", &[]);
    let pid = holder.wait_for("pid").to_string();
    fs::remove_file(&copy).expect("it is there");
    Visit::new().asked(&["--pid", &pid]).finds("warning", "GQ407", &["(hold)", "(deleted)"]);
    holder.finish().success();
}

#[test]
fn a_process_that_is_not_held_is_found() {
    let promise = &Promise::to(&["website#741"]);
    let machine = Machine::new("H100");
    let mut bare = machine.bare().start("hold", &[]);
    let pid = bare.wait_for("pid").to_string();
    let visit = Visit::new().asked(&["--pid", &pid]);
    promise.asserts(|| visit.finds("error", "GQ405", &["(hold) has the driver"]));
    bare.finish().success();
    Visit::new().asked(&["--pid", &pid]).finds("error", "GQ416", &[&pid]);
    let other = Visit::new().file("libvgpu.so", fs::read(program("empty.so")).expect("a library"));
    let mut sleeper =
        Command::new("sleep").arg("60").env("LD_PRELOAD", other.path("libvgpu.so")).spawn().expect("sleep");
    std::thread::sleep(std::time::Duration::from_millis(300));
    other.asked(&["--pid", &sleeper.id().to_string()]).finds("error", "GQ409", &["HAMi's library mapped"]);
    sleeper.kill().expect("it sleeps");
    sleeper.wait().expect("its end");
}

/// A compiled program, or why there is none.
fn compiled(scratch: &Scratch, name: &str, source: &str, flags: &[&str]) -> String {
    let file = scratch.file(&format!("{name}.c"), source);
    let path = scratch.path().join(name);
    let status = Command::new("cc").arg(&file).arg("-o").arg(&path).args(flags).status().expect("cc");
    assert!(status.success(), "{name} cannot be compiled with {flags:?}");
    path.display().to_string()
}

#[test]
fn a_command_that_cannot_be_held_is_found_and_not_started() {
    let scratch = Scratch::new();
    let library = artifact("libgpuquota.so");
    let of = |command: &str| Visit::new().with("LD_PRELOAD", &library).asked(&["--", command]);
    let plain = "int main(void) { return 0; }";
    of(&compiled(&scratch, "static", plain, &["-static"])).finds("error", "GQ411", &["asks for no loader"]);
    let dlmopen = "#define _GNU_SOURCE\n#include <dlfcn.h>\nint main(void) { return dlmopen(LM_ID_NEWLM, \"x\", 1) == 0; }";
    let opens = of(&compiled(&scratch, "opens", dlmopen, &["-ldl"]));
    opens.finds("warning", "GQ415", &["calls dlmopen"]);
    opens.finds("fine", "GQ418", &[]);
    let setuid = compiled(&scratch, "setuid", plain, &[]);
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).expect("its mode");
    of(&setuid).finds("warning", "GQ412", &["more rights"]);
    let other_loader = compiled(&scratch, "musl", plain, &["-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"]);
    of(&other_loader).finds("warning", "GQ414", &["ld-musl"]);
    of(scratch.file("text", "no program").to_str().expect("UTF-8")).finds("error", "GQ413", &[]);
    of("/nowhere/program").finds("error", "GQ416", &["/nowhere/program is not found"]);
    let marker = scratch.path().join("marker");
    let script = scratch.file("script", format!("#!/bin/sh\ntouch {}\n", marker.display()));
    of(script.to_str().expect("UTF-8")).finds("fine", "GQ418", &["sh would be started"]);
    assert!(!marker.exists(), "the command was started");
    let without = Visit::new().asked(&["--", "sleep"]);
    without.finds("error", "GQ417", &["would be started without libgpuquota.so"]);
    Visit::new().with("LD_PRELOAD", "/nowhere/libgpuquota.so").asked(&["--", "sleep"]).finds(
        "error",
        "GQ417",
        &["The loader says: ERROR: ld.so: object '/nowhere/libgpuquota.so'"],
    );
}

#[test]
fn faults_of_the_driver_are_found() {
    Visit::new().finds("warning", "GQ421", &["not found"]);
    Visit::new().finds("warning", "GQ422", &["NVML says"]);
    let scratch = Scratch::new();
    let lost =
        "[[device]]\nlike = \"H100\"\ncount = 2\n[[fault]]\ncall = \"cuMemAlloc\"\nnth = 1\nlost = 0\n";
    let machine = Machine::new(scratch.file("lost.toml", lost).to_str().expect("UTF-8"));
    let mut program = machine.bare().start("hold", &[]);
    program.wait_for("pid");
    program.ask(&format!("alloc {GIB}"), "rc");
    Visit::on(&machine).finds("error", "GQ424", &["Card 0 does not answer"]);
    program.kill();
    let split = "[[device]]\nlike = \"H100\"\nmig = [\"3g.40gb\", \"2g.20gb\"]\n";
    let machine = Machine::new(scratch.file("mig.toml", split).to_str().expect("UTF-8"));
    Visit::on(&machine).finds("note", "GQ429", &["Card 0 has MIG instances"]);
    let machine = Machine::new("H100");
    Visit::on(&machine).with("CUDA_VISIBLE_DEVICES", "GPU-00000000-aaaa").finds(
        "error",
        "GQ431",
        &["GPU-00000000-aaaa", "there are 1 cards"],
    );
    Visit::new().file("dev/dxg", "").finds("note", "GQ430", &["dev/dxg"]);
    Visit::new().file("tmp/nvidia-mps/control", "").finds("note", "GQ427", &["control pipe"]);
    Visit::new().with("CUDA_MPS_PIPE_DIRECTORY", "/nowhere").finds("warning", "GQ428", &["/nowhere"]);
}

#[test]
fn entries_of_a_driver_that_the_library_does_not_know_are_found() {
    let scratch = Scratch::new();
    let source = "int cuInit(unsigned f) { return 0 * f; } int cuBrandNewThing(void) { return 0; }";
    compiled(&scratch, "libcuda.so.1", source, &["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]);
    Visit::new().with("LD_LIBRARY_PATH", scratch.path()).finds(
        "warning",
        "GQ425",
        &["1 of ", "libcuda.so.1", "cuBrandNewThing"],
    );
}

/// What a traced program asked for: name, standing and doors.
fn traced(visit: &Visit<'_>, command: &[&str]) -> (Outcome, Vec<(String, String, Vec<String>)>) {
    let told = visit.run(&[&["--json", "--trace", "--"], command].concat());
    let json: Value = serde_json::from_str(&told.out).unwrap_or_else(|why| panic!("{why}: {told}"));
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let doors = |value: &Value| value.as_array().expect("doors").iter().map(text).collect();
    let entry = |entry: &Value| (text(&entry["name"]), text(&entry["standing"]), doors(&entry["doors"]));
    let entries = json["entries"].as_array().expect("entries").iter().map(entry).collect();
    (told, entries)
}

#[test]
fn what_a_program_asks_the_driver_for_is_told_by_each_door() {
    let machine = Machine::new("H100");
    let own = |name: &str| program(name).display().to_string();
    for (name, arguments, door, alloc) in [
        ("door_dlsym", &[][..], "dlsym", "cuMemAlloc_v2"),
        ("door_linked", &[], "linked", "cuMemAlloc_v2"),
        ("door_getproc", &["2", "0"], "cuGetProcAddress", "cuMemAlloc"),
    ] {
        let path = own(name);
        let command = [&[path.as_str()], arguments].concat();
        let (told, entries) = traced(&Visit::on(&machine), &command);
        let of = |name: &str| {
            entries.iter().find(|entry| entry.0 == name).unwrap_or_else(|| panic!("{name}: {entries:?}"))
        };
        let held = of(alloc);
        assert!(held.1 == "held" && held.2.iter().any(|one| one == door), "{name}: {held:?}");
        assert!(entries.iter().any(|entry| entry.1 == "passed"), "{name}: {entries:?}");
        assert!(!entries.iter().any(|entry| entry.1 == "unknown"), "{name}: {entries:?}");
        assert!(told.out.contains("\"GQ432\""), "{told}");
        let visit = Visit::on(&machine).asked(&[&["--trace", "--", path.as_str()], arguments].concat());
        visit.finds("fine", "GQ432", &["exit status: 0", "functions", "0 are unknown"]);
    }
    // A program that has nothing to do with CUDA, and its own words and end.
    let visit = Visit::on(&machine).asked(&["--trace", "--", "sh", "-c", "echo own words; exit 7"]);
    visit.finds("note", "GQ432", &["exit status: 7", "no function of the driver"]);
    let told = visit.run(&[]);
    assert!(told.out.contains("own words"), "{told}");
    let refused = Visit::new().run(&["--trace"]);
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    Visit::new().asked(&["--trace", "--", "no-such-program"]).finds("error", "GQ416", &["no-such-program"]);
}

#[test]
fn a_function_that_the_library_does_not_know_is_told_with_who_asks_for_it() {
    let scratch = Scratch::new();
    let driver = "int cuInit(unsigned f) { return 0 * f; } int cuBrandNewThing(void) { return 0; }";
    let driver =
        compiled(&scratch, "libcuda.so.1", driver, &["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]);
    let source = "int cuInit(unsigned); int cuBrandNewThing(void); int main(void) { return cuInit(0) + cuBrandNewThing(); }";
    let user = compiled(&scratch, "user", source, &[&driver]);
    let visit = Visit::new().with("LD_LIBRARY_PATH", scratch.path()).asked(&["--trace", "--", &user]);
    visit.finds("warning", "GQ433", &["cuBrandNewThing"]);
}

#[test]
fn faults_of_the_limits_are_found() {
    Visit::new().finds("note", "GQ444", &[]);
    let wrong = Visit::new().with("GPUQUOTA_MEMORY", "2 parsecs");
    wrong.finds("error", "GQ441", &["GPUQUOTA_MEMORY", "2 parsecs", "Write"]);
    let doubtful = Visit::new().with("CUDA_DEVICE_MEMORY_LIMIT", "0");
    doubtful.finds("warning", "GQ442", &["0 means no limit"]);
    let file = Visit::new().file("etc/gpuquota/limits", "memory = 2GiB\nspeed = 9\n");
    file.finds("error", "GQ441", &["limits file, line 2"]);
    file.finds("fine", "GQ443", &["etc/gpuquota/limits"]);
    let long = Visit::new().file("etc/gpuquota/limits", "#".repeat(9000));
    long.finds("error", "GQ447", &["9000 bytes"]);
    Visit::new().with("GPUQUOTA_MEMORYS", "2GiB").finds(
        "warning",
        "GQ445",
        &["The nearest one is GPUQUOTA_MEMORY"],
    );
    Visit::new().with("GPUQUOTA_MODE", "observe").finds("warning", "GQ446", &["observe"]);
}

/// A `vgpu.config` of layout 1 with one device of 2 GiB and 30%, whose writer is at it where `seq` is odd.
fn vgpu_config(seq: u32) -> Vec<u8> {
    let mut file = vec![0; 8192];
    let mut put = |at: usize, value: u32| file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    [(0, 0x5647_4346), (4, 1), (8, 2560), (12, 16)].into_iter().for_each(|(at, value)| put(at, value));
    let device =
        [(0, seq), (56, 2 << 30), (64, 2 << 30), (72, 30), (76, 30), (80, 1), (84, 1), (88, 1), (96, 1)];
    device.into_iter().for_each(|(at, value)| put(512 + at, value));
    let uuid = b"GPU-513dc0da-2330-4000-8000-000000000000";
    file[520..520 + uuid.len()].copy_from_slice(uuid);
    file
}

#[test]
fn limits_of_this_user_are_limits_and_their_region_is_looked_at() {
    let each = "memory = 2GiB\ncores = 30\nregion = /run/gpuquota/others/%u.cache\n";
    let visit = Visit::new().file("etc/gpuquota/limits.d/default", each);
    visit.finds("fine", "GQ443", &["etc/gpuquota/limits.d/default"]);
    visit.does_not_find("GQ444");
    // Its region, with this user's number.
    let output = Command::new("id").arg("-u").output().expect("id");
    let user = String::from_utf8(output.stdout).expect("text").trim().to_owned();
    visit.finds("error", "GQ453", &[&format!("run/gpuquota/others/{user}.cache")]);
    // What is wrong in it closes the GPU, as in the limits file.
    let wrong = Visit::new().file("etc/gpuquota/limits.d/default", "memory = 2 parsecs\n");
    wrong.finds("error", "GQ441", &["line 1", "2 parsecs"]);
    // The limits file goes before it.
    let both =
        Visit::new().file("etc/gpuquota/limits.d/default", "").file("etc/gpuquota/limits", "cores = 7\n");
    both.finds("fine", "GQ443", &["etc/gpuquota/limits."]);
    let folder = Visit::new().file("etc/gpuquota/limits.d/default/file", "");
    folder.finds("error", "GQ447", &["limits.d/default"]);
    if user == "0" {
        // The folder is root's, so a number counts.
        let own = Visit::new()
            .file("etc/gpuquota/limits.d/default", each)
            .file("etc/gpuquota/limits.d/user-0", "mode = off\n");
        own.finds("note", "GQ446", &["etc/gpuquota/limits.d/user-0", "no limit"]);
        own.does_not_find("GQ444");
        // Where it does not seem so, a user may have chosen its own number: then only `default` counts.
        let folder = own.system.path().join("etc/gpuquota/limits.d");
        std::os::unix::fs::chown(&folder, Some(1000), None).expect("root may");
        own.finds("fine", "GQ443", &["limits.d/default"]);
        fs::remove_file(folder.join("default")).expect("it is there");
        own.finds("error", "GQ447", &["has no file `default`"]);
    }
}

#[test]
fn limits_of_vgpu_manager_s_file_are_limits_where_its_library_is() {
    let alone = Visit::new().file("etc/vgpu-manager/config/vgpu.config", vgpu_config(2));
    alone.finds("note", "GQ444", &[]);
    let visit = alone.file("etc/vgpu-manager/driver/libvgpu-control.so", "");
    visit.finds("fine", "GQ443", &["etc/vgpu-manager/config/vgpu.config"]);
    visit.does_not_find("GQ444");
    let damaged = visit.file("etc/vgpu-manager/config/vgpu.config", vgpu_config(3));
    damaged.finds("error", "GQ447", &["vgpu.config"]);
    let first = damaged.file("etc/gpuquota/limits.d/default", "cores = 7\n");
    first.finds("fine", "GQ443", &["limits.d/default"]);
}

#[test]
fn faults_of_the_region_are_found() {
    Visit::new().finds("note", "GQ451", &["does not exist"]);
    Visit::new().file("region.cache", "no region").finds("error", "GQ452", &["region.cache"]);
    Visit::new().with("GPUQUOTA_REGION", "a.cache").finds("error", "GQ454", &["a.cache"]);
    Visit::new().with("GPUQUOTA_REGION", "/nowhere/a.cache").finds("error", "GQ453", &["/nowhere"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("2 parsecs");
    assert!(!quota.run("hold", &[]).status.success(), "no GPU with a limit that cannot be understood");
    Visit::new().with("GPUQUOTA_REGION", quota.region()).finds(
        "warning",
        "GQ455",
        &["1 limits were not understood"],
    );
}

#[test]
fn the_agent_and_its_version_are_found() {
    let scratch = Scratch::new();
    let agent = gpuquota_promises::Agent::start(scratch.path());
    let address = agent.address().to_string();
    Visit::new().with("GPUQUOTA_AGENT", &address).finds("fine", "GQ463", &[&address]);
    drop(agent);
    Visit::new().with("GPUQUOTA_AGENT", &address).finds("warning", "GQ461", &["no agent answers there"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            use std::io::{Read, Write};
            let mut stream = stream;
            let _ = stream.read(&mut [0; 2048]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{\"version\":\"0.0.1\"}");
        }
    });
    Visit::new().with("GPUQUOTA_AGENT", &address).finds("warning", "GQ462", &["of version 0.0.1"]);
}

/// Every code of the catalogue's findings is made by a test of this file.
#[test]
fn no_finding_is_without_a_fault_that_makes_it() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/messages.md"))
        .expect("the page");
    let part = page
        .split("\n## Findings\n")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("the findings");
    let codes: Vec<&str> =
        part.lines().filter_map(|line| line.strip_prefix("### ")?.split(':').next()).collect();
    assert!(codes.len() > 30, "{codes:?}");
    let source = include_str!("doctor.rs");
    let missing: Vec<_> = codes.iter().filter(|code| !source.contains(&format!("\"{code}\""))).collect();
    assert!(missing.is_empty(), "no test makes {missing:?}");
}
