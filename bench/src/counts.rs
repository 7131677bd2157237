//! The cost of a call in instructions, which are exact. A program makes some calls and then more of them under callgrind; the
//! difference, divided by the calls, is the instructions of the library itself. The bench does not count the functions of the
//! driver and of libc that the library calls; a pair of cuMemAlloc and cuMemFree calls the driver once (cuCtxGetCurrent).
//!
//! `make counts` prints the counts beside their goals, and fails where one has grown by more than 3% over `bench/counts.toml`;
//! `--keep` writes that file. For launches under a share the clock moves by a fixed step with each look at it
//! (`tests/programs/counted_clock.c`): decisions by time would differ from run to run otherwise.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use gpuquota_promises::{Machine, Program, Scratch, Setting, artifact, program};

/// A count may grow by so many percent without a failure.
const SLACK: f64 = 3.0;

/// One count.
struct Count {
    /// Its name in `counts.toml`.
    key: &'static str,
    /// Its name for people.
    name: &'static str,
    work: &'static str,
    /// Calls in the shorter run and in the longer one.
    calls: [u64; 2],
    live: u64,
    /// Devices of the machine.
    devices: u32,
    /// Percent of GPU time, where there is a share.
    cores: Option<u32>,
    /// The most instructions of the library in a call.
    goal: f64,
    /// The calls that the program makes for each one of `calls`.
    times: u64,
}

const PAIR: Count = Count {
    key: "pair",
    name: "cuMemAlloc + cuMemFree",
    work: "pair",
    calls: [1_000, 3_000],
    live: 0,
    devices: 1,
    cores: None,
    goal: 450.0,
    times: 1,
};

const COUNTS: [Count; 9] = [
    PAIR,
    Count { key: "pair_10k", name: "the same, 10,000 live", live: 10_000, ..PAIR },
    Count { key: "pair_8_devices", name: "the same, one of 8 devices", devices: 8, ..PAIR },
    Count { key: "any_10k", name: "any of 10,000 live", work: "any", live: 10_000, ..PAIR },
    Count { key: "threads", name: "the same, 8 threads in turn", work: "threads", times: 8, ..PAIR },
    Count { key: "info", name: "cuMemGetInfo", work: "info", goal: 150.0, ..PAIR },
    Count { key: "launch", name: "cuLaunchKernel, no share", work: "launch", goal: 70.0, ..PAIR },
    Count {
        key: "launch_99",
        name: "cuLaunchKernel, 99% share",
        work: "launch",
        cores: Some(99),
        goal: 500.0,
        ..PAIR
    },
    Count {
        key: "teardown",
        name: "a context's end, by allocation",
        work: "teardown",
        calls: [20_000, 40_000],
        goal: 1_500.0,
        ..PAIR
    },
];

fn main() -> ExitCode {
    let keep = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--keep") => true,
        Some(other) => {
            eprintln!("gpuquota-counts: unknown option {other}; usage: gpuquota-counts [--keep]");
            return ExitCode::from(2);
        }
    };
    let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.toml");
    let before = std::fs::read_to_string(&baseline).unwrap_or_default();
    let kept =
        |key: &str| before.lines().filter_map(|line| line.split_once(" = ")).find(|(found, _)| *found == key);
    let kept = |key: &str| kept(key).and_then(|(_, value)| value.parse::<f64>().ok());
    let mut written =
        String::from("# Instructions of the library in a call; `make counts-keep` writes this file.\n");
    let mut grown = Vec::new();
    println!("{:<34} {:>8} {:>8} {:>8}  {:>8}", "instructions of the library", "a call", "goal", "", "kept");
    for count in &COUNTS {
        let added = counted(count);
        let verdict = if added <= count.goal { "reached" } else { "missed" };
        let shown = kept(count.key).map_or_else(|| "-".into(), |kept| format!("{kept:.0}"));
        println!("{:<34} {added:>8.0} {:>8.0} {verdict:>8}  {shown:>8}", count.name, count.goal);
        writeln!(written, "{} = {added:.0}", count.key).expect("text");
        // Growth by a few instructions is no failure, because it is more than 3% of a small count.
        if kept(count.key).is_none_or(|kept| added > kept * (1.0 + SLACK / 100.0) + 3.0) {
            grown.push(count.key);
        }
    }
    if keep {
        if let Err(why) = std::fs::write(&baseline, written) {
            eprintln!("gpuquota-counts: {}: {why}", baseline.display());
            return ExitCode::FAILURE;
        }
        return ExitCode::SUCCESS;
    }
    if grown.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "gpuquota-counts: more than {SLACK}% above {}, or not in it: {}. If that is meant: make counts-keep",
        baseline.display(),
        grown.join(", ")
    );
    ExitCode::FAILURE
}

/// Instructions of the library in a call.
fn counted(count: &Count) -> f64 {
    let machine = Machine::new(&format!("{}xH100", count.devices));
    let [fewer, more] = count.calls.map(|calls| {
        // Each run has a region of its own, which is there before: a process that makes one looks for a lost one first, and
        // how long that takes depends on what else runs.
        let quota = machine.quota().memory("40GiB");
        make_region(&quota);
        let quota = match count.cores {
            Some(percent) => quota.cores(percent).preloading(program("counted_clock.so"), false),
            None => quota,
        };
        instructions(&quota, count, calls)
    });
    (more as f64 - fewer as f64) / ((count.calls[1] - count.calls[0]) * count.times) as f64
}

/// Makes the region without a process in it.
fn make_region(setting: &Setting<'_>) {
    let mut run = Command::new(artifact("gpuquota"));
    run.args(["run", "--region"]).arg(setting.region()).args(["--", "true"]);
    Program::start(run).finish().success();
}

/// Instructions of the library in a whole run.
fn instructions(setting: &Setting<'_>, count: &Count, calls: u64) -> u64 {
    let scratch = Scratch::new();
    let out = scratch.path().join("out");
    let written = format!("--callgrind-out-file={}", out.display());
    let program = program("counts");
    let (calls, live) = (calls.to_string(), count.live.to_string());
    let arguments =
        ["--quiet", "--tool=callgrind", &written, program.to_str().expect("text"), count.work, &calls, &live];
    setting.run_command("valgrind", &arguments).success();
    let own = own(&std::fs::read_to_string(&out).expect("callgrind writes its counts"));
    assert!(own > 0, "the library was not there");
    own
}

/// The instructions of the library itself, from a file of callgrind's.
fn own(file: &str) -> u64 {
    let (mut objects, mut is_own, mut inclusive, mut sum) = (BTreeMap::new(), false, false, 0);
    let mut object = |word: &str| {
        // `(3) /path` gives an object its number, and `(3)` refers to it.
        let (number, name) = word.split_once(')').expect("an object has a number");
        let own = name.trim().rsplit('/').next().is_some_and(|file| file == "libgpuquota.so");
        if name.is_empty() {
            objects[number]
        } else {
            objects.insert(number.to_owned(), own);
            own
        }
    };
    for line in file.lines() {
        if let Some(word) = line.strip_prefix("ob=") {
            is_own = object(word);
        } else if let Some(word) = line.strip_prefix("cob=") {
            object(word);
        } else if line.starts_with("calls=") {
            // The next line has the cost of the called function.
            inclusive = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            if is_own && !inclusive {
                sum += line.rsplit(' ').next().and_then(|cost| cost.parse::<u64>().ok()).unwrap_or(0);
            }
            inclusive = false;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_library_s_own_instructions_count() {
        let file = "ob=(1) /lib/libcuda.so\nfn=(1) f\n7 100\ncob=(2) /x/libgpuquota.so\ncfn=(2) g\ncalls=1 0\n7 50\n\
                    ob=(2)\nfn=(2)\n0 20\n+3 22\ncob=(1)\ncalls=1 0\n* 900\n* 8\nob=(1)\n5 5\n";
        assert_eq!(super::own(file), 50);
    }
}
