//! The host application never suffers: processes fork, exec, take signals, close descriptors and end as without the library.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gpuquota_promises::{GIB, MIB, Machine, Program, Promise, Scratch, artifact, program};

const CAP: i64 = 2 * GIB;

#[test]
fn a_fork_without_exec_disturbs_nobody() {
    let promise = &Promise::to(&["HAMi-core#292"]);
    let machine = Machine::new("H100");
    let bare = machine.bare().run("fork_no_exec", &[]).success();
    let quota = machine.quota().memory(CAP).run("fork_no_exec", &[]).success();
    assert_eq!(quota.value("child"), bare.value("child"), "{quota}");
    let free = quota.values("free");
    promise.asserts(|| assert_eq!(free[1], free[0], "the child's end changed the parent's account: {quota}"));
    assert_eq!(free[2] - free[1], 64 * MIB, "{quota}");
}

#[test]
fn children_forked_before_the_first_call_have_accounts_of_their_own() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB);
    let outcome = quota.run("fork_before_init", &[]).success();
    assert_eq!(outcome.value("worst"), 0, "{outcome}");
    let mut witness = quota.start("hold", &[]);
    assert_eq!(
        witness.ask("info", "free"),
        outcome.value("free"),
        "the children's bytes were not given back"
    );
    witness.finish().success();
}

#[test]
fn an_executed_child_is_a_process_of_the_same_quota() {
    for how in ["fork", "vfork"] {
        let machine = Machine::new("H100");
        let outcome = machine.quota().memory(4 * GIB).run("fork_exec", &[how]).success();
        assert_eq!(outcome.value("child"), 0, "{how}: {outcome}");
        let free = outcome.values("free");
        assert!(
            free[1] <= free[0] - 64 * MIB,
            "the child was not charged to the same quota: {how}: {outcome}"
        );
        assert_eq!(
            outcome.value("rc"),
            0,
            "the child ended and its bytes were not given back: {how}: {outcome}"
        );
    }
}

#[test]
fn exec_gives_back_the_bytes_of_the_old_image() {
    let promise = &Promise::to(&["HAMi-core#292"]);
    let machine = Machine::new("H100");
    let outcome = machine.quota().memory(CAP).run("exec_self", &[]).success();
    promise.asserts(|| assert_eq!(outcome.value("rc"), 0, "{outcome}"));
}

#[test]
fn a_jvm_like_user_of_signals_finds_all_as_it_left_it() {
    let promise = &Promise::to(&["HAMi-core#160"]);
    let machine = Machine::new("H100");
    let bare = machine.bare().run("signals", &[]).success();
    let quota = machine.quota().memory(CAP).cores(50).with("GPUQUOTA_LOG", "off");
    let quota = quota.run("signals", &[]).success();
    assert_eq!((bare.value("hits"), bare.value("own_stack")), (4, 4), "{bare}");
    promise.asserts(|| assert_eq!(quota.out, bare.out));
    assert_eq!(quota.stderr, bare.stderr);
}

#[test]
fn threads_come_and_go_and_the_last_free_comes_after_main() {
    let promise = &Promise::to(&["HAMi-core#172"]);
    let machine = Machine::new("H100");
    let outcome = machine.quota().memory(CAP).run("threads_exit", &[]).success();
    promise.asserts(|| assert_eq!(outcome.value("late_free"), 0, "{outcome}"));
    let truth = machine.truth();
    assert_eq!(truth.device("requested_bytes"), 0);
    assert_eq!(truth.device("requested_peak_bytes"), 2 * MIB);
}

/// The bytes of `program`, which waits while it holds 64 MiB, stay charged although it has closed every
/// descriptor, or opened and closed the region itself.
#[track_caller]
fn stays_counted(arguments: impl Fn(&str) -> Vec<String>, program: &str) {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB);
    let mut witness = quota.start("hold", &[]);
    let alone = witness.ask("info", "free");
    let arguments = arguments(quota.region().to_str().expect("the path is text"));
    let mut holder = quota.start(program, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let free = holder.wait_for("free");
    // A request for more than is left makes the witness reap dead processes.
    assert_eq!(witness.ask(&format!("alloc {}", free + 1), "rc"), 2);
    assert_eq!(witness.ask("info", "free"), free);
    assert!(alone - free >= 64 * MIB);
    holder.tell("go on");
    holder.finish().success();
    assert_eq!(
        witness.ask(&format!("alloc {alone}"), "rc"),
        0,
        "the holder ended and its bytes were not given back"
    );
    witness.finish().success();
}

#[test]
fn a_daemon_that_closes_every_descriptor_stays_counted() {
    stays_counted(|_| vec![], "close_all_fds");
}

#[test]
fn a_program_that_opens_and_closes_the_region_stays_counted() {
    stays_counted(|region| vec![region.to_owned()], "opens_region");
}

/// No process requests memory here. A monitor that only reads the view must see the truth too, if not at the very instant.
#[test]
fn the_view_does_not_show_dead_processes() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB);
    let mut witness = quota.start("hold", &[]);
    let alone = witness.ask("info", "free");
    let mut holder = quota.start("hold", &[]);
    assert_eq!(holder.ask(&format!("alloc {GIB}"), "rc"), 0);
    assert!(witness.ask("info", "free") <= alone - GIB);
    holder.kill();
    let until = Instant::now() + Duration::from_secs(2);
    while witness.ask("info", "free") != alone {
        assert!(Instant::now() < until, "two seconds after its death a process is still counted");
        std::thread::sleep(Duration::from_millis(20));
    }
    witness.finish().success();
}

#[test]
fn a_region_kept_over_a_reboot_starts_anew() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let mut holder = quota.start("hold", &[]);
    let free = holder.ask("info", "free");
    assert_eq!(holder.ask(&format!("alloc {GIB}"), "rc"), 0);
    holder.kill();

    // Another boot: every trace of this boot's id in the file becomes another id's.
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux has it");
    let mut raw: Vec<u8> = id.trim().replace('-', "").as_bytes().chunks(2).map(hex).collect();
    let mut region = std::fs::read(quota.region()).expect("the region is there");
    let mut changed = overwrite(&mut region, id.trim().as_bytes()) + overwrite(&mut region, &raw);
    // As two 64-bit numbers.
    raw.chunks_mut(8).for_each(<[u8]>::reverse);
    changed += overwrite(&mut region, &raw);
    assert!(changed > 0, "the region does not say of which boot it is");
    std::fs::write(quota.region(), region).expect("the region can be written");

    let mut next = quota.start("hold", &[]);
    assert_eq!(next.ask("info", "free"), free);
    assert_eq!(next.ask(&format!("alloc {GIB}"), "rc"), 0);
    next.finish().success();
}

fn hex(pair: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal")
}

/// Changes the first byte of every occurrence of `what`; answers their number.
fn overwrite(file: &mut [u8], what: &[u8]) -> usize {
    let places: Vec<_> = (0..file.len() - what.len()).filter(|&i| &file[i..i + what.len()] == what).collect();
    // A letter becomes another one that is hexadecimal too.
    places.iter().for_each(|&i| file[i] ^= 1);
    places.len()
}

#[test]
fn a_region_that_cannot_be_made_is_a_failed_quota_and_says_so() {
    let promise = &Promise::to(&["HAMi#961"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP).with("GPUQUOTA_REGION", "/proc/nowhere/quota.cache");
    let outcome = quota.run("door_linked", &[]);
    assert!(!outcome.status.success(), "the program had a GPU without a quota: {outcome}");
    promise.asserts(|| assert!(outcome.stderr.contains("/proc/nowhere/quota.cache"), "{outcome}"));
    assert_eq!(outcome.stderr.lines().count(), 1, "loud is one line: {outcome}");
    assert_eq!(machine.truth().device("requested_peak_bytes"), 0);

    let outcome = quota.with("GPUQUOTA_ON_ERROR", "open").run("door_linked", &[]).success();
    assert!(outcome.stderr.contains("/proc/nowhere/quota.cache"), "{outcome}");
}

/// Everything about a command that has nothing to do with CUDA, side by side.
#[test]
fn programs_without_cuda_behave_as_they_do_without_the_library() {
    let promise = &Promise::to(&["HAMi-core#245"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP).cores(30);
    let python = "import subprocess, threading, ctypes, os, sys
t = threading.Thread(target=lambda: print('thread')); t.start(); t.join()
print(subprocess.run(['sh', '-c', 'echo child; exit 3'], capture_output=True))
print(ctypes.CDLL(None).getppid() == os.getppid(), sys.flags)
pid = os.fork()
if pid == 0: os._exit(5)
print(os.waitpid(pid, 0)[1])";
    for (command, arguments) in [
        ("true", vec![]),
        ("false", vec![]),
        ("sh", vec!["-c", "echo out; echo err >&2; exit 7"]),
        ("sh", vec!["-c", "kill -TERM $$"]),
        (
            "bash",
            vec!["-c", "set -o pipefail; printf 'b\\na\\n' | sort | (cat; exit 4); echo $? ${PIPESTATUS[0]}"],
        ),
        ("bash", vec!["-c", "trap 'echo caught' USR1; kill -USR1 $$; umask; ulimit -n"]),
        ("python3", vec!["-c", python]),
    ] {
        let bare = machine.bare().run_command(command, &arguments);
        let quota = quota.run_command(command, &arguments);
        assert_eq!(quota.status, bare.status, "{command} {arguments:?}: {quota}");
        promise.asserts(|| assert_eq!(quota.out, bare.out, "{command} {arguments:?}"));
        assert_eq!(quota.stderr, bare.stderr, "{command} {arguments:?}");
    }
    assert!(!quota.region().exists(), "a program that never touched CUDA made a region");
}

#[test]
fn a_limit_that_makes_no_sense_is_no_concern_of_programs_without_cuda() {
    let machine = Machine::new("H100");
    let outcome = machine.quota().memory("nonsense").run_command("true", &[]).success();
    assert_eq!(outcome.stderr, "");
}

/// The library has a line to write, and the reader of stderr is gone, or has stopped reading.
#[test]
fn a_broken_or_full_stderr_neither_kills_nor_stops_the_program() {
    let machine = Machine::new("H100");
    for reader_is_gone in [true, false] {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let reader = if reader_is_gone { None } else { Some(reader) };
        if reader.is_some() {
            // As much as a pipe holds.
            writer.write_all(&[b'.'; 1 << 16]).expect("room in a fresh pipe");
        }
        let quota = machine.quota().with("CUDA_DEVICE_MEMORY_LIMIT", "0");
        let command = quota.command(program("door_linked"), &[]);
        // Rust ignores SIGPIPE, and a child would inherit that.
        let mut command = {
            let mut env = Command::new("env");
            env.arg("--default-signal=PIPE").arg(command.get_program()).args(command.get_args());
            env
        };
        let mut child =
            command.stderr(writer).stdout(std::process::Stdio::null()).spawn().expect("it starts");
        let until = Instant::now() + Duration::from_secs(20);
        let status = loop {
            match child.try_wait().expect("a child of ours") {
                Some(status) => break status,
                None if Instant::now() > until => {
                    child.kill().ok();
                    panic!("it waits for a reader that does not read");
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        assert!(status.success(), "{status}");
    }
}

/// No simulator here, and on most machines that run this no driver either.
#[test]
fn a_missing_driver_stays_missing() {
    let run = |preload: bool, program: &Path, arguments: &[&OsStr]| {
        let mut command = Command::new("env");
        if preload {
            command.arg(format!("LD_PRELOAD={}", artifact("libgpuquota.so").display()));
            command.arg("GPUQUOTA_MEMORY=2GiB").arg("GPUQUOTA_REGION=/proc/nowhere/quota.cache");
        }
        command.arg(program).args(arguments);
        Program::start(command).finish()
    };
    let plugin = program("plugin_weak.so");
    let compare = |program: &Path, arguments: &[&OsStr]| {
        let (bare, quota) = (run(false, program, arguments), run(true, program, arguments));
        assert_eq!((quota.status, &quota.out, &quota.stderr), (bare.status, &bare.out, &bare.stderr));
        quota
    };
    let bare = run(false, &program("no_driver"), &[]).success();
    if bare.value("driver") == 0 {
        let promise = &Promise::to(&["THAPI#414"]);
        let quota = compare(&program("no_driver"), &[plugin.as_os_str()]).success();
        for way in ["weak", "self", "next", "version", "plugin", "global"] {
            promise.asserts(|| {
                assert_eq!(quota.value(way), 0, "a name of the driver was found without a driver: {quota}");
            });
        }
        for how in ["local", "deepbind"] {
            // A plugin that is linked to the driver, and one that opens it.
            compare(&program("plugin_host"), &[program("plugin_linked.so").as_os_str(), how.as_ref()]);
        }
    }
}

/// A program that opens plugins with RTLD_DEEPBIND and has nothing to do with CUDA: the driver is not started.
#[test]
fn plugins_without_cuda_behave_as_they_do_without_the_library() {
    let python = "import sys, os
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
import json, ssl, ctypes, socket, zlib
print(json.dumps([1]), zlib.crc32(b'x'), ctypes.CDLL(None).getppid() == os.getppid())
try: ctypes.CDLL('libnothing.so.7', os.RTLD_DEEPBIND)
except OSError as why: print(why)
print(len(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task')))";
    for machine in [Machine::new("H100"), Machine::with_driver("bound")] {
        let bare = machine.bare().run_command("python3", &["-c", python]).success();
        let quota = machine.quota().memory(CAP);
        let outcome = quota.run_command("python3", &["-c", python]).success();
        assert_eq!((&outcome.out, &outcome.stderr), (&bare.out, &bare.stderr));
        assert!(!quota.region().exists(), "the driver was started");
    }
}

/// ThreadSanitizer calls the loader before it has started itself; AddressSanitizer wants to be the first library, and says
/// which switch it takes.
#[test]
fn programs_with_sanitizers_start() {
    let promise = &Promise::to(&["google/sanitizers#796"]);
    let scratch = Scratch::new();
    let source =
        scratch.file("program.c", "#include <stdio.h>\nint main(void) { puts(\"ran=1\"); return 0; }\n");
    let machine = Machine::new("H100");
    for (sanitizer, how) in
        [("thread", "dynamic"), ("thread", "static"), ("address", "static"), ("address", "dynamic")]
    {
        let built = scratch.path().join(format!("{sanitizer}_{how}"));
        let mut compiler = Command::new("cc");
        compiler.arg(format!("-fsanitize={sanitizer}")).arg(&source).arg("-o").arg(&built);
        if how == "static" {
            let library = if sanitizer == "thread" { "tsan" } else { "asan" };
            compiler.arg(format!("-static-lib{library}"));
        }
        assert!(compiler.status().expect("a compiler").success(), "{sanitizer}, {how}");
        let mut quota = machine.quota().memory(CAP);
        if (sanitizer, how) == ("address", "dynamic") {
            quota = quota.with("ASAN_OPTIONS", "verify_asan_link_order=0");
        }
        // These runtimes refuse some layouts of memory.
        let built = built.to_str().expect("text");
        let outcome = quota.run_command("setarch", &["-R", built]).success();
        promise.asserts(|| {
            assert_eq!(
                (outcome.value("ran"), outcome.stderr.as_str()),
                (1, ""),
                "{sanitizer}, {how}: {outcome}"
            );
        });
    }
}

/// The loader's state is amid a change when the child begins, and the thread that changes it is not there.
#[test]
fn a_fork_while_another_thread_opens_the_driver_does_not_hang() {
    for machine in [Machine::new("H100"), Machine::with_driver("bound")] {
        let outcome = machine.quota().memory(CAP).run("fork_loading", &["150"]).success();
        assert_eq!(outcome.value("stuck"), 0, "{outcome}");
    }
}
