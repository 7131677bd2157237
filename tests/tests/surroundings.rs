//! Surroundings that a process did not choose: limits of its shell, sandboxes, more processes than there are slots. The quota
//! works there, or cuInit fails with one true line; never a signal, a hang, or a GPU without a cap.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use gpuquota_promises::{
    CpuLimit, GIB, Host, Judge, Machine, OUT_OF_MEMORY, Outcome, Program, Promise, Setting, Verdict,
    artifact, program, trials, twice, watch,
};

const CAP: i64 = 2 * GIB;

/// pidfd_open came with Linux 5.3.
const ASK_FOR_A_PIDFD: &str = "import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(434, 1, 0)
print(f'errno={ctypes.get_errno()}')";

const EPERM: i32 = 1;
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;

fn main() -> ExitCode {
    trials(&[
        ("a_limit_on_file_sizes_is_a_failed_quota_and_no_signal", file_sizes),
        ("a_limit_on_address_space_leaves_the_cap_or_no_gpu", address_space),
        ("a_process_without_descriptors_is_told_so", no_descriptors),
        ("run_needs_no_handles_of_processes", no_pidfd),
        ("without_locks_of_file_descriptions_there_is_no_gpu_and_a_line_says_why", no_locks),
        ("a_share_holds_where_a_sandbox_refuses_timed_waits", no_timed_waits),
        ("a_program_under_a_cpu_limit_has_its_share", cpu_limit),
        ("on_linux_4_14_the_quota_works", old_kernel),
        ("more_processes_than_slots_are_refused_quickly_and_with_the_reason", too_many_processes),
    ])
}

fn sandbox_missing() -> Verdict {
    Verdict::Skipped("this machine lets nobody here make a sandbox of system calls".into())
}

/// A program of the quota, started by a shell after `script`.
fn after(quota: &Setting<'_>, script: &str, name: &str) -> Outcome {
    let inner = quota.command(program(name), &[]);
    let mut command = Command::new("bash");
    command.args(["-c", &format!("{script}; exec \"$@\""), "bash"]);
    command.arg(inner.get_program()).args(inner.get_args());
    Program::start(command).finish()
}

/// A program of the quota in a sandbox (`tests/programs/denied.c`); `None` where none can be made.
fn denied(what: &str, error: i32, inner: Command) -> Option<Outcome> {
    let mut command = Command::new(program("denied"));
    command.args([what, &error.to_string()]).arg(inner.get_program()).args(inner.get_args());
    let outcome = Program::start(command).finish();
    (outcome.status.code() != Some(77)).then_some(outcome)
}

#[track_caller]
fn fails_with_one_line(outcome: &Outcome, says: &str) {
    assert!(outcome.status.code().is_some_and(|code| code != 0), "{outcome}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    assert!(outcome.stderr.contains(says), "{outcome}");
}

/// `ulimit -f`: a larger file would be SIGXFSZ.
fn file_sizes() -> Verdict {
    let promise = &Promise::to(&["runtime#117819"]);
    let machine = Machine::with_driver("bound");
    let quota = machine.quota().memory(CAP);
    let limit = "ulimit -f 1024";
    // The driver itself needs no larger file.
    after(&machine.bare(), limit, "door_linked").success();
    let refused = after(&quota, limit, "door_linked");
    fails_with_one_line(&refused, "ulimit -f");
    promise.asserts(|| assert!(refused.status.code().is_some(), "a signal ended it: {refused}"));
    // The region is there already.
    quota.run("door_linked", &[]).success();
    assert_eq!(after(&quota, limit, "door_linked").success().value("total"), CAP);
    let run = format!("{limit}; exec {} run --memory 1GiB -- true", artifact("gpuquota").display());
    let outcome = machine.bare().run_command("bash", &["-c", &run]);
    assert!(outcome.status.code().is_some_and(|code| code != 0), "{outcome}");
    assert!(outcome.stderr.contains("ulimit -f"), "{outcome}");
    Verdict::Kept
}

/// `ulimit -v`, in steps, wherever the driver alone works: a cap, or one line.
fn address_space() -> Verdict {
    let machine = Machine::with_driver("bound");
    let (mut kept, mut told) = (0, 0);
    for kib in (4000..=12_000).step_by(500) {
        let limit = format!("ulimit -v {kib}");
        if !after(&machine.bare(), &limit, "door_linked").status.success() {
            continue;
        }
        let outcome = after(&machine.quota().memory(CAP), &limit, "door_linked");
        if outcome.status.success() {
            assert_eq!(outcome.value("total"), CAP, "{kib} KiB: {outcome}");
            kept += 1;
        } else {
            fails_with_one_line(&outcome, "ulimit -v");
            told += 1;
        }
    }
    assert!(kept != 0 && told != 0, "{kept} kept, {told} told");
    Verdict::Kept
}

fn no_descriptors() -> Verdict {
    let machine = Machine::with_driver("bound");
    let quota = machine.quota().memory(CAP);
    let inner = quota.command(program("no_descriptors"), &[]);
    let outcome = Program::start(inner).finish();
    assert_eq!(outcome.value("init"), 100, "{outcome}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    assert!(outcome.stderr.contains("ulimit -n"), "{outcome}");
    assert!(!outcome.stderr.contains("cannot be read"), "{outcome}");
    Verdict::Kept
}

/// Docker's older profiles, kernels before 5.3.
fn no_pidfd() -> Verdict {
    let promise = &Promise::to(&["for-linux#1142"]);
    let machine = Machine::new("H100");
    for error in [EPERM, ENOSYS] {
        let run = |script: &str| {
            let arguments = ["run", "--memory", "1GiB", "--", "sh", "-c", script];
            denied("pidfd", error, machine.bare().command(artifact("gpuquota"), &arguments))
        };
        let Some(outcome) = run("sleep 0.2; echo done; exit 5") else { return sandbox_missing() };
        let told = (outcome.status.code(), outcome.out.as_str());
        promise.asserts(|| assert_eq!(told, (Some(5), "done\n"), "{outcome}"));
        // A signal reaches the command.
        let Some(outcome) = run("trap 'echo got; exit 3' TERM; kill -TERM $PPID; sleep 5 & wait") else {
            return sandbox_missing();
        };
        assert_eq!((outcome.status.code(), outcome.out.as_str()), (Some(3), "got\n"), "{outcome}");
    }
    Verdict::Kept
}

fn no_locks() -> Verdict {
    let machine = Machine::new("H100");
    for error in [EINVAL, EPERM] {
        let quota = machine.quota().memory(CAP);
        let Some(outcome) = denied("ofd", error, quota.command(program("door_linked"), &[])) else {
            return sandbox_missing();
        };
        fails_with_one_line(&outcome, "F_OFD_SETLK");
        quota.run("views", &[]).success();
        let Some(outcome) = denied("ofd", error, quota.command(program("door_linked"), &[])) else {
            return sandbox_missing();
        };
        assert!(!outcome.status.success() && outcome.stderr.contains("F_OFD_SETLK"), "{outcome}");
    }
    Verdict::Kept
}

/// A wait that the kernel refuses must neither spin nor let launches through.
fn no_timed_waits() -> Verdict {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP).cores(30);
    let command = quota.command(program("launch_loop"), &["busy_5ms", "2"]);
    let Some(outcome) = denied("sleep", EPERM, command) else { return sandbox_missing() };
    outcome.success();
    let busy = machine.truth().device("busy_ns") as f64 / 2e9;
    assert!(busy < 0.4, "{busy}");
    Verdict::Kept
}

/// A CPU limit stops a program for half of the time. That is no time in which it does not want its share.
fn cpu_limit() -> Verdict {
    if CpuLimit::half().is_none() {
        return Verdict::Skipped("this machine lets nobody here set a CPU limit".into());
    }
    let cases = [("work_1ms", "20"), ("work_1ms", "1")];
    let all = Judge::ALONE.into_iter().flat_map(|judge| cases.map(|case| (judge, case)));
    for (judge, (kernel, ahead)) in all {
        let attempt = || {
            let machine = judge.machine(Host::Usual);
            let limit = CpuLimit::half().expect("there was one");
            let quota = machine.quota().cores(40);
            let command = quota.command(program("launch_loop"), &[kernel, "told", "plain", ahead]);
            let seen = watch(&machine, 0, vec![Program::start(limit.on(&command))], 4);
            let kept = (seen.busy - 40.0).abs() <= 1.5;
            (seen, kept)
        };
        twice(attempt).unwrap_or_else(|seen| panic!("{judge:?}, {kernel}, {ahead} ahead: {seen}"));
    }
    Verdict::Kept
}

/// Of the calls and options that came after Linux 4.14 none is there: the cap and the share hold, the dead are reaped, a file that
/// is cut is restored, and the tools work.
fn old_kernel() -> Verdict {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP).cores(30);
    let old = |inner: &Command| {
        let mut command = Command::new(program("denied"));
        command.args(["kernel-4.14", &ENOSYS.to_string()]).arg(inner.get_program()).args(inner.get_args());
        Program::start(command)
    };
    let hold = || old(&quota.command(program("hold"), &[]));
    let sandboxed = old(Command::new("python3").args(["-c", ASK_FOR_A_PIDFD])).finish();
    if sandboxed.status.code() == Some(77) {
        return sandbox_missing();
    }
    assert_eq!(sandboxed.success().value("errno"), i64::from(ENOSYS), "the sandbox does not do what it says");

    let (mut first, mut second) = (hold(), hold());
    assert_eq!(first.ask("info", "total"), CAP);
    assert_eq!(first.ask(&format!("alloc {}", CAP / 2), "rc"), 0);
    let more = format!("alloc {}", CAP / 2);
    assert_eq!(second.ask(&more, "rc"), OUT_OF_MEMORY);
    first.kill();
    assert_eq!(second.ask(&more, "rc"), 0, "what the dead one held is not given back");
    let file = std::fs::OpenOptions::new().write(true).open(quota.region()).expect("the region");
    file.set_len(0).expect("the region");
    assert_eq!(second.ask(&more, "rc"), OUT_OF_MEMORY);
    assert_eq!(second.ask("info", "total"), CAP);

    let tool = |arguments: &[&str]| {
        let mut command = Command::new(artifact("gpuquota"));
        command.args(arguments);
        old(&command).finish().success()
    };
    let region = quota.region();
    let region = region.to_str().expect("text");
    tool(&["limit", region, "--memory", "1GiB"]);
    assert_eq!(second.ask("info", "total"), GIB);
    let seen: serde_json::Value =
        serde_json::from_str(&tool(&["inspect", region, "--json"]).out).expect("JSON");
    assert_eq!(seen["devices"][0]["memory_limit"], GIB, "{seen:#}");
    second.finish().success();

    let linked = program("door_linked");
    let inner = ["run", "--memory", "1GiB", "--", linked.to_str().expect("text")];
    let outcome = old(&machine.bare().command(artifact("gpuquota"), &inner)).finish().success();
    assert_eq!(outcome.value("total"), GIB, "{outcome}");

    old(&quota.command(program("launch_loop"), &["busy_5ms", "2"])).finish().success();
    let busy = machine.truth().device("busy_ns") as f64 / 2e9;
    assert!((0.1..0.4).contains(&busy), "{busy}");
    Verdict::Kept
}

/// 1,024 have a slot; the others are refused at once, and told why.
fn too_many_processes() -> Verdict {
    const ALL: usize = 1100;
    const SLOTS: usize = 1024;
    let machine = Machine::with_driver("bound");
    let quota = machine.quota().memory(GIB * 64);
    let begun = Instant::now();
    let mut all: Vec<_> = (0..ALL).map(|_| quota.start("hold", &[])).collect();
    let mut refused = 0;
    all.iter_mut().for_each(|one| one.tell("alloc 1048576"));
    for one in &mut all {
        refused += usize::from(one.wait_for("rc") != 0);
    }
    let took = begun.elapsed();
    assert_eq!(refused, ALL - SLOTS);
    let by = &quota.inspect()["devices"][0]["denied_by"];
    assert_eq!(by["uncounted"], ALL - SLOTS, "{by}");
    let told = all.into_iter().map(|one| one.finish().stderr);
    assert_eq!(told.filter(|stderr| stderr.contains("1024 living processes")).count(), ALL - SLOTS);
    assert!(took < Duration::from_secs(30), "{took:?}");
    Verdict::Kept
}
