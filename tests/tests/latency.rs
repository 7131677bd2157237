//! What calls, front ends and switches between processes take on the simulated device: as long as on a card, where the machine
//! is not ideal. Figures without another source are those of an H200 with driver 580.159.04, 2026-11-27.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gpuquota_promises::{Machine, Outcome, Program, Scratch, Setting, artifact, program};

/// Held by whoever measures: the host is theirs, as far as this file can see to it.
fn quiet() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is measured is measured until it is right: an attempt answers its figures, and whether they are.
#[track_caller]
fn comes_out<T: std::fmt::Debug>(attempt: impl Fn() -> (T, bool)) {
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (figures, right) = attempt();
        seen.push(figures);
        if right {
            return;
        }
    }
    panic!("{seen:.1?}");
}

/// A figure is right within a twentieth.
fn near(seen: f64, wanted: f64) -> bool {
    (seen - wanted).abs() <= wanted / 20.0
}

/// Starts `launch_loop` for a minute, and answers once it launches.
fn looping(machine: &Machine, arguments: &[&str]) -> Program {
    let mut program = machine.bare().start("launch_loop", arguments);
    program.wait_for("ready");
    program
}

/// How busy the device is with these loops, in percent of its time.
fn busy(machine: &Machine, loops: &[&[&str]]) -> f64 {
    let running: Vec<_> = loops.iter().map(|arguments| looping(machine, arguments)).collect();
    let busy = machine.busy_percent(0, Duration::from_secs(1));
    for program in running {
        program.kill();
    }
    busy
}

const AHEAD: &[&str] = &["step_50us", "60", "plain", "400"];

/// What `stamps` says of each of the loops with these arguments, which begin together.
fn stamped(setting: &Setting<'_>, loops: &[&[&str]]) -> Vec<Outcome> {
    let start = |arguments: &&[&str]| setting.start("stamps", arguments);
    let mut all: Vec<_> = loops.iter().map(start).collect();
    for one in &mut all {
        one.wait_for("ready");
    }
    all.iter_mut().for_each(|one| one.tell("go"));
    all.into_iter().map(|one| one.finish().success()).collect()
}

/// From the end of a kernel to the begin of the next one of the same process lie two switches and the other's kernel. Where a
/// busy host holds one of them up, the other has the device alone, and its gaps are short.
#[test]
fn two_processes_that_wait_for_each_kernel_pay_a_switch_for_each() {
    let _quiet = quiet();
    let (machine, _file) = with_stamps();
    comes_out(|| {
        let waits: &[&str] = &["turns", "3000", "50000"];
        let all = stamped(&machine.bare(), &[waits, waits]);
        let seen: Vec<_> = all.iter().map(|told| (told.value("stop_ns"), told.value("stops"))).collect();
        let right = |(stop, stops): &(i64, i64)| near(*stop as f64, 2.0 * 137e3 + 50e3) && *stops > 300;
        let all_right = seen.iter().all(right);
        (seen, all_right)
    });
}

#[test]
fn processes_that_always_have_work_take_turns_and_lose_a_switch_for_each() {
    let _quiet = quiet();
    for count in [2, 3] {
        let machine = Machine::of_the_field("H200", &[]);
        comes_out(|| {
            let busy = busy(&machine, &vec![AHEAD; count]);
            // The gap between two kernels is lost as well.
            (busy, near(busy, 100.0 * 2091.0 / (2091.0 + 152.6) * 50.0 / 51.3))
        });
    }
}

/// A kernel in progress is stopped and goes on later, so its begin and its end lie as far apart as the others' slices.
#[test]
fn a_long_kernel_is_stopped_for_the_slices_of_the_others_and_the_switches() {
    let _quiet = quiet();
    for count in [1, 2, 3] {
        let (machine, _file) = with_stamps();
        comes_out(|| {
            let kernel: &[&str] = &["many", "1", "200000000"];
            let told = stamped(&machine.bare(), &vec![kernel; count]);
            let all: Vec<_> = told.iter().map(|told| told.value("sum_ns")).collect();
            let round = if count == 1 { 2091.0 } else { count as f64 * (2091.0 + 152.6) };
            let right = all.iter().all(|ns| near(*ns as f64, 200e6 * round / 2091.0));
            (all, right)
        });
    }
}

#[test]
fn a_process_keeps_its_slice_while_it_has_work_queued() {
    let _quiet = quiet();
    let (machine, _file) = with_stamps();
    comes_out(|| {
        let all = stamped(&machine.bare(), &[&["turns", "300", "10000"], &["many", "4000", "200000"]]);
        let seen = (all[0].value("stop_ns"), all[0].value("stops"));
        (seen, near(seen.0 as f64, (137.0 + 2091.0 + 152.6) * 1e3) && seen.1 > 100)
    });
}

#[test]
fn alone_a_process_pays_for_no_switch() {
    let _quiet = quiet();
    let (machine, _file) = with_stamps();
    comes_out(|| {
        let gap = |arguments: &[&str]| stamped(&machine.bare(), &[arguments])[0].value("gap_ns");
        let seen = (gap(&["turns", "3000", "50000"]), gap(&["many", "1000", "50000"]));
        // On the card 8.6 us where the host waits, 1.3 us where it is ahead.
        (seen, (8300..11_000).contains(&seen.0) && seen.1 == 1312)
    });
}

/// The figures of the GPU kit's `costs` are no lower than those that it wrote down on the card (bench/runs, costs.toml). The
/// simulator's own work comes on top, and whatever else the host does.
#[test]
fn a_process_needs_as_long_to_its_first_kernels_as_on_the_card() {
    let _quiet = quiet();
    let machine = Machine::of_the_field("H200", &[]);
    for (subject, wanted) in [
        (
            "start",
            &[
                ("init_ns", 101_266_230.0),
                ("context_ns", 108_623_972.0),
                ("module_load_ns", 609_633.0),
                ("first_launch_ns", 28_043.0),
                ("second_launch_ns", 3520.0),
                ("other_first_launch_ns", 7700.0),
            ][..],
        ),
        (
            "calls",
            &[
                ("launch_idle_p50_ns", 3520.0),
                ("timed_20us_and_wait_p50_ns", 28_662.0),
                ("event_record_p50_ns", 1044.0),
                ("event_query_p50_ns", 316.0),
                ("ctx_synchronize_idle_p50_ns", 552.0),
                ("mem_get_info_p50_ns", 5480.0),
            ],
        ),
        ("memory", &[("alloc_2MiB_p50_ns", 40_053.0), ("free_64MiB_p50_ns", 91_356.0)]),
    ] {
        // What disturbs a measurement makes it longer.
        let told: Vec<_> = (0..5).map(|_| machine.bare().run("costs", &[subject]).success()).collect();
        for (key, wanted) in wanted {
            let least = told.iter().map(|told| told.value(key)).min().expect("five") as f64;
            let range = wanted * 0.95..3.0 * wanted + 20_000.0;
            assert!(range.contains(&least), "{key}: {least} instead of {wanted}: {told:?}");
        }
    }
    let none = Machine::new("H200").bare().run("costs", &["start"]).success();
    assert!(none.value("context_ns") < 20_000_000, "an ideal machine takes time: {none}");
}

/// What `latencies` says of each call on each device: on the first one 20 ms by its own table, on the second one 5 ms by the
/// machine's.
#[test]
fn what_calls_take_is_what_they_take_on_their_device() {
    let _quiet = quiet();
    let table = |time: &str| {
        let keys =
            "context module allocate memory_info function_launch record query synchronize free processes";
        let lines: Vec<_> = keys.split(' ').map(|key| format!("{key} = \"{time}\"")).collect();
        lines.join("\n")
    };
    let (machine, _file) = from_file(&format!(
        "ideal = true\n[latency]\n{}\ninit = \"1ms\"\n[[device]]\nlike = \"H100\"\n[device.latency]\n{}\n\
         module_launch = \"20ms\"\nlaunch = \"4ms\"\n[[device]]\nlike = \"T4\"",
        table("5ms"),
        table("20ms"),
    ));
    // Whichever context is current.
    for arguments in [&[][..], &["elsewhere"]] {
        let told: Vec<_> = (0..3).map(|_| machine.bare().run("latencies", arguments).success()).collect();
        for (call, wanted) in [
            ("context", [20, 5]),
            ("module", [20, 5]),
            ("allocate", [20, 5]),
            ("memory_info", [20, 5]),
            ("first_launch", [44, 5]),
            ("launch", [4, 0]),
            ("library_launch", [44, 5]),
            ("synchronize", [20, 5]),
            ("record", [20, 5]),
            ("query", [20, 5]),
            ("stream_query", [20, 5]),
            ("free", [20, 5]),
            ("processes", [20, 5]),
        ] {
            for (device, wanted) in wanted.into_iter().enumerate() {
                let key = format!("{call}_{device}");
                let took = told.iter().map(|told| told.value(&key)).min().expect("three");
                let range = 1000 * wanted..1000 * wanted + 3000;
                assert!(range.contains(&took), "{key}: {took} instead of {wanted} ms: {told:?}");
            }
        }
    }
}

#[test]
fn devices_of_different_kinds_take_what_is_usual_on_each_of_them() {
    let _quiet = quiet();
    let (machine, _file) = from_file("[[device]]\nlike = \"T4\"\n[[device]]\nlike = \"H100\"");
    let (one_ideal, _file) =
        from_file("[[device]]\nlike = \"T4\"\n[[device]]\nlike = \"H100\"\nideal = true");
    let contexts = |machine: &Machine| {
        let told: Vec<_> = (0..3).map(|_| machine.bare().run("latencies", &[]).success()).collect();
        ["context_0", "context_1"].map(|key| told.iter().map(|told| told.value(key)).min().expect("three"))
    };
    comes_out(|| {
        let seen = contexts(&machine);
        (seen, seen[0].abs_diff(108_624) < 2000 && seen[1].abs_diff(101_412) < 2000)
    });
    let seen = contexts(&one_ideal);
    assert!(seen[0] > 108_000 && seen[1] < 20_000, "{seen:?}");
}

/// Kernels of 1 ms, five on each device, of which one lets 100 ms pass between two. The same in a graph, on one device after
/// the other.
#[test]
fn the_front_end_of_a_device_does_not_delay_another_one() {
    let _quiet = quiet();
    for gaps in [["100ms", "0ms"], ["0ms", "100ms"]] {
        let [first, second] = gaps.map(|gap| format!("[[device]]\nlike = \"T4\"\nlatency.gap = \"{gap}\""));
        let (machine, _file) = from_file(&format!("ideal = true\n{first}\n{second}"));
        comes_out(|| {
            let told = machine.bare().run("latencies", &[]).success();
            // The last device is waited for first.
            let seen = ["kernels_0", "kernels_1", "graph_0", "graph_1"].map(|key| told.value(key));
            // The first kernel may lie behind one of before.
            let long = seen.map(|us| (404_000..525_000).contains(&us));
            let short = seen.map(|us| (5000..25_000).contains(&us));
            let right = match gaps[0] {
                "100ms" => long[0] && short[1] && long[2] && short[3],
                _ => long[0] && long[1] && short[2] && long[3],
            };
            (seen, right)
        });
    }
}

#[test]
fn a_list_of_processes_takes_longer_with_each_of_them() {
    let _quiet = quiet();
    let times = "nvml_init = \"20ms\"\nprocesses = \"2ms\"\neach_process = \"1ms\"";
    let (machine, _file) = from_file(&format!("ideal = true\n[[device]]\nlike = \"T4\"\n[latency]\n{times}"));
    let told = |processes: i64| {
        let told = machine.bare().run("lists", &[]).success();
        assert_eq!(told.value("processes"), processes, "{told}");
        assert!((20_000..30_000).contains(&told.value("init_us")), "{told}");
        let list = told.value("list_us") - 2000 - 1000 * processes;
        assert!((0..2000).contains(&list), "{told}");
    };
    let mut held: Vec<_> = (0..7).map(|_| machine.bare().start("hold", &[])).collect();
    for one in &mut held {
        one.wait_for("pid");
    }
    told(8);
    drop(held);
    told(1);
}

/// Two kernels of 10 ms in each stream, stream after stream: where streams share a queue, a kernel does not begin before the
/// one that was put there earlier, and that one waits for the kernel before it in its stream.
#[test]
fn streams_that_share_a_queue_wait_for_each_other() {
    let _quiet = quiet();
    let machine = Machine::of_the_field("H200", &[]);
    for (streams, connections, queued) in
        [(7, None, 1), (16, None, 2), (4, Some("1"), 4), (16, Some("32"), 1)]
    {
        comes_out(|| {
            let mut setting = machine.bare();
            if let Some(connections) = connections {
                setting = setting.with("CUDA_DEVICE_MAX_CONNECTIONS", connections);
            }
            let took = setting.run("queues", &[&streams.to_string()]).success().value("took_us") as f64;
            (took, near(took, 10_000.0 * f64::from(queued + 1)))
        });
    }
    let told = Machine::new("H200").bare().run("queues", &["40"]).success();
    assert!(told.value("took_us") < 30_000, "streams of an ideal machine share queues: {told}");
}

/// Two kernels of 10 ms in each of four streams, as above, on devices of one machine.
#[test]
fn each_device_has_its_own_queues() {
    let _quiet = quiet();
    let (machine, _file) = from_file(
        "ideal = true\nconnections = 2\n[[device]]\nlike = \"T4\"\nconnections = 1\n[[device]]\nlike = \"T4\"\n\
         [[device]]\nlike = \"T4\"\nconnections = 32",
    );
    for (device, queued) in [("0", 4), ("1", 2), ("2", 1)] {
        comes_out(|| {
            let setting = machine.bare().with("CUDA_VISIBLE_DEVICES", device);
            let took = setting.run("queues", &["4"]).success().value("took_us") as f64;
            (took, near(took, 10_000.0 * f64::from(queued + 1)))
        });
    }
}

/// As `two_processes_that_wait_for_each_kernel_pay_a_switch_for_each`, on devices of one machine.
#[test]
fn each_device_has_its_own_cost_of_a_switch() {
    let _quiet = quiet();
    let rule = "[[kernel]]\npattern = \"work_*\"\nduration = \"1ns\"\nargument = 0\nstamps = 1";
    let (machine, _file) = from_file(&format!(
        "ideal = true\n[latency]\nswitch = \"300us\"\n[[device]]\nlike = \"T4\"\nlatency.switch = \"1ms\"\n\
         [[device]]\nlike = \"T4\"\n{rule}"
    ));
    for (device, switch) in [("0", 1e6), ("1", 3e5)] {
        comes_out(|| {
            let waits: &[&str] = &["turns", "200", "1000000"];
            let all = stamped(&machine.bare().with("CUDA_VISIBLE_DEVICES", device), &[waits, waits]);
            let seen: Vec<_> = all.iter().map(|told| told.value("stop_ns")).collect();
            let all_right = seen.iter().all(|stop| near(*stop as f64, 2.0 * switch + 1e6));
            (seen, all_right)
        });
    }
}

#[test]
fn an_event_that_nothing_is_before_is_over_at_once() {
    let _quiet = quiet();
    for machine in [Machine::new("H200"), Machine::of_the_field("H200", &[])] {
        let told = machine.bare().run("queues", &["2"]).success();
        assert_eq!(told.values("begun"), [0], "{told}");
        assert_eq!(told.value("begun_before_the_kernel_is_over"), 0, "{told}");
    }
}

#[test]
fn handles_are_dealt_out_again_where_the_machine_file_says_so() {
    let _quiet = quiet();
    for (handles, same) in [("checked", 0), ("reused", 1)] {
        let (machine, _file) = from_file(&format!("handles = \"{handles}\"\n[[device]]\nlike = \"T4\""));
        let told = machine.bare().run("queues", &["2"]).success();
        assert_eq!((told.value("same_event"), told.value("same_stream")), (same, same), "{handles}: {told}");
    }
}

/// The same machine does the same again: what its jitter is comes from its seed.
#[test]
fn times_vary_by_their_jitter_and_by_no_more() {
    let _quiet = quiet();
    let context = |seed: u32| {
        let text = format!(
            "ideal = true\n[[device]]\nlike = \"H200\"\n[latency]\ncontext = \"100ms\"\njitter = 0.5\nseed = {seed}"
        );
        let (machine, _file) = from_file(&text);
        machine.bare().run("costs", &["start"]).success().value("context_ns") as f64 / 1e6
    };
    comes_out(|| {
        let seen = [1, 1, 2, 3].map(context);
        let different = (seen[0] - seen[2]).abs() + (seen[0] - seen[3]).abs() > 2.0;
        let within = seen.iter().all(|ms| (50.0..155.0).contains(ms));
        (seen, different && within && (seen[0] - seen[1]).abs() < 1.0)
    });
}

/// `cuda-sim run` on an ideal H100 with these options.
fn run(options: &[&str], command: &[&str]) -> Outcome {
    let mut launcher = Command::new(artifact("cuda-sim"));
    launcher.args(["run", "H100", "--ideal"]).args(options).arg("--").args(command);
    Program::start(launcher).finish()
}

#[test]
fn a_cpu_quota_stops_a_program_for_half_of_the_time() {
    let _quiet = quiet();
    let spin = "x=0; while [ $x -lt 300000 ]; do x=$((x+1)); done; sleep 0.01";
    comes_out(|| {
        let took = |options: &[&str]| {
            let from = Instant::now();
            run(options, &["sh", "-c", spin]).success();
            from.elapsed().as_secs_f64()
        };
        let (free, stopped) = (took(&[]), took(&["--cpu-quota", "50ms/100ms"]));
        ((free, stopped), stopped > 1.5 * free && stopped < 2.6 * free + 0.1)
    });
    let outcome = run(&["--cpu-quota", "20ms/100ms"], &["sh", "-c", "kill -TERM $$"]);
    assert_eq!(outcome.status.to_string(), "signal: 15 (SIGTERM)");
    assert_eq!(run(&["--cpu-quota", "20ms/100ms"], &["sh", "-c", "exit 42"]).status.code(), Some(42));
}

#[test]
fn calls_are_held_up_at_random() {
    let _quiet = quiet();
    let loops = program("launch_loop");
    let loops = [loops.to_str().expect("text"), "step_1us", "1", "plain", "1"];
    let launches = |options: &[&str]| run(options, &loops).success().value("launches");
    comes_out(|| {
        // Each round has two calls; of ten calls one is held up by 4 ms, so that a round takes 0.8 ms.
        let seen = launches(&["--delay", "3ms..5ms", "--delay-one-in", "10"]);
        (seen, (1000..1450).contains(&seen))
    });
    assert!(launches(&[]) > 10_000);
}

/// A machine of this file that takes time as a card does, and the folder of its file.
fn from_file(text: &str) -> (Machine, Scratch) {
    let scratch = Scratch::new();
    let file = scratch.file("machine.toml", text);
    (Machine::of_the_field(file.to_str().expect("text"), &[]), scratch)
}

/// The same whose kernels write down when they ran.
fn with_stamps() -> (Machine, Scratch) {
    let rule = "[[kernel]]\npattern = \"work_*\"\nduration = \"1ns\"\nargument = 0\nstamps = 1";
    from_file(&format!("[[device]]\nlike = \"H200\"\n{rule}"))
}
