//! The test instrument itself: `cuda-sim` runs any command on the requested machine, and prints the device's own figures.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gpuquota_promises::{GIB, Machine, Outcome, Program, Promise, Scratch, artifact, program, twice};

fn cuda_sim(arguments: &[&str]) -> Outcome {
    let mut command = Command::new(artifact("cuda-sim"));
    command.args(arguments);
    Program::start(command).finish()
}

/// A program's path as text.
fn path(name: &str) -> String {
    program(name).to_str().expect("the path is text").to_owned()
}

#[test]
fn a_machine_is_fresh_unless_a_state_is_named() {
    let hold = path("hold");
    for _ in 0..2 {
        let outcome =
            cuda_sim(&["run", "T4", "--", "sh", "-c", &format!("echo 'alloc {GIB}' | {hold}")]).success();
        assert_eq!(outcome.value("rc"), 0);
    }
    let machine = Machine::new("T4");
    let mut first = machine.bare().start("hold", &[]);
    assert_eq!(first.ask(&format!("alloc {GIB}"), "rc"), 0);
    let mut second = machine.bare().start("hold", &[]);
    let free = second.ask("info", "free");
    let total = machine.truth().device("total_bytes");
    assert!(free <= total - GIB, "the second process is on another machine: {free} of {total} are free");
}

#[test]
fn whoever_asks_for_another_machine_than_a_named_state_is_told_that_it_stays() {
    let state = format!("kept-{}", std::process::id());
    for (options, told) in [
        (&["T4"][..], 0),
        (&["T4"], 0),
        (&["T4", "--ideal"], 1),
        (&["H100"], 1),
        (&["T4", "--delay", "1ms..2ms"], 1),
        (&["T4"], 0),
    ] {
        let outcome = cuda_sim(&[&["run"], options, &["--state", &state, "--", "true"]].concat()).success();
        let line = format!("state {state} is there already and stays");
        assert_eq!(outcome.stderr.lines().filter(|told| told.contains(&line)).count(), told, "{outcome}");
        assert_eq!(outcome.stderr.lines().count(), told, "{outcome}");
    }
    cuda_sim(&["forget", "--state", &state]).success();
}

#[test]
fn a_command_ends_as_it_ends_without_the_simulator() {
    let run = |script: &str| cuda_sim(&["run", "H100", "--", "sh", "-c", script]);
    assert_eq!(run("exit 42").status.code(), Some(42));
    assert_eq!(run("kill -TERM $$").status.to_string(), "signal: 15 (SIGTERM)");
    let outcome = run("echo out; echo err >&2");
    assert_eq!((outcome.out.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn a_machine_file_makes_the_machine() {
    let scratch = Scratch::new();
    let file = "
        [[device]]
        like = \"H100\"
        memory = \"3GiB\"
        context = \"64MiB\"
        [[kernel]]
        pattern = \"busy_*\"
        duration = \"20ms\"
        [[kernel]]
        pattern = \"grid_*\"
        duration = \"2ms\"
        per_block = \"3ms\"
    ";
    let file = scratch.file("small.toml", file);
    let machine = Machine::new(file.to_str().expect("text"));
    let view = machine.bare().run("views", &[]).success();
    assert_eq!(view.value("device_total"), 3 * GIB);
    assert_eq!(view.value("nvml_total"), 3 * GIB);
    assert_eq!(machine.truth().device("total_bytes"), 3 * GIB);
    let before = machine.truth();
    let loops = machine.bare().run("launch_loop", &["busy_5ms", "0.2", "plain"]).success();
    let after = machine.truth();
    let busy = after.device("busy_ns") - before.device("busy_ns");
    let kernels = after.device("kernels") - before.device("kernels");
    assert_eq!(kernels, loops.value("launches"));
    assert_eq!(busy, 20_000_000 * kernels, "the file's duration does not hold");
    let loops = machine.bare().run("launch_loop", &["grid_9us", "0.1", "plain", "4", "4"]).success();
    let busy = machine.truth().device("busy_ns") - after.device("busy_ns");
    assert_eq!(
        busy,
        (2_000_000 + 4 * 3_000_000) * loops.value("launches"),
        "a launch takes longer by its blocks"
    );
}

/// Two processes that always have work get half of the device each, in time slices of the length that the file says.
#[test]
fn contexts_of_different_processes_are_time_sliced() {
    let machine = Machine::new("H100");
    let bare = machine.bare();
    let mut loops =
        [bare.start("launch_loop", &["busy_5ms", "1"]), bare.start("launch_loop", &["busy_5ms", "1"])];
    for running in &mut loops {
        running.wait_for("ready");
    }
    let launches = loops.map(|running| running.finish().success().value("launches"));
    let told = machine.truth();
    // Both together launched no more than the device had time for.
    assert_eq!(told.device("busy_ns"), 5_000_000 * (launches[0] + launches[1]));
    assert!(launches.iter().all(|own| own * 4 >= launches[0] + launches[1]), "one starves: {launches:?}");
}

/// An event is work too: an event of an idle context completes in the context's time slice, not in another one's.
#[test]
fn an_event_does_not_count_the_wait_for_a_time_slice_as_the_kernels_behind_it() {
    for machine in [Machine::new("H100"), Machine::of_the_field("H100", &[])] {
        // So far ahead that the device has work also while the machine holds the program up.
        let mut busy = machine.bare().start("launch_loop", &["busy_5ms", "60", "plain", "100"]);
        busy.wait_for("ready");
        let spans = machine.bare().run("spans", &[]).success();
        // A time slice is 2 ms, the kernel 100 us.
        assert!(spans.value("median_us") < 500, "{spans}");
        busy.kill();
    }
}

/// A machine whose kernels take as long as their arguments say and write down when they ran, and the folder of its file.
fn machine_with_stamps() -> (Machine, Scratch) {
    let scratch = Scratch::new();
    let file = "
        [[device]]
        like = \"H100\"
        [[kernel]]
        pattern = \"work_*\"
        duration = \"1ns\"
        argument = 0
        stamps = 1
    ";
    let file = scratch.file("stamps.toml", file);
    (Machine::new(file.to_str().expect("text")), scratch)
}

/// The figures of the GPU kit's `costs events` for kernels of 20 us are right within half a microsecond.
#[track_caller]
fn costs_are(machine: &Machine, wanted: [(&str, i64); 7]) {
    let attempt = || {
        let told = machine.bare().run("costs", &["events"]).success();
        let seen = wanted.map(|(key, _)| (key, told.value(&format!("{key}_p50_ns"))));
        let near = seen.iter().zip(wanted).all(|((_, seen), (_, wanted))| (seen - wanted).abs() <= 500);
        (seen, near)
    };
    twice(attempt).expect("what the card takes");
}

/// The figures are those of a real card, `bench/runs/2026-11-26-H200-580.159.04/tables.txt`.
#[test]
fn calls_and_front_end_take_as_long_as_the_machine_file_says() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cuda-shim/machines/h200-latency.toml");
    let shipped = std::fs::read_to_string(shipped).expect("a machine file");
    let rule = "\n[[kernel]]\npattern = \"timed_*\"\nduration = \"1ns\"\nargument = 0\nstamps = 1\n";
    let scratch = Scratch::new();
    for (name, text, figures) in [
        ("real.toml", shipped.as_str(), [5750, 1835, 3519, 5183, 1440, 4800, 1279]),
        ("ideal.toml", "[[device]]\nlike = \"H200\"\n", [0; 7]),
    ] {
        let file = scratch.file(name, format!("{text}{rule}"));
        let [alone, less_call, queued, two, gap, with_events, no_work] = figures;
        let wanted = [
            ("alone_timed_20us", alone),
            ("alone_less_call_timed_20us", less_call),
            ("queued_timed_20us", queued),
            ("queued_two_timed_20us", two),
            ("gap_timed_20us", gap),
            ("gap_with_events_timed_20us", with_events),
            ("queued_no_work", no_work),
        ];
        costs_are(&Machine::new(file.to_str().expect("text")), wanted);
    }
}

/// The program overwrites its arguments as soon as a launch has returned.
#[test]
fn a_kernel_takes_as_long_as_its_argument_said_when_it_was_launched_and_writes_that_down() {
    let (machine, _file) = machine_with_stamps();
    let told = machine.bare().run("stamps", &["steps", "10", "2000000"]).success();
    assert_eq!((told.value("stamps"), told.value("wrong"), told.value("disorder")), (11, 0, 0), "{told}");
    assert!(told.value("off_ns") < 1000, "events and stamps differ: {told}");
    assert_eq!(machine.truth().device("busy_ns"), told.value("sum_ns"), "{told}");
    // Stamps that no program reads are kept, however many there are.
    let told =
        machine.bare().run_command("sh", &["-c", &format!("echo | {} many 4000 1000", path("stamps"))]);
    let told = told.success();
    assert_eq!((told.value("stamps"), told.value("sum_ns"), told.value("disorder")), (4000, 4_000_000, 0));
}

#[test]
fn every_launch_of_a_graph_stamps_each_of_its_kernels() {
    let (machine, _file) = machine_with_stamps();
    let told = machine.bare().run("stamps", &["graph", "10", "100000"]).success();
    assert_eq!((told.value("stamps"), told.value("sum_ns"), told.value("disorder")), (30, 3_000_000, 0));
    let set = ["set_ns", "next_ns", "set_in_graph_ns"].map(|key| told.value(key));
    assert_eq!(set, [200_000, 100_000, 300_000], "{told}");
    assert_eq!(told.value("copied_by_graph"), 1, "{told}");
}

#[test]
fn every_way_to_launch_reads_the_parameters() {
    let (machine, _file) = machine_with_stamps();
    let told = machine.bare().run("stamps", &["ways", "1", "100000"]).success();
    assert_eq!((told.value("stamps"), told.value("sum_ns")), (7, 700_000), "{told}");
    let told = machine.bare().run("stamps", &["refusals"]).success();
    let invalid_value = 1;
    for key in ["none", "null", "short"] {
        assert_eq!(told.value(key), invalid_value, "{told}");
    }
    assert_eq!((told.value("stamps"), told.value("stamps_too_long")), (0, 0), "{told}");
}

/// Also where a stream copies or clears the log behind the kernel: that happens after the kernel.
#[test]
fn a_stamp_is_there_whenever_the_host_may_look() {
    let (machine, _file) = machine_with_stamps();
    let told = machine.bare().run("stamps", &["looks", "1", "1000000"]).success();
    let ways = ["context", "stream", "event", "stream_query", "event_query", "copied", "copied_later"];
    for way in ways.into_iter().chain(["waited_for", "round"]) {
        assert_eq!(told.value(way), 1, "{way}: {told}");
    }
    assert_eq!(told.value("set"), 0, "{told}");
}

#[test]
fn a_kernel_s_stamps_show_the_time_slices_of_others() {
    const KERNELS: i64 = 100;
    const EACH: i64 = 5_000_000;
    let (machine, _file) = machine_with_stamps();
    let arguments = ["many", &KERNELS.to_string(), &EACH.to_string()];
    let mut both = [machine.bare().start("stamps", &arguments), machine.bare().start("stamps", &arguments)];
    for one in &mut both {
        one.wait_for("ready");
    }
    both.iter_mut().for_each(|one| one.tell("go"));
    let both = both.map(|one| one.finish().success());
    for told in &both {
        assert_eq!((told.value("stamps"), told.value("disorder")), (KERNELS, 0), "{told}");
        // Half of the device, but for time slices that are lost between two kernels.
        assert!(told.value("sum_ns") > KERNELS * EACH * 3 / 2, "{told}");
        assert!(told.value("sum_ns") <= KERNELS * EACH * 2, "{told}");
    }
    let first = both.iter().map(|told| told.value("first_ns")).min().expect("two");
    let last = both.iter().map(|told| told.value("last_ns")).max().expect("two");
    assert!(last - first >= 2 * KERNELS * EACH, "more than the device had time for: {both:?}");
    assert!(last - first < 3 * KERNELS * EACH, "the device stood still: {both:?}");
}

/// Each write to such a socket is a packet of its own.
#[test]
fn what_a_process_is_told_is_one_line_in_one_piece() {
    let machine = Machine::new("H100");
    let (here, there) = UnixDatagram::pair().expect("a pair of sockets");
    here.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let setting = machine.bare().with("CUDA_SIM_STATE", "/nowhere/state");
    let mut command = setting.command(program("door_linked"), &[]);
    command.stderr(OwnedFd::from(there)).stdout(Stdio::null());
    assert!(!command.status().expect("it starts").success());
    let mut packet = [0; 1024];
    let length = here.recv(&mut packet).expect("a packet");
    let told = String::from_utf8_lossy(&packet[..length]);
    assert!(
        told.starts_with("simulated ") && told.ends_with('\n') && told.contains("/nowhere/state"),
        "{told:?}"
    );
}

/// `CUmemLocation`: a type and a number, which counts for a device alone.
#[test]
fn managed_memory_is_sent_to_places_that_there_are_and_to_no_others() {
    const INVALID_VALUE: i64 = 1;
    const INVALID_DEVICE: i64 = 101;
    let machine = Machine::new("2xH100");
    let mut program = machine.bare().start("managed", &[]);
    assert_eq!(program.ask("take 4194304", "rc"), 0);
    for (place, wanted) in [
        ("1 0", 0),
        ("1 1", 0),
        ("2 0", 0),
        ("2 99", 0),
        ("3 0", 0),
        ("4 0", 0),
        ("1 2", INVALID_DEVICE),
        ("1 -1", INVALID_DEVICE),
        ("0 0", INVALID_VALUE),
        ("5 0", INVALID_VALUE),
    ] {
        for order in ["send", "advise"] {
            assert_eq!(program.ask(&format!("{order} {place}"), "rc"), wanted, "{order} {place}");
        }
    }
}

/// Calls every function of the header with bad arguments, in a folder where it may write.
fn call_badly(setting: &gpuquota_promises::Setting<'_>, seed: &str) {
    let scratch = Scratch::new();
    let mut command = setting.command(program("bad_calls"), &[seed]);
    command.current_dir(scratch.path());
    let outcome = Program::start(command).finish().success();
    assert!(outcome.value("functions") > 400 && outcome.value("refusals") > 100_000, "{outcome}");
    assert_eq!(outcome.value("crashes"), 0, "{outcome}");
    assert_eq!(outcome.value("undocumented"), 0, "{outcome}");
}

#[test]
fn every_call_answers_bad_arguments_with_a_documented_error() {
    let machine = Machine::new("H100");
    for seed in ["1", "2", "3"] {
        call_badly(&machine.bare(), seed);
    }
}

#[test]
fn the_same_holds_under_a_quota() {
    let promise = &Promise::to(&["HAMi-core#333"]);
    promise.asserts(|| call_badly(&Machine::new("H100").quota().memory("2GiB").cores(50), "4"));
}
