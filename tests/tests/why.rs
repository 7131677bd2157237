//! `gpuquota why`: each answer is held against what the machine was told to do.

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use gpuquota_promises::{
    Agent, GIB, MIB, Machine, OUT_OF_MEMORY, Outcome, Program, Promise, Scratch, Setting, artifact,
};
use serde_json::Value;

/// Where a tool gets its figures.
enum By<'a> {
    Agent(&'a Agent),
    Itself(&'a Machine),
}

fn tool(by: &By<'_>, arguments: &[&str], home: &Path) -> Outcome {
    let mut command = match by {
        By::Agent(agent) => {
            let mut command = Command::new(artifact("gpuquota"));
            command.args(arguments).arg("--agent").arg(agent.address().to_string());
            command
        }
        By::Itself(machine) => {
            let mut command = machine.bare().command(artifact("gpuquota"), arguments);
            command.arg("--root").arg(home);
            command
        }
    };
    command.env_remove("GPUQUOTA_AGENT");
    Program::start(command).finish()
}

/// The container's name, as the tools tell it without an engine.
fn name(quota: &Setting<'_>) -> String {
    quota.region().file_stem().expect("a name").to_str().expect("UTF-8").to_owned()
}

fn asked(quota: &Setting<'_>, by: &By<'_>) -> Vec<Value> {
    let told = tool(by, &["why", &name(quota), "--json"], quota.home()).success();
    let json: Value = serde_json::from_str(&told.out).expect("JSON");
    json["answers"].as_array().expect("answers").clone()
}

/// Asks until the answer with this code is there; other answers may be there too, and none of `never`.
#[track_caller]
fn answer(quota: &Setting<'_>, by: &By<'_>, code: &str, never: &[&str]) -> String {
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        let answers = asked(quota, by);
        let found = answers.iter().find(|answer| answer["code"] == code);
        if let Some(found) = found {
            let wrong = answers.iter().find(|answer| never.iter().any(|never| answer["code"] == *never));
            assert_eq!(wrong, None, "{answers:#?}");
            let next = found["next"].as_str().expect("a next step");
            assert!(!next.is_empty());
            return format!("{} {next}", found["says"].as_str().expect("a sentence"));
        }
        assert!(Instant::now() < until, "{code} is not among {answers:#?}");
        sleep(Duration::from_millis(100));
    }
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}

fn agent(machine: &Machine, homes: &[&Path]) -> Agent {
    Agent::on(machine, homes)
}

const REFUSALS: [&str; 5] = ["GQ301", "GQ302", "GQ303", "GQ304", "GQ305"];

fn but(code: &str) -> Vec<&'static str> {
    REFUSALS.into_iter().filter(|other| *other != code).collect()
}

/// By an agent and without one.
fn by_both(machine: &Machine, quota: &Setting<'_>, look: impl Fn(&By<'_>)) {
    look(&By::Itself(machine));
    look(&By::Agent(&agent(machine, &[quota.home()])));
}

#[test]
fn a_request_above_the_cap_is_refused_by_the_cap() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("4GiB");
    let mut program = quota.start("hold", &[]);
    program.wait_for("pid");
    assert_eq!(program.ask(&format!("alloc {}", 5 * GIB), "rc"), OUT_OF_MEMORY);
    by_both(&machine, &quota, |by| {
        let says = answer(&quota, by, "GQ301", &but("GQ301"));
        has(&says, &["5.00 GiB", "of 4.00 GiB", "1 refusal so far", "alone it is more than the limit"]);
    });
    program.finish().success();
}

#[test]
fn a_process_that_has_filled_the_cap_itself_is_told_what_it_holds() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("4GiB");
    let mut program = quota.start("hold", &[]);
    program.wait_for("pid");
    assert_eq!(program.ask(&format!("alloc {}", 3 * GIB), "rc"), 0);
    assert_eq!(program.ask(&format!("alloc {GIB}"), "rc"), OUT_OF_MEMORY);
    by_both(&machine, &quota, |by| {
        let says = answer(&quota, by, "GQ301", &but("GQ301"));
        has(&says, &["The process itself held 3.", "gpuquota limit", "--memory "]);
    });
    program.finish().success();
}

#[test]
fn a_request_that_others_left_no_room_for_names_them_and_a_limit_that_is_enough() {
    let promise = &Promise::to(&["HAMi#1522"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("4GiB");
    let mut holder = quota.start("hold", &[]);
    let pid = holder.wait_for("pid");
    assert_eq!(holder.ask(&format!("alloc {}", 5 * GIB / 2), "rc"), 0);
    let mut asker = quota.start("hold", &[]);
    asker.wait_for("pid");
    assert_eq!(asker.ask(&format!("alloc {GIB}"), "rc"), OUT_OF_MEMORY);
    by_both(&machine, &quota, |by| {
        let says = answer(&quota, by, "GQ302", &but("GQ302"));
        let words = [&format!("process {pid} alone"), "most of it allocations", "was refused 1.00 GiB"];
        promise.asserts(|| has(&says, &words));
    });
    let says = answer(&quota, &By::Itself(&machine), "GQ302", &[]);
    let limit = says.rsplit("--memory ").next().expect("a limit");
    quota.limit(&["--memory", limit]).success();
    assert_eq!(asker.ask(&format!("alloc {GIB}"), "rc"), 0, "the limit that it says is enough: {says}");
    holder.finish().success();
    asker.finish().success();
}

#[test]
fn a_context_that_finds_no_room_is_told_as_one() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("1200MiB");
    let first = ["a", "b"].map(|_| {
        let mut program = quota.start("hold", &[]);
        program.wait_for("pid");
        program
    });
    let third = quota.run("hold", &[]);
    assert!(!third.status.success(), "a third context does not fit: {third}");
    by_both(&machine, &quota, |by| {
        let says = answer(&quota, by, "GQ303", &but("GQ303"));
        has(&says, &["It was for a context", "in 2 processes"]);
    });
    for program in first {
        program.finish().success();
    }
}

#[test]
fn a_card_that_is_full_is_told_where_the_limit_would_allow_more() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("40GiB");
    let mut outsider = machine.bare().start("hold", &[]);
    outsider.wait_for("pid");
    let mut program = quota.start("hold", &[]);
    program.wait_for("pid");
    by_both(&machine, &quota, |by| {
        assert!(!asked(&quota, by).iter().any(|answer| answer["code"] == "GQ304"));
    });
    let left = 80 * GIB - machine.truth().device("physical_bytes");
    assert_eq!(outsider.ask(&format!("alloc {}", left - 64 * MIB), "rc"), 0);
    assert_eq!(program.ask(&format!("alloc {GIB}"), "rc"), OUT_OF_MEMORY);
    by_both(&machine, &quota, |by| {
        let says = answer(&quota, by, "GQ304", &but("GQ304"));
        has(&says, &["of 80.00 GiB left", "could have 39."]);
        has(&answer(&quota, by, "GQ316", &[]), &["1 process without a quota", "(hold)"]);
    });
    program.finish().success();
    outsider.finish().success();
}

#[test]
fn a_container_that_its_share_slows_down_is_told_so_with_the_share() {
    let machine = Machine::new("H100");
    // Nobody lends it what is idle, whatever agent runs here.
    let quota = machine.quota().cores(20).with("GPUQUOTA_POLICY", "fixed-share");
    let mut program = quota.start("launch_loop", &["busy_5ms", "60"]);
    program.wait_for("ready");
    by_both(&machine, &quota, |by| {
        has(&answer(&quota, by, "GQ311", &["GQ312", "GQ330"]), &["In the last ", "share, which is 20%"]);
    });
    program.kill();
}

#[test]
fn a_container_that_neighbours_slow_down_is_told_who_they_are() {
    let machine = Machine::new("H100");
    let [own, other] = [30, 70].map(|cores| machine.quota().cores(cores));
    let agent = agent(&machine, &[own.home(), other.home()]);
    let running = [&own, &other].map(|quota| {
        let mut program = quota.start("launch_loop", &["busy_5ms", "60"]);
        program.wait_for("ready");
        program
    });
    let says = answer(&own, &By::Agent(&agent), "GQ312", &["GQ330"]);
    has(&says, &["because other containers had the card", &name(&other), "a share of 70%"]);
    for program in running {
        program.kill();
    }
}

#[test]
fn a_container_that_nothing_hinders_and_one_without_limits_are_told_so() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("4GiB");
    let mut program = quota.start("hold", &[]);
    program.wait_for("pid");
    assert_eq!(program.ask(&format!("alloc {GIB}"), "rc"), 0);
    by_both(&machine, &quota, |by| {
        has(&answer(&quota, by, "GQ330", &REFUSALS), &["No request was refused"]);
    });
    quota.limit(&["--memory", "2GiB"]).success();
    assert_eq!(program.ask(&format!("alloc {GIB}"), "rc"), OUT_OF_MEMORY);
    answer(&quota, &By::Itself(&machine), "GQ301", &["GQ330"]);
    program.finish().success();

    let free = machine.quota();
    let mut program = free.start("hold", &[]);
    program.wait_for("pid");
    by_both(&machine, &free, |by| {
        has(&answer(&free, by, "GQ321", &["GQ330"]), &["None of its 1 device has a limit"]);
    });
    program.finish().success();
}

#[test]
fn a_container_whose_limits_are_observed_is_told_what_they_would_do() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("2GiB").with("GPUQUOTA_MODE", "observe");
    let mut program = quota.start("hold", &[]);
    program.wait_for("pid");
    assert_eq!(program.ask(&format!("alloc {}", 3 * GIB), "rc"), 0);
    by_both(&machine, &quota, |by| {
        has(&answer(&quota, by, "GQ326", &REFUSALS), &["1 request would have been refused"]);
    });
    program.finish().success();
}

#[test]
fn a_container_without_a_living_process_is_told_so() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("4GiB");
    quota.start("hold", &[]).finish().success();
    by_both(&machine, &quota, |by| {
        has(&answer(&quota, by, "GQ323", &[]), &["No living process", "gpuquota doctor -- COMMAND"]);
    });
}

#[test]
fn a_process_without_the_library_is_named() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("4GiB");
    let mut inside = {
        let inner = quota.command(gpuquota_promises::program("hold"), &[]);
        let mut command = Command::new("unshare");
        // The shell would give the one behind an empty input.
        let more = "exec 3<&0; env -u LD_PRELOAD \"$0\" <&3 & exec \"$0\"";
        command.args(["--mount"]).arg(inner.get_program());
        let arguments: Vec<_> = inner.get_args().collect();
        let (program, variables) = arguments.split_last().expect("a program");
        command.args(variables).args(["sh", "-c", more]).arg(program);
        Program::start(command)
    };
    inside.wait_for("pid");
    inside.wait_for("pid");
    by_both(&machine, &quota, |by| {
        has(
            &answer(&quota, by, "GQ322", &["GQ330"]),
            &["1 process of the container at the card is not held", "(hold)"],
        );
    });
    inside.finish().success();
}

#[test]
fn a_card_that_is_lost_is_told() {
    let scratch = Scratch::new();
    let file =
        "[[device]]\nlike = \"H100\"\ncount = 2\n[[fault]]\ncall = \"cuMemAlloc\"\nnth = 2\nlost = 0\n";
    let machine = Machine::new(scratch.file("lost.toml", file).to_str().expect("UTF-8"));
    let quota = machine.quota().memory("4GiB");
    let mut program = quota.start("hold", &[]);
    program.wait_for("pid");
    let agent = agent(&machine, &[quota.home()]);
    program.ask(&format!("alloc {MIB}"), "rc");
    assert!(!asked(&quota, &By::Agent(&agent)).iter().any(|answer| answer["code"] == "GQ324"));
    program.ask(&format!("alloc {MIB}"), "rc");
    has(&answer(&quota, &By::Agent(&agent), "GQ324", &["GQ330"]), &["does not answer any more"]);
    has(&answer(&quota, &By::Itself(&machine), "GQ324", &["GQ330"]), &["NVML does not tell of card"]);
    program.kill();
}

#[test]
fn a_container_that_has_ended_is_told_as_ended() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("4GiB");
    quota.start("hold", &[]).finish().success();
    let agent = agent(&machine, &[quota.home()]);
    answer(&quota, &By::Agent(&agent), "GQ323", &[]);
    std::fs::remove_file(quota.region()).expect("the region");
    for entry in std::fs::read_dir(quota.home()).expect("its folder").flatten() {
        std::fs::remove_file(entry.path()).ok();
    }
    sleep(Duration::from_millis(1500));
    has(&answer(&quota, &By::Agent(&agent), "GQ325", &[]), &["has ended"]);
}

#[test]
fn people_read_sentences_with_a_code_and_a_next_step() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("4GiB");
    let mut program = quota.start("hold", &[]);
    program.wait_for("pid");
    program.ask(&format!("alloc {}", 5 * GIB), "rc");
    let told = tool(&By::Itself(&machine), &["why", &name(&quota)], quota.home()).success().out.clone();
    has(&told, &["GQ301 refused by its own cap\n", "\n  Next: ", "by regions and NVML"]);
    let by_path = machine.bare().run_command(
        artifact("gpuquota").to_str().expect("UTF-8"),
        &["why", quota.region().to_str().expect("UTF-8")],
    );
    has(&by_path.success().out, &["GQ301"]);
    let unknown = tool(&By::Itself(&machine), &["why", "nobody"], quota.home());
    assert_eq!(unknown.status.code(), Some(2), "{unknown}");
    has(&unknown.stderr, &["no container \"nobody\"", "(GQ501)"]);
    program.finish().success();
}

#[test]
fn an_agent_tells_who_is_at_the_cards_as_the_tool_itself_does() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory("4GiB");
    let mut counted = quota.start("hold", &[]);
    counted.wait_for("pid");
    let mut outside = machine.bare().start("hold", &[]);
    outside.wait_for("pid");
    let agent = agent(&machine, &[quota.home()]);
    let ps = |by: &By<'_>| tool(by, &["ps", "--json"], quota.home()).success().out.clone();
    let itself = ps(&By::Itself(&machine));
    assert_eq!(itself.lines().count(), 2, "{itself}");
    let until = Instant::now() + Duration::from_secs(10);
    while ps(&By::Agent(&agent)) != itself {
        assert!(Instant::now() < until, "{} is not {itself}", ps(&By::Agent(&agent)));
        sleep(Duration::from_millis(100));
    }
    counted.finish().success();
    outside.finish().success();
}
