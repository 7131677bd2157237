//! The agent holds the books against the card: who is not counted is named, and nobody else is hit.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use gpuquota_promises::{GIB, MIB, Machine, Outcome, Program, Scratch, Setting, artifact, program};
use serde_json::Value;

/// A container without an engine: a mount namespace of its own, held open by a process that does nothing.
struct Container(Child);

impl Container {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        let mut child = command
            .args(["--mount", "sh", "-c", "echo; exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it is inside");
        assert_eq!(line, "\n", "root may make a mount namespace");
        Self(child)
    }

    /// Starts a program in it, which has this very pid.
    fn start(&self, setting: &Setting<'_>, name: &str, arguments: &[&str]) -> (Program, i64) {
        let inner = setting.command(program(name), arguments);
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.0.id().to_string(), "--"]);
        let mut program = Program::start({
            command.arg(inner.get_program()).args(inner.get_args());
            command
        });
        let pid = program.wait_for("pid");
        (program, pid)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// An agent on a machine, and what it has said, each line with its time.
struct Watching {
    child: Child,
    address: String,
    said: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Watching {
    fn start(machine: &Machine, home: &Path, options: &[&str]) -> Self {
        let mut command =
            machine.bare().command(artifact("gpuquota"), &["agent", "--listen", "127.0.0.1:0", "--root"]);
        command.arg(home).args(options).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the agent starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        let address =
            lines.find_map(|line| Some(line.split("http://").nth(1)?.split('/').next()?.to_owned()));
        let said = Arc::new(Mutex::new(Vec::new()));
        let saying = Arc::clone(&said);
        std::thread::spawn(move || {
            lines.for_each(|line| saying.lock().expect("no panic").push((Instant::now(), line)));
        });
        Self { child, address: address.expect("its address"), said }
    }

    /// When it said a line with these words, waited for.
    fn says(&self, words: &[&str]) -> (Instant, String) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let said = self.said.lock().expect("no panic").clone();
            if let Some(found) = said.iter().find(|(_, line)| words.iter().all(|word| line.contains(word))) {
                return found.clone();
            }
            assert!(Instant::now() < until, "it did not say {words:?}, but {said:#?}");
            sleep(Duration::from_millis(10));
        }
    }

    fn has_said(&self, words: &str) -> bool {
        self.said.lock().expect("no panic").iter().any(|(_, line)| line.contains(words))
    }

    /// The value of the first sample of a family whose labels have this text, once it is as expected.
    fn metric(&self, family: &str, label: &str, is_right: impl Fn(f64) -> bool) -> Option<f64> {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let url = format!("http://{}/metrics", self.address);
            let text = Command::new("curl").args(["-s", &url]).output().expect("curl");
            let text = String::from_utf8_lossy(&text.stdout).into_owned();
            let of_family = |line: &&str| {
                line.strip_prefix("gpuquota_").is_some_and(|line| line.starts_with(&format!("{family}{{")))
            };
            let sample = text.lines().filter(of_family).find(|line| line.contains(label));
            let value = sample.and_then(|line| line.rsplit(' ').next()?.parse().ok());
            if value.is_some_and(&is_right) || Instant::now() > until {
                return value;
            }
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The state of a process, such as `S` or `T`; `None` when it is gone.
fn state(pid: i64) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn unprotected(agent: &Watching, expected: f64) {
    let count = agent.metric("container_unprotected_processes", "", |count| count == expected);
    assert_eq!(count, Some(expected));
}

#[test]
fn a_process_past_the_limits_of_its_container_is_reported_within_a_second() {
    let machine = Machine::new("H100");
    let limited = machine.quota().memory("4GiB");
    let container = Container::new();
    let (mut counted, _) = container.start(&limited, "hold", &[]);
    counted.ask(&format!("alloc {GIB}"), "rc");
    let agent = Watching::start(&machine, limited.home(), &[]);
    unprotected(&agent, 0.0);
    let (past, pid) = container.start(&machine.bare(), "hold", &[]);
    let since = Instant::now();
    let (when, line) = agent.says(&["without being counted", &format!("process {pid} (hold)"), "reported"]);
    let took = when.saturating_duration_since(since);
    assert!(took < Duration::from_secs(1), "it took {took:?}: {line}");
    unprotected(&agent, 1.0);
    assert!(!matches!(state(pid), Some('T' | 'Z') | None), "it was only reported");
    past.finish().success();
    unprotected(&agent, 0.0);
    counted.finish().success();
}

#[test]
fn who_is_at_a_card_is_shown_with_how_it_stands() {
    let machine = Machine::new("H100");
    let limited = machine.quota().memory("4GiB");
    let container = Container::new();
    let (mut counted, counted_pid) = container.start(&limited, "hold", &[]);
    counted.ask(&format!("alloc {GIB}"), "rc");
    let (past, past_pid) = container.start(&machine.bare(), "hold", &[]);
    let (outside, outside_pid) = Container::new().start(&machine.bare(), "hold", &[]);
    let ps = |options: &[&str]| -> Outcome {
        let mut command = machine.bare().command(artifact("gpuquota"), &["ps", "--root"]);
        command.arg(limited.home()).args(options);
        Program::start(command).finish()
    };
    let text = ps(&["--json"]).success().out.clone();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of =
        |pid: i64| rows.iter().find(|row| row["pid"] == pid).unwrap_or_else(|| panic!("{pid} in {text}"));
    assert_eq!(
        [counted_pid, past_pid, outside_pid].map(|pid| of(pid)["standing"].as_str().unwrap_or("")),
        ["counted", "unprotected", "outside"]
    );
    let bytes = of(counted_pid)["card_bytes"].as_i64().expect("the card tells");
    assert_eq!(of(counted_pid)["booked_bytes"], bytes, "{text}");
    assert!(bytes > GIB);
    let people = ps(&[]).success().out.clone();
    assert!(
        people.lines().any(|line| line.contains("unprotected") && line.contains(&past_pid.to_string())),
        "{people}"
    );
    for program in [counted, past, outside] {
        program.finish().success();
    }
}

#[test]
fn the_policy_freezes_or_kills_that_process_and_no_other() {
    for (policy, done) in [("freeze", "frozen"), ("kill", "killed")] {
        let machine = Machine::new("H100");
        let limited = machine.quota().memory("4GiB");
        let container = Container::new();
        let (counted, counted_pid) = container.start(&limited, "hold", &[]);
        // It has closed the descriptor whose lock tells its pid.
        let (daemon, daemon_pid) = container.start(&limited, "hold", &["closed"]);
        let (outside, outside_pid) = Container::new().start(&machine.bare(), "hold", &[]);
        let agent = Watching::start(&machine, limited.home(), &["--unprotected", policy]);
        unprotected(&agent, 0.0);
        let (past, pid) = container.start(&machine.bare(), "hold", &[]);
        agent.says(&[&format!("process {pid} "), done]);
        sleep(Duration::from_secs(1));
        match policy {
            "freeze" => assert_eq!(state(pid), Some('T')),
            _ => assert!(matches!(state(pid), Some('Z') | None)),
        }
        for (program, pid) in [(counted, counted_pid), (daemon, daemon_pid), (outside, outside_pid)] {
            assert!(!agent.has_said(&format!("process {pid} ")), "{pid} was not past anything");
            assert!(!matches!(state(pid), Some('T' | 'Z') | None), "{pid} was hit");
            program.finish().success();
        }
        drop(past);
    }
}

#[test]
fn a_difference_between_card_and_books_is_named_and_so_is_its_end() {
    let machine = Machine::new("H100");
    let limited = machine.quota().memory("4GiB");
    let container = Container::new();
    let (mut counted, _) = container.start(&limited, "hold", &[]);
    counted.ask(&format!("alloc {GIB}"), "rc");
    let agent = Watching::start(&machine, limited.home(), &[]);
    let apart = |agent: &Watching, is_right: &dyn Fn(f64) -> bool| {
        agent.metric("container_memory_difference_bytes", "", is_right)
    };
    let small = apart(&agent, &|apart| apart.abs() < (64 * MIB) as f64);
    assert!(small.is_some_and(|apart| apart.abs() < (64 * MIB) as f64), "{small:?}");
    let (mut past, _) = container.start(&machine.bare(), "hold", &[]);
    past.ask(&format!("alloc {}", 2 * GIB), "rc");
    agent.says(&["by the card", "by its books"]);
    let large = apart(&agent, &|apart| apart > (2 * GIB) as f64);
    assert!(large.is_some_and(|apart| apart > (2 * GIB) as f64), "{large:?}");
    past.finish().success();
    agent.says(&["agree again"]);
    counted.finish().success();
}

#[test]
fn the_cards_own_figures_are_told() {
    let machine = Machine::new("H100");
    let limited = machine.quota().memory("4GiB");
    let (mut counted, _) = Container::new().start(&limited, "hold", &[]);
    counted.ask(&format!("alloc {GIB}"), "rc");
    let agent = Watching::start(&machine, limited.home(), &[]);
    let told = |family: &str, label: &str| agent.metric(family, label, |_| true);
    assert_eq!(told("device_info", "device_type=\"NVIDIA H100 80GB HBM3\""), Some(1.0));
    assert_eq!(told("device_memory_total_bytes", ""), Some((80 * GIB) as f64));
    assert!(told("device_memory_used_bytes", "").is_some_and(|bytes| bytes > GIB as f64));
    assert_eq!(told("device_temperature_celsius", ""), Some(40.0));
    assert!(told("device_power_watts", "").is_some_and(|watts| (50.0..=700.0).contains(&watts)));
    assert_eq!(told("device_power_limit_watts", ""), Some(700.0));
    assert_eq!(told("device_throttled", "reason=\"thermal\""), Some(0.0));
    assert_eq!(told("device_ecc_errors_total", "kind=\"uncorrected\""), Some(0.0));
    assert_eq!(told("device_lost", ""), Some(0.0));
    assert_eq!(told("device_processes", "standing=\"counted\""), Some(1.0));
    counted.finish().success();
}

#[test]
fn a_node_without_a_card_is_told_so_once() {
    let scratch = Scratch::new();
    let mut command = Command::new(artifact("gpuquota"));
    command.args(["agent", "--listen", "127.0.0.1:0", "--root"]).arg(scratch.path()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the agent starts");
    sleep(Duration::from_secs(1));
    child.kill().expect("it runs");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("a pipe"), &mut text).expect("its lines");
    child.wait().expect("its end");
    assert_eq!(text.matches("the card's own figures are not to be had").count(), 1, "{text}");
    let ps =
        Command::new(artifact("gpuquota")).args(["ps", "--root"]).arg(scratch.path()).output().expect("ps");
    assert_eq!(ps.status.code(), Some(2));
}

#[test]
fn what_a_context_takes_is_handed_to_a_container_that_cannot_ask() {
    let scratch = Scratch::new();
    let machine = scratch.file("old.toml", "driver = \"550.163.01\"\n[[device]]\nlike = \"H100\"\n");
    let machine = Machine::new(machine.to_str().expect("UTF-8"));
    let homes = Scratch::new();
    let setting =
        |name: &str| machine.quota().with("GPUQUOTA_REGION", homes.path().join(name)).memory("4GiB");
    let (asks, cannot) = (setting("asks.cache"), setting("cannot.cache"));
    let apart = |setting: &Setting<'_>| {
        let inner = setting.command(program("hold"), &[]);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
            .arg(inner.get_program())
            .args(inner.get_args());
        let mut program = Program::start(command);
        program.wait_for("pid");
        program
    };
    let context = || {
        let mut command = Command::new(artifact("gpuquota"));
        command.args(["inspect", "--json"]).arg(homes.path().join("cannot.cache"));
        let text = Program::start(command).finish().success().out.clone();
        let region: Value = serde_json::from_str(&text).expect("JSON");
        let device = &region["devices"][0];
        [&device["context_bytes"], &device["used"], &device["estimated_contexts"]]
            .map(|value| value.as_i64().expect("a number"))
    };
    let first = apart(&cannot);
    assert_eq!(context(), [0, 0, 0], "nobody there can ask, so nothing is charged");
    let agent = Watching::start(&machine, homes.path(), &[]);
    let (known, _) = Container::new().start(&asks, "hold", &[]);
    let learned = agent.metric("device_context_bytes", "", |_| true);
    assert_eq!(learned, Some((512 * MIB) as f64));
    let until = Instant::now() + Duration::from_secs(10);
    while context()[0] == 0 && Instant::now() < until {
        sleep(Duration::from_millis(50));
    }
    assert_eq!(context()[0], 512 * MIB);
    let second = apart(&cannot);
    assert_eq!(context(), [512 * MIB, 512 * MIB, 1], "the next context is charged");
    for program in [first, second, known] {
        program.finish().success();
    }
}

#[test]
fn a_device_that_is_lost_and_its_error_are_told() {
    let scratch = Scratch::new();
    let file =
        "[[device]]\nlike = \"H100\"\ncount = 2\n[[fault]]\ncall = \"cuMemAlloc\"\nnth = 2\nlost = 0\n";
    let machine = Machine::new(scratch.file("lost.toml", file).to_str().expect("UTF-8"));
    let limited = machine.quota().memory("4GiB");
    let (mut counted, _) = Container::new().start(&limited, "hold", &[]);
    counted.ask(&format!("alloc {MIB}"), "rc");
    let agent = Watching::start(&machine, limited.home(), &[]);
    assert_eq!(agent.metric("device_lost", "device_index=\"0\"", |lost| lost == 0.0), Some(0.0));
    counted.ask(&format!("alloc {MIB}"), "rc");
    agent.says(&["does not answer any more"]);
    agent.says(&["tells error Xid 79"]);
    assert_eq!(agent.metric("device_lost", "device_index=\"0\"", |lost| lost == 1.0), Some(1.0));
    assert_eq!(agent.metric("device_lost", "device_index=\"1\"", |lost| lost == 0.0), Some(0.0));
    assert_eq!(agent.metric("device_xid_errors_total", "xid=\"79\"", |count| count == 1.0), Some(1.0));
    drop(counted);
}
