//! `gpuquota install`, `uninstall` and `status`: another library takes the place of an engine's, and running programs notice
//! nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use gpuquota_promises::{GIB, Machine, Outcome, Program, Promise, Scratch, artifact};
use serde_json::Value;

/// Runs gpuquota on a root that is no machine's.
fn gpuquota(command: &str, root: &Path, options: &[&str]) -> Outcome {
    let mut all = Command::new(artifact("gpuquota"));
    all.arg(command).arg("--root").arg(root).args(options);
    Program::start(all).finish()
}

fn status(root: &Path) -> Value {
    let told = gpuquota("status", root, &["--json"]).success();
    serde_json::from_str(&told.out).expect("JSON")
}

/// A node on which HAMi 2.10 has run.
fn node(scratch: &Scratch) -> PathBuf {
    let root = scratch.path().join("node");
    let vgpu = root.join("usr/local/vgpu");
    fs::create_dir_all(&vgpu).expect("the scratch folder is ours");
    for name in ["libvgpu.so", "libvgpu.so.v2.10.0"] {
        fs::write(vgpu.join(name), format!("HAMi's {name}")).expect("ours");
    }
    fs::write(vgpu.join("ld.so.preload"), "/usr/local/vgpu/libvgpu.so\n").expect("ours");
    root
}

fn refused(outcome: &Outcome, words: &[&str]) {
    assert_eq!((outcome.status.code(), outcome.stderr.lines().count()), (Some(2), 1), "{outcome}");
    for word in words {
        assert!(outcome.stderr.contains(word), "{word}: {outcome}");
    }
}

#[test]
fn an_engine_gets_our_library_under_each_of_its_names_and_its_own_back() {
    let scratch = Scratch::new();
    let root = node(&scratch);
    let vgpu = root.join("usr/local/vgpu");
    let ours = fs::read(artifact("libgpuquota.so")).expect("a library");
    for word in ["changed", "unchanged"] {
        let told = gpuquota("install", &root, &["--engine", "hami"]).success();
        assert!(told.out.contains(&format!("libvgpu.so.v2.10.0: {word}")), "{told}");
        for name in ["libvgpu.so", "libvgpu.so.v2.10.0"] {
            assert!(fs::read(vgpu.join(name)).expect("a file") == ours, "{name}");
        }
    }
    let preload = fs::read_to_string(vgpu.join("ld.so.preload")).expect("a file");
    assert_eq!(preload, "/usr/local/vgpu/libvgpu.so\n", "HAMi's own line stands");
    gpuquota("uninstall", &root, &["--engine", "hami"]).success();
    for name in ["libvgpu.so", "libvgpu.so.v2.10.0"] {
        assert_eq!(fs::read_to_string(vgpu.join(name)).expect("text"), format!("HAMi's {name}"));
    }
    assert!(!root.join("var").exists(), "nothing of ours is left");
}

#[test]
fn each_engine_finds_it_where_it_looks() {
    for (engine, library, preload) in [
        ("hami", "usr/local/vgpu/libvgpu.so", Some("usr/local/vgpu/ld.so.preload")),
        ("volcano", "usr/local/vgpu/libvgpu.so", Some("usr/local/vgpu/ld.so.preload")),
        ("kai", "usr/local/vgpu/libvgpu.so", Some("usr/local/vgpu/ld.so.preload")),
        ("koordinator", "usr/local/vgpu/libvgpu.so", None),
        ("vgpu-manager", "etc/vgpu-manager/libvgpu-control.so", None),
        ("standalone", "usr/local/lib/gpuquota/libgpuquota.so", None),
    ] {
        let scratch = Scratch::new();
        let root = scratch.path().join("node");
        fs::create_dir_all(root.join(library).parent().expect("a folder")).expect("ours");
        gpuquota("install", &root, &["--engine", engine]).success();
        assert!(root.join(library).is_file(), "{engine}");
        let line = preload.map(|path| fs::read_to_string(root.join(path)).expect("a preload file"));
        assert_eq!(line.as_deref(), preload.map(|_| "/usr/local/vgpu/libvgpu.so\n"), "{engine}");
        let program = root.join("usr/local/bin/gpuquota");
        assert_eq!(program.exists(), engine == "standalone", "{engine}");
    }
}

/// And `status` says which of them runs which version.
#[test]
fn a_running_program_keeps_the_library_that_it_has_mapped() {
    let promise = &Promise::to(&["HAMi#753"]);
    let scratch = Scratch::new();
    let root = node(&scratch);
    gpuquota("install", &root, &["--engine", "hami"]).success();
    let library = root.join("usr/local/vgpu/libvgpu.so");
    let machine = Machine::new("H100");
    let quota = machine.bare().preloading(library.clone(), false).memory(2 * GIB);
    let region = scratch.path().join("quota.cache");
    let quota = quota.with("GPUQUOTA_REGION", region);
    let start = || {
        let mut program = quota.start("hold", &[]);
        let pid = program.wait_for("pid");
        (program, pid)
    };
    let (mut old, old_pid) = start();
    let inode = || library.metadata().expect("a library").ino();
    let before = inode();
    // Bytes behind an ELF file's end are nobody's.
    let newer = scratch.path().join("libgpuquota.so");
    let bytes = [fs::read(artifact("libgpuquota.so")).expect("a library"), b"newer".to_vec()].concat();
    fs::write(&newer, bytes).expect("ours");
    gpuquota("install", &root, &["--engine", "hami", "--library", newer.to_str().expect("text")]).success();
    assert_ne!(inode(), before, "it was written over, and not replaced");
    promise.asserts(|| assert_eq!(old.ask(&format!("alloc {GIB}"), "rc"), 0, "the running program goes on"));
    let (mut new, new_pid) = start();
    assert_eq!(new.ask(&format!("alloc {}", 2 * GIB), "rc"), 2, "both versions keep one cap");
    let told = status(&root);
    let is_installed = |pid: i64| {
        let running = told["running"].as_array().expect("a list").iter();
        let has = |running: &&Value| running["pids"].as_array().expect("pids").contains(&pid.into());
        running.clone().find(has).map(|running| running["is_installed"] == true)
    };
    assert_eq!((is_installed(old_pid), is_installed(new_pid)), (Some(false), Some(true)), "{told:#}");
    // What the engine puts there itself is told too, and left to it.
    fs::write(&library, "HAMi's again").expect("ours");
    fs::write(library.with_file_name("libvgpu.so.v2.11.0"), "HAMi's newer").expect("ours");
    let told = gpuquota("status", &root, &[]).success();
    for line in ["replaced since", "not ours, and the engine takes it first"] {
        assert!(told.out.contains(line), "{told}");
    }
    let told = gpuquota("uninstall", &root, &[]).success();
    assert!(told.out.contains("libvgpu.so: left alone"), "{told}");
    assert_eq!(fs::read_to_string(&library).expect("text"), "HAMi's again");
    for program in [old, new] {
        program.finish().success();
    }
}

#[test]
fn what_cannot_be_installed_is_refused_with_its_value_and_what_to_do() {
    let scratch = Scratch::new();
    let root = node(&scratch);
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    let install = |options: &[&str]| gpuquota("install", &root, options);
    let library = fs::read(artifact("libgpuquota.so")).expect("a library");

    let mut foreign = library.clone();
    foreign[18] = if foreign[18] == 62 { 183 } else { 62 };
    let other = scratch.file("foreign.so", foreign);
    let words = ["--library", "foreign.so", "it is for", "from the release for this machine"];
    refused(&install(&["--engine", "hami", "--library", &text(&other)]), &words);
    for (name, bytes) in [("note.txt", b"a text".as_slice()), ("half.so", &library[..10])] {
        let file = scratch.file(name, bytes);
        let library = text(&file);
        refused(&install(&["--engine", "hami", "--library", &library]), &[name, "no shared library"]);
    }
    // The C library is one, and not ours.
    let libc = fs::read_to_string("/proc/self/maps").expect("maps");
    let libc = libc.split_whitespace().find(|word| word.ends_with("libc.so.6")).expect("a libc");
    refused(&install(&["--engine", "hami", "--library", libc]), &["not libgpuquota.so"]);
    refused(&install(&["--engine", "hami", "--library", "/nowhere.so"]), &["/nowhere.so", "Name the"]);
    refused(&install(&["--engine", "vgpu-manager"]), &["/etc/vgpu-manager is not there", "--engine-dir"]);
    refused(&install(&["--engine-dir", "vgpu"]), &["--engine-dir vgpu", "absolute"]);
    refused(&gpuquota("install", Path::new("/nowhere"), &[]), &["--root /nowhere", "Name the folder"]);
    // A folder where the library belongs.
    fs::create_dir_all(root.join("usr/local/lib/gpuquota/libgpuquota.so")).expect("ours");
    refused(&install(&[]), &["libgpuquota.so", "Move it away"]);
    assert!(!root.join("var").exists(), "a refused install leaves nothing");
    let vgpu = root.join("usr/local/vgpu/libvgpu.so");
    assert_eq!(fs::read_to_string(vgpu).expect("text"), "HAMi's libvgpu.so");
}

/// For root a file system that is read-only; for others a folder that is not theirs.
#[test]
fn a_root_that_cannot_be_written_is_refused_and_left() {
    let scratch = Scratch::new();
    let root = node(&scratch);
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let mut all = Command::new("unshare");
    all.args(["--mount", "sh", "-c", script, "sh"]).arg(&root).arg(artifact("gpuquota"));
    all.args(["install", "--engine", "hami", "--root"]).arg(&root);
    let outcome = Program::start(all).finish();
    if outcome.stderr.contains("unshare") || outcome.stderr.contains("mount:") {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o555);
        fs::set_permissions(&root, mode).expect("ours");
        let outcome = gpuquota("install", &root, &["--engine", "hami"]);
        refused(&outcome, &["--engine hami", "Run this as root"]);
    } else {
        refused(&outcome, &["--engine hami", "Read-only file system", "Make the file system writable"]);
    }
    let vgpu = root.join("usr/local/vgpu/libvgpu.so");
    assert_eq!(fs::read_to_string(vgpu).expect("text"), "HAMi's libvgpu.so");
}

#[test]
fn the_service_is_a_unit_that_systemd_accepts_and_finds_hardened() {
    let scratch = Scratch::new();
    let root = scratch.path().join("node");
    fs::create_dir_all(&root).expect("ours");
    let told = gpuquota("install", &root, &["--service"]).success();
    assert!(told.out.contains("systemctl daemon-reload"), "{told}");
    let unit = root.join("etc/systemd/system/gpuquota-agent.service");
    let text = fs::read_to_string(&unit).expect("a unit");
    for line in ["Type=notify", "WatchdogSec=", "NoNewPrivileges=yes", "RuntimeDirectoryPreserve=yes"] {
        assert!(text.contains(line), "{line}");
    }
    // Where systemd is, its own judgement: no unknown word, and a low exposure. Elsewhere the lines above are all.
    let program = artifact("gpuquota");
    let here = text.replace("/usr/local/bin/gpuquota", program.to_str().expect("text"));
    let copy = scratch.file("gpuquota-agent.service", here.replace("man:gpuquota-agent(1)", "man:man(1)"));
    let analyze = |what: &[&str]| Command::new("systemd-analyze").args(what).arg(&copy).output();
    if let Ok(verified) = analyze(&["verify", "--man=no", "--recursive-errors=no"]) {
        let told = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(!told.contains("gpuquota-agent.service:"), "{told}");
    }
    if let Ok(judged) = analyze(&["security", "--offline=true", "--threshold=45"])
        && !judged.stdout.is_empty()
    {
        let told = String::from_utf8_lossy(&judged.stdout).into_owned();
        assert!(judged.status.success(), "{told}");
    }
    let told = gpuquota("uninstall", &root, &[]).success();
    assert!(told.out.contains("gpuquota-agent.service: removed\n") && !unit.exists(), "{told}");
    assert!(told.out.contains("systemctl disable --now gpuquota-agent"), "{told}");
}
