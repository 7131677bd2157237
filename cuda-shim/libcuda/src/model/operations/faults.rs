//! Faults by script, as calls of the driver meet them. Without a script a call pays for one look at a flag.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use cuda_shim_device::{Faults, State};

use crate::model::world::driver;
use crate::tools::status::{Outcome, Status, UNKNOWN};

static ARMED: AtomicBool = AtomicBool::new(false);

static FAULTS: OnceLock<Option<(Faults, &'static State)>> = OnceLock::new();

/// From now on calls meet the faults of the machine.
pub fn arm(state: &'static State) {
    if FAULTS.get_or_init(|| Some((Faults::of(state)?, state))).is_some() {
        ARMED.store(true, Relaxed);
    }
}

/// Does the work of a call, as far as the faults let it.
#[inline(always)]
pub fn met(call: &str, work: impl FnOnce() -> Outcome) -> Outcome {
    if ARMED.load(Relaxed) { met_scripted(call, work) } else { work() }
}

#[cold]
fn met_scripted(call: &str, work: impl FnOnce() -> Outcome) -> Outcome {
    let Some(Some((faults, state))) = FAULTS.get() else { return work() };
    let reached = || {
        // Whoever works on a lost device hears of it from every call.
        let lost = driver().is_ok_and(|driver| driver.works_on(|index| state.is_lost(index)));
        if lost { Err(UNKNOWN) } else { work() }
    };
    faults.meet(state, call).answer(reached, |error| Err(Status::of(error)))
}
