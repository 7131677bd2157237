//! The library reports a value that it cannot parse, with its variable, and the policy holds: by default no GPU.

use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use gpuquota_promises::{GIB, Machine, Outcome, Program, Promise, Scratch, artifact};

/// The program got no GPU, and one line names the wrong variable and its value.
#[track_caller]
fn refused(outcome: &Outcome, name: &str, value: &str) {
    assert!(!outcome.status.success(), "{name}={value} left the program with a GPU: {outcome}");
    named(outcome, name, value);
}

#[track_caller]
fn named(outcome: &Outcome, name: &str, value: &str) {
    let line = outcome.stderr.lines().find(|line| line.contains(name));
    let line = line.unwrap_or_else(|| panic!("nothing on stderr names {name}={value}: {outcome}"));
    assert!(line.contains(value), "{line}: does not say {value}");
}

#[test]
fn a_limit_that_cannot_be_parsed_means_no_gpu() {
    let machine = Machine::new("H100");
    for (name, value) in [
        ("GPUQUOTA_MEMORY", "1.5x"),
        ("GPUQUOTA_MEMORY", ""),
        ("GPUQUOTA_MEMORY", "0"),
        ("GPUQUOTA_MEMORY", "-1GiB"),
        ("GPUQUOTA_MEMORY", "99999999999999999999"),
        ("GPUQUOTA_MEMORY", "010GiB"),
        ("GPUQUOTA_MEMORY", "2GB"),
        ("GPUQUOTA_CORES", "101"),
        ("GPUQUOTA_CORES", "0"),
        ("GPUQUOTA_CORES", "-5"),
        ("GPUQUOTA_CORES", "many"),
        ("GPUQUOTA_CORES_REQUEST", "0"),
        ("GPUQUOTA_CORES_REQUEST", "101"),
        ("GPUQUOTA_MODE", "enforced"),
        ("CUDA_DEVICE_MEMORY_LIMIT", "1.5x"),
        ("CUDA_DEVICE_MEMORY_LIMIT", "010g"),
        ("CUDA_DEVICE_MEMORY_LIMIT", "-1"),
        ("CUDA_DEVICE_MEMORY_LIMIT", "99999999999999999999g"),
        ("CUDA_DEVICE_SM_LIMIT", "101"),
    ] {
        refused(&machine.quota().with(name, value).run("door_linked", &[]), name, value);
    }
    let above = machine.quota().cores(30).with("GPUQUOTA_CORES_REQUEST", "40%");
    refused(&above.run("door_linked", &[]), "GPUQUOTA_CORES_REQUEST", "40%");
    assert_eq!(machine.truth().device("requested_peak_bytes"), 0);
}

#[test]
fn under_the_open_policy_a_bad_limit_counts_as_absent_and_is_reported() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("1.5x").with("GPUQUOTA_ON_ERROR", "open");
    let outcome = quota.run("door_linked", &[]).success();
    named(&outcome, "GPUQUOTA_MEMORY", "1.5x");
    assert!(outcome.value("total") > 2 * GIB);
}

#[test]
fn hami_variables_keep_hami_s_meaning_of_zero_and_empty_loudly() {
    let machine = Machine::new("H100");
    for value in ["0", ""] {
        let outcome =
            machine.quota().with("CUDA_DEVICE_MEMORY_LIMIT", value).run("door_linked", &[]).success();
        named(&outcome, "CUDA_DEVICE_MEMORY_LIMIT", value);
        assert!(outcome.value("total") > 2 * GIB, "{outcome}");
    }
}

#[test]
fn a_bad_limit_is_reported_once_per_container_and_not_by_every_process() {
    let promise = &Promise::to(&["HAMi-core#245"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().with("CUDA_DEVICE_MEMORY_LIMIT", "0");
    let mut said = 0;
    for _ in 0..3 {
        said += quota.run("door_linked", &[]).success().stderr.lines().count();
    }
    promise.asserts(|| assert_eq!(said, 1));
}

/// The line says what is so.
#[test]
fn a_region_whose_path_is_odd_is_a_region_or_refused_with_the_reason() {
    let machine = Machine::new("H100");
    let scratch = Scratch::new();
    let here = |name: &str| scratch.path().join(name);
    std::os::unix::fs::symlink(here("nowhere"), here("dangling")).expect("a link");
    std::os::unix::fs::symlink(here("loop"), here("loop")).expect("a link");
    std::fs::create_dir(here("folder")).expect("a folder");
    assert!(Command::new("mkfifo").arg(here("pipe")).status().is_ok_and(|status| status.success()));
    for (path, reason) in [
        (here("dangling"), "leads nowhere"),
        (here("loop"), "leads nowhere"),
        (here("folder"), "is a directory"),
        (here("pipe"), "is no region"),
        (here("none/a"), "does not exist"),
        ("/dev/null".into(), "is no region"),
        ("/proc/self/mem".into(), "cannot be opened"),
        ("a.cache".into(), "a relative path"),
        (format!("/{}", "./".repeat(600)).into(), "longer than 1023 bytes"),
    ] {
        let outcome = machine.quota().memory("2GiB").with("GPUQUOTA_REGION", &path).run("door_linked", &[]);
        assert!(!outcome.status.success() && outcome.stderr.lines().count() == 1, "{path:?}: {outcome}");
        assert!(outcome.stderr.contains(reason), "{path:?}: {outcome}");
    }
    let bytes = std::ffi::OsString::from_vec(b"\xff\n\x1b[31m.cache".to_vec());
    for path in
        [here("a b.cache"), here("folder/../up.cache"), here(&"n".repeat(255)), scratch.path().join(bytes)]
    {
        let quota = machine.quota().memory("2GiB").with("GPUQUOTA_REGION", &path);
        assert_eq!(quota.run("door_linked", &[]).success().value("total"), 2 * GIB, "{path:?}");
        assert!(path.exists(), "{path:?}");
    }
}

#[test]
fn a_region_that_is_no_region_is_a_failed_quota() {
    let machine = Machine::new("H100");
    let scratch = Scratch::new();
    for (name, contents) in [("text", b"this is no region".to_vec()), ("noise", vec![0xa5; 4 << 20])] {
        let path = scratch.file(name, &contents);
        let quota = machine.quota().memory("2GiB").with("GPUQUOTA_REGION", &path);
        let outcome = quota.run("door_linked", &[]);
        assert!(!outcome.status.success(), "{name}: {outcome}");
        assert!(outcome.stderr.contains(path.to_str().expect("text")), "{name}: {outcome}");
        assert_eq!(
            std::fs::read(&path).expect("still there"),
            contents,
            "{name}: somebody else's file was changed"
        );
    }
}

/// A bad command line: status 2, and the message names the mistake.
#[track_caller]
fn usage_error(binary: &str, arguments: &[&str], word: &str) -> String {
    let mut command = Command::new(artifact(binary));
    command.args(arguments);
    let outcome = Program::start(command).finish();
    assert_eq!(outcome.status.code(), Some(2), "{binary} {arguments:?}: {outcome}");
    assert!(outcome.stderr.contains(word), "{binary} {arguments:?}: does not say {word}: {outcome}");
    assert_eq!(outcome.out, "", "{binary} {arguments:?}: errors belong on stderr");
    outcome.stderr.clone()
}

/// What a machine file says of times.
const TIMES: [&str; 20] = [
    "launch",
    "module_launch",
    "function_launch",
    "record",
    "query",
    "synchronize",
    "wake",
    "context",
    "module",
    "allocate",
    "free",
    "memory_info",
    "processes",
    "each_process",
    "dispatch",
    "gap",
    "gap_after_event",
    "event",
    "preempt",
    "switch",
];

/// Of its machine alone.
const STARTS: [&str; 2] = ["init", "nvml_init"];

const NO_TIMES: [&str; 11] = [
    "\"-1us\"",
    "-1",
    "\"1.5\"",
    "\"nan\"",
    "\"infus\"",
    "\"2s\"",
    "\"99999999999999999999s\"",
    "3",
    "true",
    "[]",
    "\"\"",
];

const OTHERS: [(&str, &str); 8] = [
    ("jitter", "-0.1"),
    ("jitter", "1.01"),
    ("jitter", "nan"),
    ("jitter", "inf"),
    ("jitter", "\"10%\""),
    ("seed", "-1"),
    ("seed", "0.5"),
    ("lunch", "\"1us\""),
];

const NO_CONNECTIONS: [&str; 5] = ["0", "-1", "33", "1.5", "\"8\""];
const NO_IDEALS: [&str; 2] = ["1", "\"yes\""];

/// All pairs of these.
fn pairs(keys: &[&'static str], values: &[&'static str]) -> Vec<(&'static str, &'static str)> {
    keys.iter().flat_map(|key| values.iter().map(move |value| (*key, *value))).collect()
}

/// A machine file that is none ends with status 2, and the message has this line.
#[track_caller]
fn no_machine(scratch: &Scratch, text: &str, line: &str) -> String {
    let file = scratch.file("machine.toml", text);
    usage_error("cuda-sim", &["run", file.to_str().expect("text"), "--", "true"], line)
}

#[test]
fn latencies_that_are_none_are_told_with_their_line_and_their_key() {
    let scratch = Scratch::new();
    for (key, value) in [pairs(&TIMES, &NO_TIMES), pairs(&STARTS, &NO_TIMES), OTHERS.to_vec()].concat() {
        let text = format!("[[device]]\nlike = \"H100\"\n[latency]\n{key} = {value}\n");
        let told = no_machine(&scratch, &text, "line 4");
        assert!(told.contains(key) && !told.contains("device 0"), "{key} = {value}: {told}");
    }
    for (key, value) in [
        ("slice", "\"-2ms\""),
        ("slice", "\"0ms\""),
        ("slice", "\"3600s\""),
        ("slice", "2"),
        ("handles", "\"fresh\""),
        ("handles", "1"),
    ]
    .into_iter()
    .chain(pairs(&["connections"], &NO_CONNECTIONS))
    .chain(pairs(&["ideal"], &NO_IDEALS))
    {
        let text = format!("{key} = {value}\n[[device]]\nlike = \"H100\"\n");
        let told = no_machine(&scratch, &text, "line 1");
        assert!(told.contains(key), "{key} = {value}: {told}");
    }
}

/// In the table of the third device of a machine.
#[test]
fn latencies_of_a_device_that_are_none_are_told_with_the_device_too() {
    let scratch = Scratch::new();
    let machine = "[[device]]\nlike = \"H100\"\ncount = 2\n[[device]]\nlike = \"T4\"\n";
    let starts = pairs(&STARTS, &["\"1ms\"", "3"]);
    for (key, value) in [pairs(&TIMES, &NO_TIMES), starts, OTHERS.to_vec()].concat() {
        let told = no_machine(&scratch, &format!("{machine}[device.latency]\n{key} = {value}\n"), "line 7");
        assert!(told.contains(key) && told.contains("device 2"), "{key} = {value}: {told}");
    }
    let tables = pairs(&["latency"], &["3", "\"8us\"", "[]", "{ gap = \"-1us\" }"]);
    for (key, value) in
        [pairs(&["connections"], &NO_CONNECTIONS), pairs(&["ideal"], &NO_IDEALS), tables].concat()
    {
        let told = no_machine(&scratch, &format!("{machine}{key} = {value}\n"), "line 6");
        assert!(told.contains(key) && told.contains("device 2"), "{key} = {value}: {told}");
    }
}

#[test]
fn bad_command_lines_end_with_status_2() {
    let scratch = Scratch::new();
    let no_region = scratch.file("notes.txt", "this is no region");
    let no_region = no_region.to_str().expect("text");
    let no_machine = scratch.file("machine.toml", "[[device]]\nlike = \"H900\"");
    let no_machine = no_machine.to_str().expect("text");
    usage_error("cuda-sim", &["run", "NOSUCH", "--", "true"], "NOSUCH");
    usage_error("cuda-sim", &["run", "./nowhere.toml", "--", "true"], "./nowhere.toml");
    usage_error("cuda-sim", &["run", no_machine, "--", "true"], "line 2");
    usage_error("cuda-sim", &["truth", "--state", "nosuch"], "nosuch");
    usage_error("cuda-sim", &["run", "H100"], "");
    for (option, value) in [
        ("--cpu-quota", "50ms"),
        ("--cpu-quota", "100ms/100ms"),
        ("--cpu-quota", "0ms/100ms"),
        ("--cpu-quota", "-1ms/100ms"),
        ("--cpu-quota", "50ms/1000s"),
        ("--delay", "1ms"),
        ("--delay", "10ms..1ms"),
        ("--delay", "-1ms..1ms"),
        ("--delay", "fast..slow"),
        ("--delay", "1ms..1000s"),
        ("--delay-one-in", "0"),
    ] {
        usage_error("cuda-sim", &["run", "H100", &format!("{option}={value}"), "--", "true"], option);
    }
    usage_error("cuda-sim", &["dance"], "dance");
    usage_error("gpuquota", &["run"], "");
    usage_error("gpuquota", &["run", "--memory", "2GiB"], "");
    usage_error("gpuquota", &["run", "--memory", "2QiB", "--", "true"], "2QiB");
    usage_error("gpuquota", &["run", "--cores", "101%", "--", "true"], "101");
    usage_error("gpuquota", &["dance"], "dance");
    usage_error("gpuquota", &["inspect", no_region], no_region);
    usage_error("gpuquota", &["inspect", "/nowhere/quota.cache"], "/nowhere/quota.cache");
}
