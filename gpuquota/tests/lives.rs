//! The agent may die, stand still and come back; and it tells the service manager how it is.

mod common;

use common::agent::Agent;
use common::{Scratch, gpuquota, join, sample};
use gpuquota_region::sys::monotonic_ns;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// What counts for a container as an agent that is gone.
const GONE_NS: u64 = 50_000_000;

/// Two containers that share a device, one of which says how old the agent's last word is.
fn shared_device(root: &Scratch) -> impl Fn() -> u64 {
    let regions = ["a.cache", "b.cache"].map(|name| {
        let region = sample(&root.join(name));
        join(&region, &root.join(name));
        region
    });
    move || monotonic_ns().saturating_sub(regions[0].ours().header.leases[0].renewed_at_ns.load(Relaxed))
}

/// How long it takes until the agent speaks; at most three seconds.
fn until_it_speaks(age_ns: &impl Fn() -> u64) -> Duration {
    let begun = Instant::now();
    while age_ns() >= GONE_NS && begun.elapsed() < Duration::from_secs(3) {
        thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}

#[test]
fn after_its_death_or_standstill_the_agent_is_back_within_a_second() {
    let root = Scratch::new();
    let age_ns = shared_device(&root);
    let mut agent = Agent::of(root.path());
    let mut worst = until_it_speaks(&age_ns);
    for _ in 0..3 {
        agent.process.kill().expect("SIGKILL");
        agent.process.wait().expect("its end");
        thread::sleep(Duration::from_millis(60));
        assert!(age_ns() >= GONE_NS, "nobody speaks for a dead agent");
        agent = Agent::of(root.path());
        worst = worst.max(until_it_speaks(&age_ns));
        kill_process(Pid::from_child(&agent.process), Signal::STOP).expect("SIGSTOP");
        thread::sleep(Duration::from_millis(80));
        assert!(age_ns() >= GONE_NS, "nobody speaks for an agent that stands still");
        kill_process(Pid::from_child(&agent.process), Signal::CONT).expect("SIGCONT");
        worst = worst.max(until_it_speaks(&age_ns));
    }
    assert!(worst < Duration::from_secs(1), "{worst:?}");
}

/// How many of two hundred looks, 5 ms apart, find a word of the agent's that is old.
fn old_words(age_ns: &impl Fn() -> u64) -> usize {
    let look = |_: &u32| {
        thread::sleep(Duration::from_millis(5));
        age_ns() >= GONE_NS
    };
    (0..200).filter(look).count()
}

#[test]
fn while_it_lives_its_word_does_not_grow_old() {
    let root = Scratch::new();
    let age_ns = shared_device(&root);
    let _agent = Agent::of(root.path());
    until_it_speaks(&age_ns);
    let old = old_words(&age_ns);
    assert!(old <= 10, "{old} of 200 words were old");
}

#[test]
fn of_many_idle_containers_those_that_begin_to_work_get_leases_within_a_second() {
    const CONTAINERS: usize = 40;
    let root = Scratch::new();
    let regions: Vec<_> = (0..CONTAINERS)
        .map(|number| {
            let path = root.join(&format!("c{number}.cache"));
            let region = sample(&path);
            join(&region, &path);
            region
        })
        .collect();
    let renewed_ns = |at: usize| regions[at].ours().header.leases[0].renewed_at_ns.load(Relaxed);
    let age_ns = |at: usize| monotonic_ns().saturating_sub(renewed_ns(at));
    let _agent = Agent::of(root.path());
    let all_asleep = || (0..CONTAINERS).all(|at| renewed_ns(at) != 0 && age_ns(at) >= GONE_NS);
    let begun = Instant::now();
    while !all_asleep() {
        assert!(begun.elapsed() < Duration::from_secs(20), "idle containers do not sleep");
        thread::sleep(Duration::from_millis(10));
    }
    let begun = Instant::now();
    let working = [7, 31];
    while working.iter().any(|at| age_ns(*at) >= GONE_NS) {
        working.iter().for_each(|at| _ = regions[*at].ours().devices[0].launches.fetch_add(1, Relaxed));
        assert!(begun.elapsed() < Duration::from_secs(1), "those that work are left without leases");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(age_ns(0) >= GONE_NS, "the others sleep on");
}

/// `tests/attacks/tenant.py` beside containers that share a device.
#[test]
fn no_file_of_a_tenant_makes_the_agents_words_to_others_old() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/attacks/tenant.py");
    for (attack, number) in [("lease", 5), ("busy", 2), ("page", 3), ("comes_and_goes", 3), ("uuids", 30)] {
        let (root, hostile) = (Scratch::new(), Scratch::new());
        let age_ns = shared_device(&root);
        let mut agent = gpuquota();
        agent
            .args(["agent", "--listen", "127.0.0.1:0", "--root"])
            .arg(root.path())
            .arg("--root")
            .arg(hostile.path());
        let mut agent = agent.stderr(Stdio::null()).spawn().expect("the agent starts");
        until_it_speaks(&age_ns);
        let mut tenant = Command::new("python3");
        tenant.args(["-B"]).arg(&script).arg(attack).arg(root.join("a.cache")).arg(hostile.path());
        tenant.arg(number.to_string()).stdout(Stdio::piped()).process_group(0);
        let mut tenant = tenant.spawn().expect("python3");
        let mut line = String::new();
        BufReader::new(tenant.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready=1\n", "{attack}");
        thread::sleep(Duration::from_millis(2500));
        let old = old_words(&age_ns);
        kill_process_group(Pid::from_child(&tenant), Signal::KILL).expect("its end");
        tenant.wait().expect("its end");
        agent.kill().expect("its end");
        agent.wait().expect("its end");
        assert!(old <= 10, "{attack}: {old} of 200 words were old");
    }
}

#[test]
fn the_service_manager_is_told_of_its_start_life_and_end() {
    let root = Scratch::new();
    let path = root.join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let next = || {
        let mut room = [0; 256];
        let length = socket.recv(&mut room).expect("the agent tells");
        String::from_utf8_lossy(&room[..length]).trim().to_owned()
    };
    let mut agent = gpuquota()
        .args(["agent", "--listen", "127.0.0.1:0", "--root"])
        .arg(root.path())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000")
        .env_remove("WATCHDOG_PID")
        .stderr(Stdio::null())
        .spawn()
        .expect("the agent starts");
    assert_eq!([next(), next(), next()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    kill_process(Pid::from_child(&agent), Signal::TERM).expect("SIGTERM");
    let last = std::iter::repeat_with(next).find(|said| said != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    assert_eq!(agent.wait().expect("its end").code(), Some(0));
}
