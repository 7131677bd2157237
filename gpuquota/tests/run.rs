//! `gpuquota run`: the command's status, signals, streams and environment are the command's.

mod common;

use common::{Scratch, gpuquota, harmless_library, join, output, stderr, stdout};
use gpuquota_region::Region;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn the_exit_status_is_the_commands() {
    for status in [0, 1, 7, 255] {
        let ended = output(gpuquota().args(["run", "--", "sh", "-c", &format!("exit {status}")]));
        assert_eq!(ended.status.code(), Some(status));
    }
}

#[test]
fn a_death_by_signal_is_repeated() {
    for signal in [9, 15, 11, 6, 1, 34] {
        let script = format!("kill -{signal} $$");
        let ended = output(gpuquota().args(["run", "bash", "-c", &script]));
        let told = ended.status.signal().or(ended.status.code().map(|code| code - 128));
        assert_eq!(told, Some(signal));
        assert_eq!(ended.status.signal().is_some(), signal < 34, "{signal}");
        assert!(!ended.status.core_dumped());
    }
}

/// The same command where no signal is ignored: a shell's background job, in which these tests may run, ignores SIGINT.
fn with_all_signals(command: &Command) -> Command {
    let mut all = Command::new("env");
    all.arg("--default-signal").arg(command.get_program()).args(command.get_args());
    all.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    all
}

#[test]
fn signals_sent_to_the_launcher_reach_the_command() {
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::USR1, "USR1")] {
        let script =
            format!("trap 'echo got {name}; exit 42' {name}; echo ready; while :; do sleep 0.01; done");
        let mut launcher = with_all_signals(gpuquota().args(["run", "--", "sh", "-c", &script]))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("gpuquota starts");
        let mut lines = BufReader::new(launcher.stdout.take().expect("a pipe")).lines();
        assert_eq!(lines.next().expect("a line").expect("text"), "ready");
        kill_process(Pid::from_child(&launcher), signal).expect("a signal");
        assert_eq!(launcher.wait().expect("an end").code(), Some(42), "{name}");
        assert_eq!(lines.next().expect("a line").expect("text"), format!("got {name}"));
    }
}

#[test]
fn what_was_ignored_from_the_start_stays_ignored() {
    let script = "trap '' HUP; exec \"$0\" run -- sh -c 'kill -HUP $$; kill -HUP $PPID; echo alive'";
    let mut nohup = Command::new("sh");
    nohup.args(["-c", script, env!("CARGO_BIN_EXE_gpuquota")]);
    nohup.env("GPUQUOTA_LIBRARY", harmless_library());
    let ended = output(&mut nohup);
    assert_eq!((ended.status.code(), stdout(&ended).as_str()), (Some(0), "alive\n"));
}

#[test]
fn the_three_streams_are_the_commands() {
    let mut launcher = gpuquota()
        .args(["run", "--", "sh", "-c", "cat; echo error >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gpuquota starts");
    launcher.stdin.take().expect("a pipe").write_all(b"through").expect("a write");
    let ended = launcher.wait_with_output().expect("an end");
    assert_eq!(stdout(&ended), "through");
    assert!(stderr(&ended).ends_with("error\n"));
}

#[test]
fn a_missing_driver_is_one_line_and_no_obstacle() {
    let ended = output(gpuquota().args(["run", "--", "echo", "started"]));
    let said = stderr(&ended);
    // Where there is a driver, nothing is said at all.
    assert!(said.is_empty() || said.lines().count() == 1 && said.contains("libcuda.so.1"), "{said}");
    assert_eq!(stdout(&ended), "started\n");
}

#[test]
fn the_environment_says_what_was_asked_and_loses_nothing() {
    let home = Scratch::new();
    let region = home.join("a.cache");
    let ended = output(
        gpuquota()
            .env("LD_PRELOAD", "libm.so.6")
            .env("KEPT", "yes")
            .args([
                "run",
                "--memory",
                "2GiB",
                "--memory",
                "0=1GiB",
                "--cores=30%",
                "--mode=observe",
                "--device=1",
            ])
            .args(["--device", "GPU-8f3a", "--region"])
            .arg(&region)
            .args(["--", "env"]),
    );
    let said = stdout(&ended);
    let region = format!("GPUQUOTA_REGION={}", region.display());
    for line in [
        "GPUQUOTA_MEMORY=2GiB,0=1GiB",
        "GPUQUOTA_CORES=30%",
        "GPUQUOTA_MODE=observe",
        "CUDA_VISIBLE_DEVICES=1,GPU-8f3a",
        "KEPT=yes",
        &region,
    ] {
        assert!(said.lines().any(|known| known == line), "{line} is not in\n{said}");
    }
    let preload = said.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).expect("a preload");
    assert!(preload.starts_with("libm.so.6:/") && preload.ends_with("libc.so.6"), "{preload}");
}

#[test]
fn what_was_not_asked_is_left_as_it_was() {
    let ended = output(gpuquota().env("GPUQUOTA_MEMORY", "1GiB").args(["run", "env"]));
    let said = stdout(&ended);
    assert!(said.lines().any(|line| line == "GPUQUOTA_MEMORY=1GiB"));
    assert!(!said.contains("GPUQUOTA_CORES") && !said.contains("GPUQUOTA_MODE"));
}

#[test]
fn a_value_that_cannot_be_understood_is_named_and_nothing_is_started() {
    let wrong = [
        (["--memory", "2GB"], "KB, MB, GB and TB"),
        (["--memory", "2XiB"], "unit is not known"),
        (["--memory", "0"], "zero"),
        (["--memory", ""], "nothing is written"),
        (["--memory", "65536TiB"], "out of range"),
        (["--memory", "x=2GiB"], "device index or a UUID"),
        (["--cores", "101"], "100 percent"),
        (["--cores", "0.5"], "whole numbers"),
        (["--mode", "sometimes"], "sometimes"),
    ];
    for (option, reason) in wrong {
        let ended = output(gpuquota().arg("run").args(option).args(["--", "echo", "started"]));
        let said = stderr(&ended);
        assert_eq!((ended.status.code(), stdout(&ended).as_str()), (Some(2), ""), "{option:?}");
        assert!(said.contains(option[0]) && said.contains(option[1]) && said.contains(reason), "{said}");
    }
}

#[test]
fn no_command_is_an_error_and_an_impossible_one_ends_as_in_a_shell() {
    assert_eq!(output(gpuquota().arg("run")).status.code(), Some(2));
    assert_eq!(output(gpuquota().args(["run", "--memory", "2GiB", "--"])).status.code(), Some(2));
    let missing = output(gpuquota().args(["run", "no-such-command"]));
    assert_eq!(missing.status.code(), Some(127));
    assert!(stderr(&missing).contains("cannot start \"no-such-command\""));
    assert_eq!(output(gpuquota().args(["run", "/tmp"])).status.code(), Some(126));
}

#[test]
fn a_library_that_is_not_there_is_said_with_the_places() {
    let told = output(gpuquota().env("GPUQUOTA_LIBRARY", "/no/such.so").args(["run", "true"]));
    assert_eq!(told.status.code(), Some(2));
    assert!(stderr(&told).contains("GPUQUOTA_LIBRARY=\"/no/such.so\" is no file"));

    let home = Scratch::new();
    let alone = home.join("gpuquota");
    // Not by this process: a child of another test that is just being started would have it open for writing.
    output(Command::new("cp").arg(env!("CARGO_BIN_EXE_gpuquota")).arg(&alone));
    let lost = output(Command::new(&alone).env_remove("GPUQUOTA_LIBRARY").args(["run", "true"]));
    if lost.status.code() == Some(0) {
        return eprintln!("skipped: the library is installed on this machine");
    }
    assert_eq!(lost.status.code(), Some(2));
    let beside = home.join("libgpuquota.so");
    assert!(stderr(&lost).contains(&*beside.to_string_lossy()), "{}", stderr(&lost));
}

#[test]
fn a_fresh_region_lives_as_long_as_the_command_and_a_given_one_stays() {
    let script = "test -s \"$GPUQUOTA_REGION\" && echo \"$GPUQUOTA_REGION\"";
    let fresh = output(gpuquota().args(["run", "--", "sh", "-c", script]));
    let path = stdout(&fresh);
    assert!(path.starts_with('/') && path.ends_with(".cache\n"), "{path}");
    assert!(!std::fs::exists(path.trim_end()).expect("an answer"));

    let home = Scratch::new();
    let given = home.join("given.cache");
    let ended = output(gpuquota().arg("run").arg("--region").arg(&given).args(["--", "sh", "-c", script]));
    assert_eq!(stdout(&ended), format!("{}\n", given.display()));
    assert!(given.exists());
}

#[test]
fn a_relative_region_is_the_same_file_wherever_the_command_goes() {
    let home = Scratch::new();
    let mut command = gpuquota();
    command.current_dir(home.path()).args(["run", "--region", "r.cache", "--", "sh", "-c"]);
    let ended = output(command.arg("cd / && test -s \"$GPUQUOTA_REGION\" && echo there"));
    assert_eq!(stdout(&ended), "there\n");
}

#[test]
fn a_file_that_is_no_region_is_refused_and_left_as_it_was() {
    let home = Scratch::new();
    let file = home.join("notes.txt");
    std::fs::write(&file, "dear diary").expect("a file");
    for path in [&file, &home.join("no/such/directory.cache"), &home.path().to_path_buf()] {
        let ended = output(gpuquota().arg("run").arg("--region").arg(path).args(["--", "echo", "started"]));
        assert_eq!((ended.status.code(), stdout(&ended).as_str()), (Some(2), ""));
        assert!(stderr(&ended).contains(&*path.to_string_lossy()));
    }
    assert_eq!(std::fs::read(&file).expect("the file"), b"dear diary");
}

#[test]
fn a_fresh_region_stays_while_a_process_lives_on_it() {
    let mut launcher = gpuquota()
        .args(["run", "--", "sh", "-c", "echo $GPUQUOTA_REGION; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("gpuquota starts");
    let mut lines = BufReader::new(launcher.stdout.take().expect("a pipe")).lines();
    let path = PathBuf::from(lines.next().expect("a line").expect("text"));
    let region = Region::open(&common::c_path(&path), 1).expect("the region");
    join(&region, &path);
    drop(launcher.stdin.take());
    launcher.wait().expect("an end");
    assert!(path.exists());
    std::fs::remove_file(path).expect("a file");
}
