//! The region's file: programs make it, find it and leave it, and other readers read it (`docs/region.md`).

use std::fs::{self, File};
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use gpuquota_promises::{GIB, Machine, Program, Promise, Setting};
use gpuquota_region::hami::View;
use gpuquota_region::layout::{Header, OURS};
use serde_json::Value;

/// The output of `include/gpuquota_region.py` on a region.
fn python(path: &Path) -> Value {
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/../include/gpuquota_region.py");
    let mut command = Command::new("python3");
    command.arg("-B").arg(reader).arg(path);
    let outcome = Program::start(command).finish().success();
    serde_json::from_str(&outcome.out).unwrap_or_else(|why| panic!("{why}: {outcome}"))
}

#[test]
fn the_python_reader_and_inspect_agree_on_a_live_region() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("2GiB").cores(30).with("GPUQUOTA_CORES_REQUEST", "20");
    quota.run("launch_loop", &["busy_5ms", "1"]).success();
    let mut holder = quota.start("hold", &[]);
    let pid = holder.wait_for("pid");
    assert_eq!(holder.ask(&format!("alloc {GIB}"), "rc"), 0);
    assert_eq!(holder.ask(&format!("alloc {}", 4 * GIB), "rc"), 2);
    let seen = quota.inspect();
    assert_eq!(seen, python(&quota.region()));
    let alive = |seen: &Value| {
        let processes = seen["processes"].as_array().into_iter().flatten();
        processes.filter(|process| process["pid"] == pid && process["alive"] == true).count()
    };
    assert_eq!(alive(&seen), 1, "{seen:#}");
    assert_eq!(seen["devices"][0]["lease"]["request_percent"], 20, "{seen:#}");
    // The holder has given back the bytes of the program before it, and then it was refused.
    assert_eq!([0, 1].map(|at| &seen["events"][at]["event"]), ["reaped", "denied"], "{seen:#}");
    holder.finish().success();
    let seen = quota.inspect();
    assert_eq!(seen, python(&quota.region()));
    assert_eq!(alive(&seen), 0, "{seen:#}");
}

/// The region's file, opened for changes that another version might have made.
fn file(quota: &Setting<'_>) -> File {
    File::options().read(true).write(true).open(quota.region()).expect("programs have made it")
}

#[test]
fn a_program_that_finds_records_of_another_length_writes_nothing_and_reports_the_length() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("2GiB");
    let mut holder = quota.start("hold", &[]);
    let pid = holder.wait_for("pid");
    assert_eq!(holder.ask(&format!("alloc {GIB}"), "rc"), 0);
    let slot_bytes = (OURS + offset_of!(Header, record_bytes) + 4) as u64;
    file(&quota).write_all_at(&1024u32.to_le_bytes(), slot_bytes).expect("it is that long");
    let before = fs::read(quota.region()).expect("the region");

    let outcome = quota.run("door_linked", &[]);
    assert!(!outcome.status.success(), "it went on without a quota: {outcome}");
    let region = quota.region();
    let line = outcome.stderr.lines().find(|line| line.contains(region.to_str().expect("text")));
    let line = line.unwrap_or_else(|| panic!("nothing on stderr names the region: {outcome}"));
    assert!(line.contains("bytes of a slot record: found 1024, this version writes 512"), "{line}");
    assert!(line.contains(&format!("process {pid} holds it")), "{line}");
    let limited = quota.limit(&["--memory", "1GiB"]);
    assert!(!limited.status.success() && limited.stderr.contains("found 1024"), "{limited}");
    assert!(fs::read(&region).expect("the region") == before, "the file was written to");

    let open = quota.with("GPUQUOTA_ON_ERROR", "open");
    let outcome = open.run("door_linked", &[]).success();
    assert!(outcome.stderr.contains("found 1024"), "{outcome}");
    assert!(fs::read(&region).expect("the region") == before, "the file was written to");

    // Nobody holds it any more.
    holder.finish().success();
    let outcome = open.run("door_linked", &[]).success();
    assert!(!outcome.stderr.contains("found 1024"), "{outcome}");
    assert_eq!(open.inspect()["events"][0]["event"], "started_anew");
}

/// What another version, or HAMi-core, left there.
#[test]
fn a_file_of_another_version_that_nobody_holds_is_made_anew() {
    let promise = &Promise::to(&["HAMi#318"]);
    let changes: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[OURS + offset_of!(Header, abi_major)] = 2,
        |bytes| bytes[OURS + offset_of!(Header, abi_major)] = 0,
        |bytes| bytes.truncate(OURS + 0x18_9000),
        |bytes| bytes.truncate(OURS),
    ];
    let machine = Machine::new("H100");
    for change in changes {
        let quota = machine.quota().memory("2GiB");
        quota.run("door_linked", &[]).success();
        let mut bytes = fs::read(quota.region()).expect("the region");
        change(&mut bytes);
        fs::write(quota.region(), bytes).expect("the region");
        let outcome = quota.run("views", &[]).success();
        promise.asserts(|| assert_eq!(outcome.value("total"), 2 * GIB));
        assert_eq!(quota.inspect()["abi"][0], 1);
    }
}

/// HAMi-core counts in the same file, and neither library knows what the other one has given.
#[test]
fn a_file_that_a_process_with_hami_core_uses_is_left_alone_and_the_line_names_the_process() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("2GiB");
    let script = "
import mmap, os, struct, sys
with open(sys.argv[1], 'w+b') as file:
    file.truncate(2008952)
    region = mmap.mmap(file.fileno(), 2008952)
region[0:12] = struct.pack('<iII', 19920718, 1, 2)
region[1856:1860] = struct.pack('<i', os.getpid())
region[2008896:2008900] = struct.pack('<i', 1)
print('pid=%d' % os.getpid(), flush=True)
sys.stdin.read()
";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(quota.region());
    let mut hami = Program::start(command);
    let pid = hami.wait_for("pid");
    let before = fs::read(quota.region()).expect("the file");
    let outcome = quota.run("door_linked", &[]);
    assert!(!outcome.status.success(), "{outcome}");
    assert!(outcome.stderr.contains(&format!("process {pid} holds it")), "{outcome}");
    assert!(fs::read(quota.region()).expect("the file") == before, "it was written to");
    hami.finish().success();
    quota.run("door_linked", &[]).success();
}

/// Of another boot, by another clock: whoever holds the region knows better.
#[test]
fn a_region_that_a_process_holds_is_never_made_anew() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("2GiB");
    let mut holder = quota.start("hold", &[]);
    assert_eq!(holder.ask(&format!("alloc {GIB}"), "rc"), 0);
    for field in [offset_of!(Header, boot_id), offset_of!(Header, time_namespace)] {
        file(&quota).write_all_at(&[0xA5; 8], (OURS + field) as u64).expect("it is that long");
        let mut newcomer = quota.start("hold", &[]);
        assert_eq!(newcomer.ask(&format!("alloc {GIB}"), "rc"), 2, "a second cap");
        newcomer.finish().success();
    }
    assert_eq!(quota.inspect()["generation"], 1);
    holder.finish().success();
}

#[test]
fn a_program_that_finds_a_region_of_another_boot_starts_it_anew_and_records_an_event() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("2GiB");
    quota.run("door_linked", &[]).success();
    file(&quota).write_all_at(&[0xA5; 16], (OURS + offset_of!(Header, boot_id)) as u64).expect("a boot");
    quota.run("door_linked", &[]).success();
    let seen = quota.inspect();
    assert_eq!((&seen["generation"], &seen["events"][0]["event"]), (&2.into(), &"started_anew".into()));
}

/// With a share and without.
#[test]
fn a_monitor_of_hamis_reads_when_the_container_last_launched() {
    let machine = Machine::new("H100");
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    for cores in [Some(50), None] {
        let quota = machine.quota().memory("40GiB");
        let quota = match cores {
            Some(cores) => quota.cores(cores),
            None => quota,
        };
        quota.run("views", &[]).success();
        let region = file(&quota);
        let recent = offset_of!(View, recent_kernel) as u64;
        let read = || {
            let (mut word, mut time) = ([0; 4], [0; 8]);
            region.read_exact_at(&mut word, recent).expect("it is that long");
            region
                .read_exact_at(&mut time, offset_of!(View, last_kernel_time) as u64)
                .expect("it is that long");
            (i32::from_le_bytes(word), u64::from_le_bytes(time))
        };
        assert_eq!(read(), (0, 0), "at {cores:?}%: nothing was launched yet");
        let before = now();
        quota.run("launch_loop", &["busy_5ms", "1"]).success();
        let (word, first) = read();
        assert!(word == 2 && (before..=now()).contains(&first), "at {cores:?}%: {word}, {first} of {before}");
        // A monitor's round; then it launches again, in a later second.
        region.write_all_at(&1i32.to_le_bytes(), recent).expect("it is that long");
        quota.run("launch_loop", &["busy_5ms", "1"]).success();
        let (word, second) = read();
        assert!(
            word == 2 && (first + 1..=now()).contains(&second),
            "at {cores:?}%: {word}, {first}, {second}"
        );
    }
}
