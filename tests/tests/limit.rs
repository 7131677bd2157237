//! `gpuquota limit`: a changed limit holds from the next call on, for running programs too.

use std::thread;
use std::time::Duration;

use gpuquota_promises::{GIB, Machine, OUT_OF_MEMORY, Program, Setting, twice};

fn holder(quota: &Setting<'_>) -> Program {
    let mut holder = quota.start("hold", &[]);
    holder.wait_for("pid");
    holder
}

fn alloc(holder: &mut Program, bytes: i64) -> i64 {
    holder.ask(&format!("alloc {bytes}"), "rc")
}

#[test]
fn a_raised_cap_lets_the_next_request_in() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(2 * GIB);
    let mut program = holder(&quota);
    assert_eq!(alloc(&mut program, 3 * GIB), OUT_OF_MEMORY);
    quota.limit(&["--memory", "4GiB"]).success();
    assert_eq!(program.ask("info", "total"), 4 * GIB);
    assert_eq!(alloc(&mut program, 3 * GIB), 0);
    assert_eq!(alloc(&mut program, 2 * GIB), OUT_OF_MEMORY);
    assert_eq!(machine.truth().device("requested_bytes"), 3 * GIB);
}

#[test]
fn a_cap_lowered_below_the_use_takes_nothing_away_and_grants_nothing_new() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(8 * GIB);
    let (mut one, mut other) = (holder(&quota), holder(&quota));
    assert_eq!((alloc(&mut one, 2 * GIB), alloc(&mut other, 2 * GIB)), (0, 0));
    quota.limit(&["--memory", "4GiB"]).success();
    for program in [&mut one, &mut other] {
        assert_eq!(program.ask("info", "free"), 0);
        assert_eq!(alloc(program, 1), OUT_OF_MEMORY);
    }
    assert_eq!(machine.truth().device("requested_bytes"), 4 * GIB);
    assert_eq!(one.ask("free", "rc"), 0);
    assert_eq!((alloc(&mut other, 2 * GIB), alloc(&mut other, GIB / 2)), (OUT_OF_MEMORY, 0));
    // A later process does not bring the old cap back.
    let mut late = holder(&quota);
    assert_eq!((late.ask("info", "total"), alloc(&mut late, 2 * GIB)), (4 * GIB, OUT_OF_MEMORY));
}

#[test]
fn a_request_that_waits_is_granted_when_the_cap_is_raised() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(4 * GIB).with("GPUQUOTA_MEMORY_WAIT", "30s");
    let (mut sibling, mut waiting) = (holder(&quota), holder(&quota));
    assert_eq!(alloc(&mut sibling, 3 * GIB), 0);
    waiting.tell(&format!("alloc {}", 2 * GIB));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(machine.truth().device("requested_bytes"), 3 * GIB);
    quota.limit(&["--memory", "7GiB"]).success();
    assert_eq!(waiting.wait_for("rc"), 0);
}

/// Also for programs that were started without any share, whose launches read two words only so far.
#[test]
fn a_changed_share_holds_from_the_next_launch_on() {
    let attempt = || {
        let machine = Machine::new("H100");
        let quota = machine.quota();
        let mut program = quota.start("launch_loop", &["busy_5ms", "told"]);
        program.wait_for("ready");
        let seen = ["20%", "60", "100"].map(|share| {
            quota.limit(&["--cores", share]).success();
            thread::sleep(Duration::from_millis(700));
            machine.busy_percent(0, Duration::from_millis(2500))
        });
        program.finish().success();
        let due = |at: usize, share: f64| (seen[at] - share).abs() <= 5.0;
        (seen, due(0, 20.0) && due(1, 60.0) && seen[2] > 80.0)
    };
    twice(attempt).expect("20, 60 and nearly 100 percent");
}

#[test]
fn a_request_is_changed_with_the_share_or_without_and_never_above_it() {
    let machine = Machine::new("H100");
    let quota = machine.quota().cores(60);
    quota.run("devices", &[]).success();
    let request = || quota.inspect()["devices"][0]["lease"]["request_percent"].as_i64();
    assert_eq!(request(), None);
    quota.limit(&["--cores-request", "20%"]).success();
    assert_eq!(request(), Some(20));
    quota.limit(&["--cores", "90", "--cores-request", "70"]).success();
    assert_eq!(request(), Some(70));
    let refused = quota.limit(&["--cores", "50%", "--cores-request", "51%"]);
    assert_eq!((refused.status.code(), request()), (Some(2), Some(70)), "{refused}");
    quota.limit(&["--cores", "40%"]).success();
    assert_eq!(request(), Some(40), "never more than the share, also one that is lowered");
    quota.limit(&["--cores", "90%"]).success();
    let refused = quota.limit(&["--cores-request", "95%"]);
    assert!(refused.to_string().contains("95% cannot be guaranteed of a share of 90%"), "{refused}");
}

#[test]
fn a_launch_that_waits_for_the_share_goes_when_it_is_raised() {
    let machine = Machine::new("H100");
    let quota = machine.quota().cores(1);
    let mut program = quota.start("launch_loop", &["busy_40ms", "2", "plain", "1"]);
    program.wait_for("ready");
    // At 1% the second launch waits for three seconds.
    thread::sleep(Duration::from_millis(500));
    quota.limit(&["--cores", "100"]).success();
    assert!(program.wait_for("launches") > 10);
    program.finish().success();
}

#[test]
fn a_device_can_be_selected_by_its_index_and_by_its_uuid() {
    let machine = Machine::new("2xH100");
    let quota = machine.quota().memory(8 * GIB);
    quota.run("devices", &[]).success();
    let uuid = quota.inspect()["devices"][1]["uuid"].as_str().expect("text").to_owned();
    quota.limit(&["--memory", &format!("0=1GiB,{uuid}=2GiB"), "--cores", &format!("{uuid}=30")]).success();
    let devices = &quota.inspect()["devices"];
    let limits = [0, 1].map(|at| devices[at]["memory_limit"].as_i64());
    assert_eq!(limits, [Some(GIB), Some(2 * GIB)], "{devices}");
    assert_eq!(devices[1]["core_limit"], 30, "{devices}");
    assert!(devices[0]["core_limit"].is_null(), "{devices}");
}

/// Each message names the mistake, and nothing changes, also not by the correct options beside it.
#[test]
fn an_option_that_cannot_be_parsed_changes_nothing_and_is_named() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(2 * GIB).cores(50);
    let _program = holder(&quota);
    let before = quota.inspect();
    let wrong = [
        (&["--memory", "4GB"][..], "4GB"),
        (&["--memory", "0"], "zero"),
        (&["--memory", "-1"], "negative"),
        (&["--cores", "0"], "zero"),
        (&["--cores", "-5"], "negative"),
        (&["--cores", "101"], "100 percent"),
        (&["--memory", "1GiB", "--cores", "101%"], "101%"),
        (&["--memory", "1GiB", "--cores", "7=30"], "no device 7"),
        (&["--memory", "GPU-none=1GiB"], "no device GPU-none"),
        (&[], "--memory"),
    ];
    for (options, words) in wrong {
        let outcome = quota.limit(options);
        assert_eq!(outcome.status.code(), Some(2), "{options:?}: {outcome}");
        assert!(outcome.stderr.contains(words), "{options:?}: {outcome}");
    }
    assert_eq!(quota.inspect(), before);
    quota.limit(&["--cores", "30%"]).success();
    assert_eq!(quota.inspect()["devices"][0]["core_limit"], 30);
}

#[test]
fn a_file_that_is_no_region_stays_as_it_is() {
    let machine = Machine::new("H100");
    let quota = machine.quota();
    let outcome = quota.limit(&["--memory", "1GiB"]);
    assert_eq!(outcome.status.code(), Some(2), "{outcome}");
    assert!(!quota.region().exists(), "it made one");
    std::fs::write(quota.region(), "my notes").expect("the folder is ours");
    let outcome = quota.limit(&["--memory", "1GiB"]);
    assert!(outcome.stderr.contains("no region") || outcome.stderr.contains("too short"), "{outcome}");
    assert_eq!(std::fs::read(quota.region()).expect("it is there"), b"my notes");
}
