//! The view: every call that shows the device's memory answers with the slice.

use gpuquota_promises::{GIB, MIB, Machine, Outcome, Program, Promise, Scratch, Setting, twice};
use std::process::Command;
use std::time::Duration;

const CAP: i64 = 2 * GIB;

#[test]
fn the_driver_and_nvml_agree_on_the_slice() {
    let promise = &Promise::to(&["HAMi#1181"]);
    let machine = Machine::new("H100");
    let view = machine.quota().memory(CAP).run("views", &[]).success();
    for total in ["total", "device_total", "nvml_total", "nvml2_total"] {
        assert_eq!(view.value(total), CAP, "{total}: {view}");
    }
    for free in ["nvml_free", "nvml2_free"] {
        assert_eq!(view.value(free), view.value("free"), "{free}: {view}");
    }
    for used in ["nvml_used", "nvml2_used"] {
        promise.asserts(|| assert_eq!(view.value(used), CAP - view.value("free"), "{used}: {view}"));
    }
}

#[test]
fn the_first_answer_is_already_the_slice() {
    let machine = Machine::new("H100");
    let view = machine.quota().memory(CAP).run("views_first", &[]).success();
    assert_eq!(view.value("nvml_total"), CAP);
    assert_eq!(view.value("device_total"), CAP);
    assert_eq!(view.value("nvml_grown"), 64 * MIB);
}

#[test]
fn without_a_quota_the_whole_card_is_seen() {
    let machine = Machine::new("H100");
    let view = machine.bare().run("views", &[]).success();
    let whole = machine.truth().device("total_bytes");
    assert_eq!(view.value("device_total"), whole);
    assert_eq!(view.value("nvml_total"), whole);
}

#[test]
fn a_cap_above_the_card_shows_the_card() {
    let machine = Machine::new("H100");
    let view = machine.quota().memory("900GiB").run("views", &[]).success();
    let whole = machine.truth().device("total_bytes");
    assert_eq!(view.value("total"), whole, "{view}");
    assert_eq!(view.value("nvml_total"), whole, "{view}");
}

#[test]
fn observing_and_off_show_the_whole_card() {
    let machine = Machine::new("H100");
    let bare = machine.bare().run("views", &[]).success();
    for mode in ["observe", "off"] {
        let view = machine.quota().memory(CAP).with("GPUQUOTA_MODE", mode).run("views", &[]).success();
        assert_eq!(view.value("total"), bare.value("total"), "{mode}: {view}");
        assert_eq!(view.value("nvml_total"), bare.value("nvml_total"), "{mode}: {view}");
    }
}

#[test]
fn hami_variables_make_the_same_slice() {
    let machine = Machine::new("H100");
    for name in ["CUDA_DEVICE_MEMORY_LIMIT", "CUDA_DEVICE_MEMORY_LIMIT_0"] {
        let view = machine.quota().with(name, "2g").run("views", &[]).success();
        assert_eq!(view.value("total"), CAP, "{name}: {view}");
        assert_eq!(view.value("nvml_total"), CAP, "{name}: {view}");
    }
}

/// `processes` prints the processes that NVML lists to it, in each layout; here after all others have started.
fn named(mut program: Program) -> Outcome {
    program.tell("go on");
    program.wait_for("graphics");
    program.finish().success()
}

#[test]
fn the_lists_name_the_container_s_processes_by_the_books() {
    let promise = &Promise::to(&["HAMi#1340"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(8 * GIB);
    let mut neighbour = machine.bare().start("processes", &["100"]);
    neighbour.wait_for("pid");
    let mut first = quota.start("processes", &["300"]);
    let mut second = quota.start("processes", &["200"]);
    let mut pids = [first.wait_for("pid"), second.wait_for("pid")];
    let truth = machine.truth();
    let context = truth.device("context_bytes") / 3;
    let mut bytes = [300 * MIB + context, 200 * MIB + context];
    let outcome = named(second);
    for layout in ["v1", "v2", "v3"] {
        let mut seen = outcome.values(&format!("{layout}_pid"));
        let mut held = outcome.values(&format!("{layout}_bytes"));
        seen.sort_unstable();
        held.sort_unstable();
        pids.sort_unstable();
        bytes.sort_unstable();
        promise
            .asserts(|| assert_eq!((&seen[..], &held[..]), (&pids[..], &bytes[..]), "{layout}: {outcome}"));
    }
    // NVML_ERROR_INSUFFICIENT_SIZE, and their number.
    assert_eq!(outcome.values("room"), [7, 7], "{outcome}");
    assert_eq!(outcome.values("count"), [2, 2], "{outcome}");
    assert_eq!(outcome.value("graphics"), 0);
    // The driver itself lists all three, also to a process without a quota.
    assert_eq!(named(neighbour).values("count"), [2, 2], "one has ended");
    named(first);
}

#[test]
fn the_dead_are_not_listed() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(8 * GIB);
    let mut dead = quota.start("processes", &["300"]);
    dead.wait_for("pid");
    let mut alive = quota.start("processes", &["200"]);
    let pid = alive.wait_for("pid");
    dead.kill();
    assert_eq!(named(alive).values("v3_pid"), [pid]);
}

/// A process that has ended and that nobody has waited for yet has a pid, and holds nothing.
#[test]
fn a_zombie_is_not_listed() {
    let promise = &Promise::to(&["nvtop#110"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(8 * GIB);
    let mut zombie = quota.start("processes", &["300"]);
    let dead = zombie.wait_for("pid");
    let mut alive = quota.start("processes", &["200"]);
    let pid = alive.wait_for("pid");
    let killed = Command::new("kill").args(["-KILL", &dead.to_string()]).status();
    assert!(killed.expect("kill runs").success());
    let state = || std::fs::read_to_string(format!("/proc/{dead}/stat")).expect("nobody has waited for it");
    while !state().contains(") Z ") {
        std::thread::sleep(Duration::from_millis(5));
    }
    promise.asserts(|| assert_eq!(named(alive).values("v3_pid"), [pid], "the one that lives"));
}

#[test]
fn utilisation_samples_are_the_container_s_only() {
    let promise = &Promise::to(&["HAMi#601"]);
    let machine = Machine::new("H100");
    let mut neighbour = machine.bare().start("launch_loop", &["busy_5ms", "60"]);
    neighbour.wait_for("ready");
    let quota = machine.quota().memory(8 * GIB);
    let mut own = quota.start("samples", &[]);
    let pid = own.wait_for("pid");
    std::thread::sleep(Duration::from_millis(300));
    own.tell("go on");
    let outcome = own.finish().success();
    // NVML_ERROR_NOT_FOUND: no process of the container has worked, although the neighbour has.
    assert_eq!(outcome.value("idle"), 6, "{outcome}");
    promise.asserts(|| assert_eq!(outcome.values("sample"), [pid], "{outcome}"));
    assert_eq!(outcome.values("info"), [pid], "{outcome}");
    neighbour.kill();
}

/// What a tool reads of the activity on device 0, now.
fn look(setting: &Setting<'_>) -> Outcome {
    let mut tool = setting.start("activity", &[]);
    tool.ask("look", "looked");
    tool.finish().success()
}

const ENGINES: [&str; 6] = ["gpu", "gpu_samples", "memory", "memory_samples", "encoder", "decoder"];

#[test]
fn the_activity_of_a_device_is_the_container_s_own() {
    let promise = &Promise::to(&["dcgm-exporter#642"]);
    let machine = Machine::new("H100");
    let mut neighbour = machine.bare().start("launch_loop", &["busy_5ms", "60"]);
    neighbour.wait_for("ready");
    std::thread::sleep(Duration::from_millis(500));
    let bare = look(&machine.bare());
    assert!(bare.value("gpu") >= 90 && bare.value("gpu_samples") >= 90, "the neighbour works: {bare}");
    // A limit of memory, or one of time alone: in both cases another's work is none of the container's.
    for quota in [machine.quota().memory(CAP), machine.quota().cores(30)] {
        // A process that does nothing, and one that has ended.
        let mut idle = quota.start("hold", &[]);
        idle.wait_for("pid");
        quota.run("launch_loop", &["busy_1ms", "0.1"]).success();
        std::thread::sleep(Duration::from_millis(1200));
        let seen = look(&quota);
        for engine in ENGINES {
            promise.asserts(|| assert_eq!(seen.value(engine), 0, "{engine}: {seen}"));
        }
    }
    // The whole device's, where no limit binds.
    let observed = look(&machine.quota().memory(CAP).with("GPUQUOTA_MODE", "observe"));
    let unlimited = look(&machine.quota());
    for whole in [observed, unlimited] {
        assert!(whole.value("gpu") >= 90, "{whole}");
    }
    neighbour.kill();
}

/// Two processes of the container do a quarter of the device's time each, beside a neighbour that never rests.
#[test]
fn the_activity_shown_is_near_the_truth_and_never_above_all() {
    let promise = &Promise::to(&["HAMi#601"]);
    let kept = twice(|| {
        let machine = Machine::new("H100");
        let mut neighbour = machine.bare().start("launch_loop", &["busy_5ms", "60"]);
        neighbour.wait_for("ready");
        let quota = machine.quota().memory(CAP);
        let mut own = [0, 1].map(|_| quota.start("launch_loop", &["busy_1ms", "60", "plain", "1"]));
        let pids: Vec<_> = own.iter_mut().map(|one| one.wait_for("ready")).collect();
        let mut tool = quota.start("activity", &[]);
        std::thread::sleep(Duration::from_millis(1000));
        let before = machine.truth();
        let mut shown = Vec::new();
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(200));
            shown.push(tool.ask("look", "gpu"));
        }
        let after = machine.truth();
        let busy = after.busy_ns_of(&pids) - before.busy_ns_of(&pids);
        let truth = 100 * busy / (after.clock_ns() - before.clock_ns());
        let mean = shown.iter().sum::<i64>() / shown.len() as i64;
        promise.asserts(|| assert!(shown.iter().all(|percent| (0..=100).contains(percent)), "{shown:?}"));
        neighbour.kill();
        let near = (mean - truth).abs() <= 10 && (10..90).contains(&truth);
        ((truth, shown), near)
    });
    assert_eq!(kept, Ok(()), "truth, and what was shown");
}

#[test]
fn the_window_to_the_device_s_memory_is_the_slice_s() {
    let machine = Machine::new("H100");
    let bare = look(&machine.bare());
    assert!(bare.value("bar1_total") > CAP && bare.value("bar1_used") > 0, "{bare}");
    let quota = machine.quota().memory(CAP);
    let idle = look(&quota);
    assert_eq!((idle.value("bar1_total"), idle.value("bar1_used")), (CAP, 0), "nothing is in use: {idle}");
    let mut own = quota.start("hold", &[]);
    own.wait_for("pid");
    let seen = look(&quota);
    let sum = seen.value("bar1_used") + seen.value("bar1_free");
    assert_eq!((seen.value("bar1_total"), sum), (CAP, CAP), "{seen}");
    let whole = look(&machine.quota().memory("900GiB"));
    assert_eq!(whole.value("bar1_total"), machine.truth().device("total_bytes"), "{whole}");
}

/// Where NVML gives fewer figures, the view shows the slice all the same, and leaves unknown figures unknown.
#[test]
fn a_device_with_fewer_figures_shows_its_slice() {
    for profile in ["consumer", "vgpu"] {
        let scratch = Scratch::new();
        let file =
            scratch.file("machine.toml", format!("nvml = \"{profile}\"\n[[device]]\nlike = \"H100\"\n"));
        let machine = Machine::new(file.to_str().expect("text"));
        let quota = machine.quota().memory(CAP);
        let view = quota.run("views", &[]).success();
        assert_eq!((view.value("total"), view.value("nvml_total")), (CAP, CAP), "{profile}: {view}");
        let mut lists = quota.start("processes", &[]);
        let pid = lists.wait_for("pid");
        lists.tell("look");
        if profile == "vgpu" {
            assert_eq!(lists.wait_for("room"), 3, "the driver's answer stands");
        } else {
            lists.wait_for("graphics");
            assert_eq!(lists.finish().success().values("v3_pid"), [pid]);
        }
    }
}

/// The driver remembers processes that ended. The library shows a container its own living processes only.
#[test]
fn accounting_shows_the_container_s_processes_only() {
    let scratch = Scratch::new();
    let file = scratch.file("machine.toml", "[[device]]\nlike = \"H100\"\naccounting = true\n");
    let machine = Machine::new(file.to_str().expect("text"));
    let mut ended = machine.bare().start("accounting", &["500"]);
    let ended_pid = ended.wait_for("pid");
    std::thread::sleep(Duration::from_millis(20));
    ended.tell("look");
    ended.finish().success();
    let mut bare = machine.bare().start("accounting", &["300"]);
    let pid = bare.wait_for("pid");
    bare.tell("look");
    let told = bare.finish().success();
    assert_eq!((told.value("mode"), told.value("room")), (1, 7), "{told}");
    assert_eq!((told.values("named"), told.values("runs")), (vec![ended_pid, pid], vec![0, 1]), "{told}");
    assert_eq!(told.values("most"), [(500 + 512) * MIB, (300 + 512) * MIB], "{told}");
    assert!(told.values("lived")[0] >= 20 && told.values("lived")[1] == 0, "milliseconds: {told}");
    let quota = machine.quota().memory(2 * GIB);
    let mut own = quota.start("accounting", &["100"]);
    let pid = own.wait_for("pid");
    own.tell("look");
    assert_eq!(own.finish().success().values("named"), [pid]);
}

/// NVML_ERROR_NOT_SUPPORTED is the simulated device's answer, NVML_ERROR_NO_PERMISSION ours.
#[test]
fn settings_of_a_shared_device_cannot_be_changed_under_a_quota() {
    let machine = Machine::new("H100");
    assert_eq!(machine.bare().run("settings", &[]).success().values("answer"), [3, 3, 3]);
    assert_eq!(machine.quota().memory(CAP).run("settings", &[]).success().values("answer"), [4, 4, 4]);
    let observed = machine.quota().memory(CAP).with("GPUQUOTA_MODE", "observe").run("settings", &[]);
    assert_eq!(observed.success().values("answer"), [3, 3, 3]);
}
