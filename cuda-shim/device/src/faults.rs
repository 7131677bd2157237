//! Faults by script: calls that fail, calls that are slow, devices that are lost.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::liveness::kill_own_process;
use crate::machine::Fault;
use crate::state::State;

/// The faults of a machine, as one library of one process meets them. Calls are counted by process.
pub struct Faults {
    rules: Vec<(Fault, AtomicU64)>,
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
        (!rules.is_empty()).then_some(Faults { rules, stuck: AtomicI32::new(0) })
    }

    /// What meets a call before it does anything: waits as long as it is slow, and answers the error with which it
    /// fails, 0 for none.
    pub fn meet(&self, state: &State, call: &str) -> i32 {
        let stuck = self.stuck.load(Relaxed);
        if stuck != 0 {
            return stuck;
        }
        for (fault, seen) in self.rules.iter().filter(|(fault, _)| fault.is_of(call)) {
            let nth = seen.fetch_add(1, Relaxed) + 1;
            if fault.nth.is_some_and(|wanted| wanted != nth) {
                continue;
            }
            if fault.kill {
                kill_own_process();
            }
            std::thread::sleep(Duration::from_nanos(fault.delay_ns));
            if let Some(device) = fault.lost {
                state.lose(device);
            }
            if fault.error != 0 {
                if fault.sticky {
                    self.stuck.store(fault.error, Relaxed);
                }
                return fault.error;
            }
        }
        0
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
