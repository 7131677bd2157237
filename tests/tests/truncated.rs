//! A region's file that is truncated or overwritten in place while processes hold it: nobody is killed, the cap stays the one cap,
//! and somebody is told.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use gpuquota_promises::{GIB, Machine, OUT_OF_MEMORY, Program, Setting, program, twice};

const CAP: i64 = 4 * GIB;
const MOST: i64 = 2 * GIB;
const BLOCK: i64 = 2 << 20;
const PROCESSES: i64 = 3;

/// Writes over the file, and never makes another one.
fn overwrite(path: &Path, bytes: &[u8]) {
    fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|file| file.write_all_at(bytes, 0))
        .expect("the region");
}

/// The same command with one more variable.
fn after_setting(command: Command, variable: &str) -> Command {
    let mut all = Command::new("env");
    all.arg(variable).arg(command.get_program()).args(command.get_args());
    all
}

fn cut(path: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(bytes)).expect("the region");
}

/// The contents of the region of another container, which has other limits and whose processes have ended or not.
fn of_another(alive: bool) -> Vec<u8> {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(8 * GIB).cores(10);
    let mut other = quota.start("hold", &[]);
    other.wait_for("pid");
    assert_eq!(other.ask(&format!("alloc {GIB}"), "rc"), 0);
    let seen = |quota: &Setting<'_>| fs::read(quota.region()).expect("the region");
    if alive {
        return seen(&quota);
    }
    other.finish().success();
    seen(&quota)
}

type Fate = (&'static str, fn(&Path));

const FATES: [Fate; 9] = [
    ("emptied", |path| cut(path, 0)),
    ("cut to its half", |path| cut(path, fs::metadata(path).expect("the region").len() / 2)),
    ("cut by a page", |path| cut(path, fs::metadata(path).expect("the region").len() - 4096)),
    ("cut to the header", |path| cut(path, 0x1E_C000)),
    ("emptied and lengthened", |path| {
        let length = fs::metadata(path).expect("the region").len();
        cut(path, 0);
        cut(path, length);
    }),
    ("overwritten by garbage", |path| {
        let length = fs::metadata(path).expect("the region").len() as usize;
        overwrite(path, &(0..length).map(|at| (at * 7 + at / 251) as u8).collect::<Vec<_>>());
    }),
    ("overwritten by text", |path| overwrite(path, b"hello\n")),
    ("overwritten by another region", |path| overwrite(path, &of_another(false))),
    ("overwritten by another living region", |path| overwrite(path, &of_another(true))),
];

fn events(quota: &Setting<'_>, of: &str) -> usize {
    let seen = quota.inspect();
    seen["events"].as_array().expect("a list").iter().filter(|event| event["event"] == of).count()
}

fn used(quota: &Setting<'_>) -> i64 {
    let seen = quota.inspect();
    seen["devices"][0]["used"].as_i64().unwrap_or_else(|| panic!("no device: {seen:#}"))
}

#[test]
fn processes_whose_region_was_truncated_or_overwritten_live_under_the_one_cap() {
    for (case, fate) in FATES {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let mut holder = quota.start("hold", &[]);
        let pid = holder.wait_for("pid");
        assert_eq!(holder.ask(&format!("alloc {MOST}"), "rc"), 0);
        let mut witness = quota.start("hold", &[]);
        witness.wait_for("pid");
        assert_eq!(witness.ask(&format!("alloc {}", 100 * BLOCK), "rc"), 0);
        let before = used(&quota);
        fate(&quota.region());
        // The next call of each.
        assert_eq!(holder.ask("info", "total"), CAP, "{case}");
        assert_eq!(witness.ask(&format!("alloc {MOST}"), "rc"), OUT_OF_MEMORY, "{case}");
        assert_eq!(used(&quota), before, "{case}");
        let mut newcomer = quota.start("hold", &[]);
        newcomer.wait_for("pid");
        assert_eq!(newcomer.ask(&format!("alloc {MOST}"), "rc"), OUT_OF_MEMORY, "{case}: a second cap");
        assert_eq!(newcomer.ask(&format!("alloc {}", 16 * BLOCK), "rc"), 0, "{case}: not even the rest");
        let seen = quota.inspect();
        let processes = seen["processes"].as_array().expect("a list");
        let alive: Vec<_> = processes.iter().filter(|one| one["alive"] == true).collect();
        assert!(alive.len() == 3 && alive.iter().any(|one| one["pid"] == pid), "{case}: {seen:#}");
        assert_eq!(events(&quota, "contents_lost"), 2, "{case}");
        quota.limit(&["--memory", "1GiB"]).success();
        assert_eq!(holder.ask("info", "total"), GIB, "{case}: the old process does not obey");
        assert_eq!(holder.ask("free", "rc"), 0);
        newcomer.finish().success();
        let told = [holder, witness].map(|one| one.finish().success().stderr);
        for told in told {
            let line = |line: &str| line.contains(quota.region().to_str().expect("text"));
            assert_eq!(told.lines().filter(|said| line(said)).count(), 1, "{case}: {told}");
        }
        assert_eq!(used(&quota), 0, "{case}");
        assert!(machine.truth().device("requested_peak_bytes") <= CAP, "{case}");
    }
}

/// The newcomer makes the contents anew, before those who hold the region have made a call.
#[test]
fn a_newcomer_is_told_who_holds_a_truncated_region_and_they_come_back_beside_it() {
    for (case, fate) in FATES {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let mut holder = quota.start("hold", &[]);
        let pid = holder.wait_for("pid");
        assert_eq!(holder.ask(&format!("alloc {MOST}"), "rc"), 0);
        fate(&quota.region());
        let mut newcomer = quota.start("hold", &[]);
        newcomer.wait_for("pid");
        // Idle for two seconds.
        thread::sleep(Duration::from_secs(2));
        assert_eq!(holder.ask("info", "total"), CAP, "{case}");
        assert_eq!(newcomer.ask(&format!("alloc {MOST}"), "rc"), OUT_OF_MEMORY, "{case}: a second cap");
        assert_eq!(newcomer.ask(&format!("alloc {}", CAP / 8), "rc"), 0, "{case}");
        let of_region = case.starts_with("overwritten by another");
        let told = newcomer.finish().success().stderr;
        assert!(of_region || told.contains(&format!("process {pid}")), "{case}: {told}");
        let free = holder.ask("info", "free");
        assert!(free > 0 && holder.ask(&format!("alloc {free}"), "rc") == 0, "{case}: {free} bytes are free");
        holder.finish().success();
        assert_eq!(used(&quota), 0, "{case}");
        assert!(machine.truth().device("requested_peak_bytes") <= CAP, "{case}");
    }
}

/// Nothing that a process which makes no call holds can be had twice. The card says what that is.
#[test]
fn what_idle_processes_hold_counts_before_they_have_made_a_call() {
    const CAP: i64 = 6 * GIB;
    const MOST: i64 = 3 * GIB;
    let of_region = |case: &str| case.starts_with("overwritten by another");
    for (case, fate) in FATES.into_iter().filter(|(case, _)| !of_region(case)) {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let [mut idle, mut witness] = [(); 2].map(|()| {
            let mut one = quota.start("hold", &[]);
            one.wait_for("pid");
            one
        });
        assert_eq!(idle.ask(&format!("alloc {MOST}"), "rc"), 0);
        assert_eq!(witness.ask(&format!("alloc {}", 4 * BLOCK), "rc"), 0);
        fate(&quota.region());
        // One comes as a stranger, one comes back.
        let mut newcomers = [quota.start("hold", &[]), quota.start("hold", &[])];
        for newcomer in &mut newcomers {
            newcomer.wait_for("pid");
            assert_eq!(newcomer.ask(&format!("alloc {MOST}"), "rc"), OUT_OF_MEMORY, "{case}: a second cap");
            assert_eq!(newcomer.ask(&format!("alloc {}", 16 * BLOCK), "rc"), 0, "{case}: not even the rest");
        }
        assert_eq!(witness.ask(&format!("alloc {MOST}"), "rc"), OUT_OF_MEMORY, "{case}: a second cap");
        let free = witness.ask("info", "free");
        assert_eq!(free, CAP - machine.truth().device("physical_bytes"), "{case}");
        // It gives back, and others can have that.
        assert_eq!(idle.ask("free", "rc"), 0, "{case}");
        assert_eq!(witness.ask(&format!("alloc {MOST}"), "rc"), 0, "{case}: it stays refused");
        assert_eq!(witness.ask("info", "free"), free, "{case}");
        assert!(machine.truth().device("physical_peak_bytes") <= CAP + BLOCK, "{case}");
        for one in newcomers.into_iter().chain([idle, witness]) {
            one.finish().success();
        }
        assert_eq!(used(&quota), 0, "{case}");
    }
}

/// Bytes of allocations and of what measured kinds have, as the container has them.
fn charged(quota: &Setting<'_>) -> i64 {
    let seen = quota.inspect();
    let processes = seen["processes"].as_array().expect("a list");
    let devices = processes.iter().filter_map(|process| process["devices"].as_array()).flatten();
    devices.filter_map(|device| device["bytes"].as_i64()).sum()
}

/// Who comes back waits for the others, and not for ever: on a machine that starves one of them others may be given what it
/// holds. So this may try twice; at rest the books are always exact.
#[test]
fn a_storm_of_allocations_over_a_file_that_is_truncated_all_the_time_ends_with_exact_books() {
    twice(|| {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let mut all: Vec<_> =
            (0..PROCESSES).map(|one| quota.start("storm", &["3", &(100 + one).to_string()])).collect();
        all.iter_mut().for_each(|one| _ = one.wait_for("free"));
        all.iter_mut().for_each(|one| one.tell("go"));
        all.iter_mut().for_each(|one| _ = one.wait_for("ready"));
        let until = Instant::now() + Duration::from_secs(3);
        let mut losses = 0_u64;
        while Instant::now() < until {
            cut(&quota.region(), [0, 0x1E_B000, 0x1E_C000, 0x20_0000][losses as usize % 4]);
            losses += 1;
            thread::sleep(Duration::from_millis([10, 50, 20][losses as usize % 3]));
        }
        let refusals: i64 = all.iter_mut().map(|one| one.ask("rest", "refusals")).sum();
        assert!(refusals > 0 && losses > 10, "{losses} losses, {refusals} refusals");
        // Each has made a call.
        all.iter_mut().for_each(|one| _ = one.ask("info", "free"));
        let seen = quota.inspect();
        assert_eq!(used(&quota), charged(&quota), "{seen:#}");
        assert_eq!(used(&quota), machine.truth().device("physical_bytes"), "{seen:#}");
        all.iter_mut().for_each(|one| _ = one.ask("free", "free"));
        all.into_iter().for_each(|one| _ = one.finish().success());
        assert_eq!((used(&quota), charged(&quota)), (0, 0));
        let over = machine.truth().device("physical_peak_bytes") - CAP;
        // An attempt of a process that was under way, and one after it.
        (over, over <= 2 * PROCESSES * BLOCK)
    })
    .unwrap_or_else(|seen| panic!("{seen} bytes over the cap"));
}

/// Until a process that holds it has made a call there is nothing to show.
#[test]
fn tools_say_of_a_truncated_region_who_will_restore_it() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let mut holder = quota.start("hold", &[]);
    let pid = holder.wait_for("pid");
    cut(&quota.region(), 0);
    let outcome = quota.limit(&["--memory", "1GiB"]);
    assert!(!outcome.status.success() && outcome.stderr.contains(&format!("process {pid}")), "{outcome}");
    assert_eq!(holder.ask("info", "total"), CAP);
    quota.limit(&["--memory", "1GiB"]).success();
    assert_eq!(holder.ask("info", "total"), GIB);
    holder.finish().success();
}

/// A restored backup: the same contents as before, without what was done since. Each process looks once a second.
#[test]
fn an_older_copy_of_the_same_contents_is_noticed_and_counts_for_nothing() {
    for truncates in [false, true] {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let mut holder = quota.start("hold", &[]);
        holder.wait_for("pid");
        assert_eq!(holder.ask(&format!("alloc {}", MOST / 2), "rc"), 0);
        let mut witness = quota.start("hold", &[]);
        witness.wait_for("pid");
        assert_eq!(witness.ask(&format!("alloc {BLOCK}"), "rc"), 0);
        let copy = fs::read(quota.region()).expect("the region");
        assert_eq!(holder.ask(&format!("alloc {}", MOST / 2), "rc"), 0);
        // Each has seen its own part of the newer contents.
        thread::sleep(Duration::from_millis(1100));
        holder.ask("info", "free");
        witness.ask("info", "free");
        let before = used(&quota);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).truncate(truncates).open(quota.region()).expect("the region");
        file.write_all_at(&copy, 0).expect("written");
        let until = Instant::now() + Duration::from_secs(3);
        while used(&quota) != before {
            assert!(Instant::now() < until, "{truncates}: {} of {before} bytes are counted", used(&quota));
            holder.ask("info", "free");
            witness.ask("info", "free");
            thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(witness.ask(&format!("alloc {MOST}"), "rc"), OUT_OF_MEMORY, "{truncates}");
        assert!(events(&quota, "contents_lost") > 0, "{truncates}: nobody is told");
        holder.finish().success();
        witness.finish().success();
        assert_eq!(used(&quota), 0, "{truncates}");
        assert!(machine.truth().device("physical_peak_bytes") <= CAP + BLOCK, "{truncates}");
    }
}

/// The region numbers devices in the order in which processes come to them. A process whose device has another number afterwards
/// cannot be counted there: it gets nothing more, and loses nothing.
#[test]
fn a_process_whose_device_has_another_place_afterwards_gets_no_more_memory_there() {
    let machine = Machine::new("2xH100");
    let quota = machine.quota().memory(CAP);
    let on = |device: &str| {
        let mut command = quota.command(program("hold"), &[]);
        command = after_setting(command, &format!("CUDA_VISIBLE_DEVICES={device}"));
        Program::start(command)
    };
    let mut holder = on("1,0");
    holder.wait_for("pid");
    assert_eq!(holder.ask(&format!("alloc {MOST}"), "rc"), 0);
    cut(&quota.region(), 0);
    let mut newcomer = on("0,1");
    newcomer.wait_for("pid");
    assert_eq!(holder.ask(&format!("alloc {BLOCK}"), "rc"), OUT_OF_MEMORY);
    assert_eq!(newcomer.ask("info", "total"), CAP);
    assert_eq!(newcomer.ask(&format!("alloc {}", MOST / 2), "rc"), 0, "its device is another one");
    assert_eq!(holder.ask("free", "rc"), 0);
    holder.finish().success();
    newcomer.finish().success();
    let seen = quota.inspect();
    let devices = seen["devices"].as_array().expect("a list");
    assert!(devices.len() == 2 && devices.iter().all(|device| device["used"] == 0), "{seen:#}");
    let mut again = on("1,0");
    again.wait_for("pid");
    assert_eq!(again.ask(&format!("alloc {MOST}"), "rc"), 0, "who starts again is counted");
    again.finish().success();
}

/// One process works and the other one is idle: the limits of the idle one come back with its next call.
#[test]
fn limits_that_processes_brought_are_there_again_and_those_of_the_operator_are_not() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let free = quota.without_limits();
    let mut with = quota.start("hold", &[]);
    with.wait_for("pid");
    let mut without = free.start("hold", &[]);
    without.wait_for("pid");
    quota.limit(&["--memory", "1GiB"]).success();
    assert_eq!(without.ask("info", "total"), GIB);
    cut(&quota.region(), 0);
    assert_eq!(with.ask("info", "total"), CAP);
    assert_eq!(without.ask("info", "total"), CAP);
    let seen = quota.inspect();
    assert_eq!(seen["devices"][0]["memory_limit"], CAP, "{seen:#}");
    assert_eq!(seen["devices"][0]["asked"].as_array().map(Vec::len), Some(1), "{seen:#}");
    with.finish().success();
    without.finish().success();
}

#[test]
fn a_program_s_own_handler_of_sigbus_goes_on_to_work() {
    for how in ["info", "plain"] {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let mut program = quota.start("handles_bus", &[how]);
        program.wait_for("pid");
        assert_eq!(program.ask("fault", "hits"), 1, "{how}");
        cut(&quota.region(), 0);
        assert_eq!(program.ask(&format!("alloc {MOST}"), "rc"), 0, "{how}");
        assert_eq!(program.ask("fault", "hits"), 2, "{how}");
        assert_eq!(program.ask("sent", "hits"), 3, "{how}");
        assert_eq!(program.ask(&format!("alloc {MOST}"), "rc"), OUT_OF_MEMORY, "{how}");
        program.finish().success();
    }
}

/// As by default: the signal ends the program, and its parent sees which one.
#[test]
fn a_sigbus_of_the_program_s_own_ends_it_as_without_the_library() {
    use std::os::unix::process::ExitStatusExt;
    for what in ["fault", "sent"] {
        let machine = Machine::new("H100");
        let quota = machine.quota().memory(CAP);
        let mut program = quota.start("handles_bus", &["none"]);
        program.wait_for("pid");
        program.tell(what);
        let outcome = program.finish();
        assert_eq!(outcome.status.signal(), Some(7), "{what}: {outcome}");
    }
}

/// The share is time, so this may try twice.
#[test]
fn launches_under_a_share_are_held_to_it_while_the_file_is_truncated() {
    let attempt = || {
        let machine = Machine::new("H100");
        let quota = machine.quota().cores(30);
        let mut program = quota.start("launch_loop", &["busy_5ms", "told"]);
        program.wait_for("ready");
        cut(&quota.region(), 0);
        thread::sleep(Duration::from_secs(1));
        let busy = machine.busy_percent(0, Duration::from_secs(3));
        assert!(program.finish().success().value("launches") > 0);
        (busy, (busy - 30.0).abs() <= 3.0)
    };
    twice(attempt).unwrap_or_else(|seen| panic!("busy {seen} percent"));
}

/// The program has closed every descriptor, and the path has gone: nobody can give the file its length again.
#[test]
fn a_process_that_cannot_reach_its_file_any_more_lives_on_under_its_own_limits() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP);
    let mut program: Program = quota.start("hold", &["closed"]);
    program.wait_for("pid");
    assert_eq!(program.ask(&format!("alloc {MOST}"), "rc"), 0);
    let file = fs::OpenOptions::new().write(true).open(quota.region()).expect("the region");
    fs::remove_dir_all(quota.home()).expect("the folder");
    fs::create_dir(quota.home()).expect("the folder");
    file.set_len(0).expect("the region");
    assert_eq!(program.ask(&format!("alloc {MOST}"), "rc"), OUT_OF_MEMORY);
    assert_eq!(program.ask(&format!("alloc {}", CAP / 8), "rc"), 0);
    assert_eq!(program.ask("free", "rc"), 0);
    program.finish().success();
}
