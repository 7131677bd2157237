//! What the agent costs beside many containers, in processor time from /proc and never by the clock on the wall: idle, per
//! scrape, and after many have come and gone. `make bench-agent` runs it and compares with the goals.

#![forbid(unsafe_code)]

use gpuquota_promises::{Agent, Machine, Scratch};
use gpuquota_region::layout::{DEVICE_READY, SLOT_TAKEN};
use gpuquota_region::lock::{pid_byte, slot_byte};
use gpuquota_region::sys::{Descriptor, LockKind, monotonic_ns};
use gpuquota_region::{Region, sys};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

/// Containers beside each other, and those that come and go.
const CONTAINERS: usize = 1000;
const CHURN: usize = 10_000;
/// How long an idle agent is watched.
const WATCHED: Duration = Duration::from_secs(20);
const SCRAPES: u32 = 10;

fn main() -> ExitCode {
    let root = Scratch::new();
    let sample = Sample::new();
    let held: Vec<Descriptor> =
        (0..CONTAINERS).map(|index| sample.container(root.path(), &format!("pod{index:04}_main"))).collect();
    let agent = Agent::start(root.path());
    let scraped = agent.metrics();
    let found = scraped.lines().filter(|line| line.starts_with("gpuquota_container_processes{")).count();
    assert_eq!(found, CONTAINERS, "every container is told");
    let idle = idle_percent(&agent);

    let mut scrapes = Vec::new();
    for _ in 0..SCRAPES {
        // An answer is given again for a second.
        thread::sleep(Duration::from_millis(1100));
        let before = processor_ns(agent.pid());
        agent.metrics();
        scrapes.push((processor_ns(agent.pid()) - before) as f64 / 1e6);
    }
    scrapes.sort_by(f64::total_cmp);
    let scrape = scrapes[scrapes.len() / 2];
    let memory = memory_mib(agent.pid());
    drop(agent);
    let agent = Agent::on(&Machine::new("H100"), &[root.path()]);
    let beside_a_card = idle_percent(&agent);
    drop(agent);
    let agent = Agent::start(root.path());

    drop(held);
    for entry in fs::read_dir(root.path()).expect("a folder").flatten() {
        let _ = fs::remove_dir_all(entry.path());
    }
    let mut first = None;
    for batch in 0..CHURN / 500 {
        let names: Vec<String> = (0..500).map(|index| format!("pod{batch}_{index}")).collect();
        let held: Vec<Descriptor> = names.iter().map(|name| sample.container(root.path(), name)).collect();
        thread::sleep(Duration::from_millis(700));
        drop(held);
        names.iter().for_each(|name| fs::remove_dir_all(root.path().join(name)).expect("removed"));
        // The agent looks for what is gone once a second.
        thread::sleep(Duration::from_millis(1300));
        first.get_or_insert_with(|| (descriptors(agent.pid()), memory_mib(agent.pid())));
    }
    let (files, small) = first.expect("a first batch");
    // It settles the dead of the last ones before it looks what is gone.
    let until = monotonic_ns() + 5_000_000_000;
    while descriptors(agent.pid()) > files + 4 && monotonic_ns() < until {
        thread::sleep(Duration::from_millis(200));
    }
    let (later_files, later) = (descriptors(agent.pid()), memory_mib(agent.pid()));

    println!("{CONTAINERS} containers, each with a living process, two cores shared with others\n");
    println!("| | seen | goal | |\n|---|--:|--:|---|");
    let row = |what: &str, seen: String, goal: &str, kept: bool| {
        println!("| {what} | {seen} | {goal} | {} |", if kept { "kept" } else { "missed" });
        kept
    };
    let all = [
        row("idle, of a processor", format!("{idle:.2}%"), "1%", idle < 1.0),
        row("the same beside a simulated card", format!("{beside_a_card:.2}%"), "1%", beside_a_card < 1.0),
        row("a scrape, processor time", format!("{scrape:.1} ms"), "50 ms", scrape < 50.0),
        row("resident set", format!("{memory:.1} MiB"), "64 MiB", memory < 64.0),
        row(
            &format!("after {CHURN} that came and went: descriptors"),
            format!("{files}, then {later_files}"),
            "flat",
            later_files <= files + 4,
        ),
        row(
            "the same: resident set",
            format!("{small:.1} MiB, then {later:.1}"),
            "flat",
            later <= small + 4.0,
        ),
    ];
    if all.iter().all(|kept| *kept) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Processor time of an agent that nobody asks, in percent of the time.
fn idle_percent(agent: &Agent) -> f64 {
    thread::sleep(Duration::from_secs(4));
    let (from, before) = (monotonic_ns(), processor_ns(agent.pid()));
    thread::sleep(WATCHED);
    100.0 * (processor_ns(agent.pid()) - before) as f64 / (monotonic_ns() - from) as f64
}

/// The parts of a region that are not zero.
struct Sample(Vec<(u64, Vec<u8>)>, u64);

impl Sample {
    fn new() -> Self {
        let home = Scratch::new();
        let path = home.path().join("a.cache");
        let region = Region::open(&c_path(&path), 1).expect("a region");
        let ours = region.ours();
        let device = &ours.devices[0];
        let uuid = b"GPU-8f3a1c2d-0000-4a5b-9c6d-001122334455";
        for (word, bytes) in device.uuid.iter().zip(uuid.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(padded), Relaxed);
        }
        device.memory_limit.store(2 << 30, Relaxed);
        device.core_limit.store(30, Relaxed);
        device.state.store(DEVICE_READY, Relaxed);
        ours.slots[0].state.store(SLOT_TAKEN, Relaxed);
        ours.slots[0].pid.store(sys::pid(), Relaxed);
        ours.slots[0].pid_namespace.store(1, Relaxed);
        ours.header.slot_high.store(1, Relaxed);
        let bytes = fs::read(&path).expect("the region");
        let pages = bytes.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0));
        let pages = pages.map(|(at, page)| (at as u64 * 4096, page.to_vec())).collect();
        Self(pages, bytes.len() as u64)
    }

    /// A container with such a region, which lives as long as the answer.
    fn container(&self, root: &Path, name: &str) -> Descriptor {
        let home = root.join(name);
        fs::create_dir(&home).expect("a folder");
        let path = home.join("vgpu.cache");
        let file = File::create(&path).expect("a file");
        file.set_len(self.1).expect("a size");
        self.0.iter().for_each(|(at, page)| file.write_all_at(page, *at).expect("a page"));
        let holder = Descriptor::open(&c_path(&path), 2, 0).expect("the region");
        holder.try_lock(LockKind::Ofd, slot_byte(0)).expect("a lock");
        holder.try_lock(LockKind::Classic, pid_byte(0)).expect("a lock");
        holder
    }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// Processor time of all threads of a process, nanoseconds.
fn processor_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the agent runs").flatten();
    let text = tasks.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    text.filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

fn memory_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).expect("KiB") / 1024.0
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the agent runs").count()
}
