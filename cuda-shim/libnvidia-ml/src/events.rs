//! Event sets: they can be made and waited for, and no event ever comes.

use core::ffi::c_void;
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::abi::{Answer, Error, Out};
use crate::export::nvml;
use crate::library::Handle;
use crate::types::EventData;

/// `nvmlEventSet_t`: a number, never a pointer that is followed.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct EventSet(*mut c_void);

/// The numbers of the sets in being.
fn sets() -> MutexGuard<'static, BTreeSet<usize>> {
    static SETS: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventSet {
    fn check(self) -> Answer {
        if sets().contains(&self.0.addr()) { Ok(()) } else { Err(Error::InvalidArgument) }
    }
}

fn wait(set: EventSet, data: Out<EventData>, timeout_ms: u32) -> Answer {
    set.check()?;
    if data.is_null() {
        return Err(Error::InvalidArgument);
    }
    std::thread::sleep(Duration::from_millis(timeout_ms.into()));
    Err(Error::Timeout)
}

nvml! {
    /// An empty set.
    fn nvmlEventSetCreate(set: Out<EventSet>) {
        let mut sets = sets();
        let number = sets.last().copied().unwrap_or(0) + 1;
        set.put(EventSet(core::ptr::without_provenance_mut(number)))?;
        sets.insert(number);
        Ok(())
    }

    /// Its end.
    fn nvmlEventSetFree(set: EventSet) {
        if sets().remove(&set.0.addr()) { Ok(()) } else { Err(Error::InvalidArgument) }
    }

    /// Which events a device has: none.
    fn nvmlDeviceGetSupportedEventTypes(device: Handle, types: Out<u64>) {
        device.device()?;
        types.put(0)
    }

    /// So none can be listened for but the empty choice.
    fn nvmlDeviceRegisterEvents(device: Handle, types: u64, set: EventSet) {
        device.device()?;
        set.check()?;
        if types == 0 { Ok(()) } else { Err(Error::NotSupported) }
    }

    /// Waits in vain, up to `timeout_ms` milliseconds.
    fn nvmlEventSetWait_v2(set: EventSet, data: Out<EventData>, timeout_ms: u32) {
        wait(set, data, timeout_ms)
    }

    /// The same.
    fn nvmlEventSetWait(set: EventSet, data: Out<EventData>, timeout_ms: u32) {
        wait(set, data, timeout_ms)
    }
}
