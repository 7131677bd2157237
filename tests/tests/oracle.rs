//! The simulated driver against real ones, as far as those answer without a GPU: the names of errors, and the answers to
//! calls with nulls before `cuInit`. `make surface` compares the functions and their versions.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use gpuquota_promises::{Machine, Verdict, artifact, exports, fetched, program, trials};

fn main() -> ExitCode {
    trials(&[
        ("errors_and_calls_of_nulls_are_answered_as_by_driver_535", || agrees("bookworm")),
        ("errors_and_calls_of_nulls_are_answered_as_by_driver_550", || agrees("trixie")),
        ("errors_and_calls_of_nulls_are_answered_as_by_driver_555", || agrees("experimental")),
    ])
}

/// Answers in which all three differ from driver 580. `cuda-shim/machines/` has a recording of driver 580, and the simulated
/// driver follows it.
const CHANGED_SINCE: [&str; 5] = [
    "cuCtxGetDevice",
    "cuLaunchHostFunc",
    "cuLaunchHostFunc_ptsz",
    "cuStreamAddCallback",
    "cuStreamAddCallback_ptsz",
];

/// Answers in which the older two differ from driver 555.
const CHANGED: [&str; 8] = [
    "cuFuncGetAttribute",
    "cuGraphMemcpyNodeSetParams",
    "cuGraphMemsetNodeSetParams",
    "cuKernelGetAttribute",
    "cuKernelSetAttribute",
    "cuKernelSetCacheConfig",
    "cuStreamEndCapture",
    "cuStreamEndCapture_ptsz",
];

type Answers = BTreeMap<String, String>;

/// A driver's names of errors, and its answers to nulls.
fn answers(mut command: Command, library: &Path, functions: &str) -> Answers {
    let mut child =
        command.arg(library).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was built");
    child.stdin.take().expect("a pipe").write_all(functions.as_bytes()).expect("it listens");
    let output = child.wait_with_output().expect("it is a child of ours");
    assert!(output.status.success(), "{}: {}", library.display(), output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

fn agrees(suite: &str) -> Verdict {
    let real = match fetched("debian-driver", suite) {
        Ok(folder) => folder.join("libcuda.so.1"),
        Err(why) => return Verdict::Skipped(why),
    };
    let simulated = simulated_library();
    let ours = exports(&simulated);
    let both = exports(&real).into_iter().filter(|name| ours.contains(name) && name != "cuInit");
    let functions: String = both.map(|name| name + "\n").collect();
    let theirs = answers(Command::new(program("nulls")), &real, &functions);
    let ours = answers(Machine::new("H100").bare().command(program("nulls"), &[]), &simulated, &functions);
    assert!(theirs.len() > 600, "{suite}: no driver: {theirs:?}");
    let differ = theirs.iter().filter(|(key, answer)| {
        let key = key.as_str();
        let changed = CHANGED_SINCE.contains(&key) || suite != "experimental" && CHANGED.contains(&key);
        // Where a driver crashes, an error is better.
        ours.get(key) != Some(answer) && !answer.starts_with('-') && !changed
    });
    let differ: Vec<_> = differ.map(|(key, answer)| (key, answer, ours.get(key))).collect();
    assert!(differ.is_empty(), "{} differ: {differ:#?}", differ.len());
    Verdict::Kept
}

/// The simulated driver, whose folder `cuda-sim` knows.
fn simulated_library() -> PathBuf {
    let answer = Command::new(artifact("cuda-sim")).arg("libdir").output().expect("it was built");
    Path::new(String::from_utf8_lossy(&answer.stdout).trim()).join("libcuda.so.1")
}
