//! Two readings of GPU time: the device's own, and what the kernels wrote down themselves. A figure on which they do not agree
//! is none.

use std::thread;
use std::time::Duration;

use crate::{Machine, Program, Truth};

/// By how much two readings of one time may differ: a part of it, and some nanoseconds for the clocks.
const PART: f64 = 0.002;
const CLOCKS_NS: f64 = 1000.0;

/// Figures of the programs on a machine, which run `launch_loop` with kernels named like `work_50us` until they are told to
/// end: a program with an end of its own is over before a busy host has looked for the last time. They hold once
/// [`Readings::agree`] has asked each program for its own.
pub struct Readings<'m> {
    machine: &'m Machine,
    looks: Vec<Look>,
}

/// A stretch of time, and the processes that were watched in it.
struct Look {
    device: usize,
    from: Truth,
    to: Truth,
    unasked: Vec<i64>,
    /// How long the process that waited longest was ready and had no processor, in nanoseconds.
    unserved_ns: u64,
}

impl Look {
    fn passed_ns(&self) -> f64 {
        (self.to.clock_ns() - self.from.clock_ns()) as f64
    }

    fn used_ns(&self, pid: i64) -> f64 {
        (self.to.busy_ns_on(self.device, &[pid]) - self.from.busy_ns_on(self.device, &[pid])) as f64
    }

    fn busy_ns(&self) -> f64 {
        (self.to.of_device(self.device, "busy_ns") - self.from.of_device(self.device, "busy_ns")) as f64
    }
}

impl<'m> Readings<'m> {
    /// None yet.
    pub fn of(machine: &'m Machine) -> Self {
        Self { machine, looks: Vec::new() }
    }

    /// The use of device 0 by each of these processes in the next time, in percent.
    pub fn have(&mut self, pids: &[i64], over: Duration) -> Vec<f64> {
        self.look(0, pids, over);
        let look = self.looks.last().expect("there is one now");
        pids.iter().map(|pid| 100.0 * look.used_ns(*pid) / look.passed_ns()).collect()
    }

    /// For what part of a look a program was ready and had no processor, in the worst case, in percent: figures of a program
    /// that the host does not serve say little.
    pub fn unserved(&self) -> f64 {
        let parts = self.looks.iter().map(|look| 100.0 * look.unserved_ns as f64 / look.passed_ns());
        parts.fold(0.0, f64::max)
    }

    fn look(&mut self, device: usize, pids: &[i64], over: Duration) {
        let before: Vec<u64> = pids.iter().map(|pid| unserved_ns(*pid)).collect();
        let from = prompt_truth(self.machine);
        thread::sleep(over);
        let to = prompt_truth(self.machine);
        let unserved = pids.iter().zip(before).map(|(pid, before)| unserved_ns(*pid).saturating_sub(before));
        let unserved_ns = unserved.max().unwrap_or(0);
        self.looks.push(Look { device, from, to, unasked: pids.to_vec(), unserved_ns });
    }

    /// Ends a program's loop, and asks it how long its kernels ran whenever it was watched.
    ///
    /// # Panics
    /// The readings differ: then one of the instruments is broken, and no second attempt is due.
    #[track_caller]
    pub fn agree(&mut self, mut program: Program, pid: i64) {
        assert!(program.ask("end", "launches") > 0, "it launched nothing");
        for look in self.looks.iter_mut().filter(|look| look.unasked.contains(&pid)) {
            let (from, to) = (look.from.clock_ns(), look.to.clock_ns());
            let early = |truth: &Truth| truth.clock_ns() - truth.late().as_nanos() as i64;
            let least = wrote(&mut program, from, early(&look.to), look.device).0;
            let (most, unsure) = wrote(&mut program, early(&look.from), to, look.device);
            let told = look.used_ns(pid);
            let allowed = PART * told + unsure + CLOCKS_NS;
            assert!(
                told >= least - allowed && told <= most + allowed,
                "from {from} to {to} process {pid} used the device for {told} ns as the device says, {least} to {most} as its kernels wrote",
            );
            look.unasked.retain(|one| *one != pid);
        }
        program.finish().success();
    }
}

/// For how long a process has been ready and had no processor, in nanoseconds; 0 where the kernel does not tell.
fn unserved_ns(pid: i64) -> u64 {
    let told = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    told.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// For how long a program's kernels wrote that they ran, and how much of that is unsure, in nanoseconds.
#[track_caller]
fn wrote(program: &mut Program, from: i64, to: i64, device: usize) -> (f64, f64) {
    let unsure = program.ask(&format!("{from} {to} {device}"), "unsure_ns");
    (program.wait_for("wrote_ns") as f64, unsure as f64)
}

/// What the device says, and says promptly.
fn prompt_truth(machine: &Machine) -> Truth {
    let mut truth = machine.truth();
    for _ in 0..20 {
        if truth.late() < Duration::from_millis(5) {
            break;
        }
        truth = machine.truth();
    }
    truth
}

impl Drop for Readings<'_> {
    fn drop(&mut self) {
        let all = self.looks.iter().all(|look| look.unasked.is_empty());
        assert!(all || thread::panicking(), "a figure was read in one way alone");
    }
}

/// What programs used of a device, in percent of its time.
#[derive(Debug)]
pub struct Used {
    /// Each program, over the whole time.
    pub means: Vec<f64>,
    /// Each program, in each second.
    pub seconds: Vec<Vec<f64>>,
    /// All of them over the whole time; what ran at once counts once.
    pub busy: f64,
    /// See [`Readings::unserved`].
    pub unserved: f64,
}

impl Used {
    /// How far any second of a program lay from this share, at most.
    pub fn worst_second(&self, program: usize, share: f64) -> f64 {
        self.seconds[program].iter().map(|second| (second - share).abs()).fold(0.0, f64::max)
    }
}

/// Watches programs that have just been started, and run until they are told to end, for so many seconds, from a second after all of them are ready.
#[track_caller]
pub fn watch(machine: &Machine, device: usize, mut programs: Vec<Program>, seconds: u64) -> Used {
    let pids: Vec<i64> = programs.iter_mut().map(|one| one.wait_for("ready")).collect();
    thread::sleep(Duration::from_secs(1));
    let mut readings = Readings::of(machine);
    (0..seconds).for_each(|_| readings.look(device, &pids, Duration::from_secs(1)));
    programs.into_iter().zip(&pids).for_each(|(program, pid)| readings.agree(program, *pid));
    let looks = &readings.looks;
    let of = |looks: &[Look], used: &dyn Fn(&Look) -> f64| {
        100.0 * looks.iter().map(used).sum::<f64>() / looks.iter().map(Look::passed_ns).sum::<f64>()
    };
    let each = |pid: i64| -> Vec<f64> {
        looks.iter().map(|look| of(std::slice::from_ref(look), &|look| look.used_ns(pid))).collect()
    };
    Used {
        means: pids.iter().map(|pid| of(looks, &|look| look.used_ns(*pid))).collect(),
        seconds: pids.iter().map(|pid| each(*pid)).collect(),
        busy: of(looks, &Look::busy_ns),
        unserved: readings.unserved(),
    }
}

/// Runs a program to its end. Answers how long its kernels used device 0, in nanoseconds.
#[track_caller]
pub fn used_by(machine: &Machine, mut program: Program) -> i64 {
    let pid = program.wait_for("ready");
    assert!(program.wait_for("launches") > 0, "it launched nothing");
    let told = machine.truth().busy_ns_of(&[pid]);
    let (wrote, _) = wrote(&mut program, 0, i64::MAX, 0);
    let off = (told as f64 - wrote).abs();
    assert!(off <= PART * wrote, "{told} ns as the device says, {wrote} as its kernels wrote");
    program.finish().success();
    told
}
