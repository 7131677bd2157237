//! Faults by script: calls that fail, calls that are slow, answers that are late, devices that are lost.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::latency::{Delays, scattered};
use crate::liveness::kill_own_process;
use crate::machine::Fault;
use crate::state::State;

/// The faults of a machine, as one library of one process meets them. Calls are counted by process.
pub struct Faults {
    rules: Vec<(Fault, AtomicU64)>,
    /// Calls so far, where some are held up at random.
    calls: AtomicU64,
    delays: Option<Delays>,
    /// The error that every call answers from now on; 0 for none.
    stuck: AtomicI32,
}

impl Faults {
    /// The faults of a machine; `None` if it has none.
    pub fn of(state: &State) -> Option<Faults> {
        let faults = &state.machine().faults;
        let own = std::env::current_exe().ok();
        let own = own.as_deref().and_then(Path::file_name).and_then(OsStr::to_str);
        let is_ours = |fault: &&Fault| fault.program.is_none() || fault.program.as_deref() == own;
        let rules: Vec<_> =
            faults.iter().filter(is_ours).map(|fault| (fault.clone(), AtomicU64::new(0))).collect();
        let delays = state.machine().delays;
        // Each process is held up at other calls.
        let calls = AtomicU64::new((state.slot() as u64) << 40);
        (delays.is_some() || !rules.is_empty()).then_some(Faults {
            rules,
            calls,
            delays,
            stuck: AtomicI32::new(0),
        })
    }

    /// What meets a call before it does anything: waits as long as it is slow, and tells how it goes on.
    pub fn meet(&self, state: &State, call: &str) -> Met {
        let mut met = Met { error: self.stuck.load(Relaxed), late: Duration::ZERO };
        if met.error != 0 {
            return met;
        }
        if let Some(delays) = &self.delays {
            let [before, after] = delays.of(self.calls.fetch_add(1, Relaxed)).map(Duration::from_nanos);
            std::thread::sleep(before);
            met.late = after;
        }
        for (fault, seen) in self.rules.iter().filter(|(fault, _)| fault.is_of(call)) {
            let nth = seen.fetch_add(1, Relaxed) + 1;
            if fault.nth.is_some_and(|wanted| wanted != nth) {
                continue;
            }
            if fault
                .one_in
                .is_some_and(|calls| !scattered(std::process::id().into(), nth).is_multiple_of(calls))
            {
                continue;
            }
            if fault.kill {
                kill_own_process();
            }
            std::thread::sleep(Duration::from_nanos(fault.delay_ns));
            met.late += Duration::from_nanos(fault.late_ns);
            if let Some(device) = fault.lost {
                state.lose(device);
            }
            if fault.error != 0 {
                if fault.sticky {
                    self.stuck.store(fault.error, Relaxed);
                }
                met.error = fault.error;
                break;
            }
        }
        met
    }
}

/// How a call goes on that has met its faults.
pub struct Met {
    /// The error with which it fails, 0 for none.
    pub error: i32,
    /// For so long its answer is on its way.
    pub late: Duration,
}

impl Met {
    /// Does the work of the call, or fails by `error`, and answers late.
    pub fn answer<T>(self, work: impl FnOnce() -> T, error: impl FnOnce(i32) -> T) -> T {
        let answer = if self.error == 0 { work() } else { error(self.error) };
        if !self.late.is_zero() {
            std::thread::sleep(self.late);
        }
        answer
    }
}

impl State {
    /// Device `index` is lost for every process, for good.
    fn lose(&self, index: usize) {
        if let Some(device) = self.layout().devices.get(index) {
            device.lost.set(1);
        }
    }

    /// Whether device `index` is lost, or what it is an instance of.
    pub fn is_lost(&self, index: usize) -> bool {
        let is_lost =
            |index: usize| self.layout().devices.get(index).is_some_and(|device| device.lost.get() != 0);
        let part = self.machine().devices.get(index).and_then(|spec| spec.part);
        is_lost(index) || part.is_some_and(|part| is_lost(part.of))
    }
}
