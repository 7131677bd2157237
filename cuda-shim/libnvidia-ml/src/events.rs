//! Event sets. One event comes: a device that is lost tells Xid 79, "GPU has fallen off the bus", once to each set.

use core::ffi::c_void;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::abi::{Answer, Error, Out};
use crate::export::nvml;
use crate::library::{Handle, machine};
use crate::types::{EventData, NO_INSTANCE};

/// `nvmlEventTypeXidCriticalError`.
const XID: u64 = 8;
/// NVIDIA's number for a device that does not answer any more.
const FALLEN_OFF_THE_BUS: u64 = 79;
/// How often a set that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// `nvmlEventSet_t`: a number, never a pointer that is followed.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct EventSet(*mut c_void);

/// The sets in being by number: the devices whose loss each has still to tell.
fn sets() -> MutexGuard<'static, BTreeMap<usize, Vec<usize>>> {
    static SETS: Mutex<BTreeMap<usize, Vec<usize>>> = Mutex::new(BTreeMap::new());
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventSet {
    /// Does something with what the set has still to tell.
    fn with<T>(self, work: impl FnOnce(&mut Vec<usize>) -> T) -> Result<T, Error> {
        sets().get_mut(&self.0.addr()).map(work).ok_or(Error::InvalidArgument)
    }

    /// The next device of the set that is lost.
    fn next(self) -> Result<Option<usize>, Error> {
        let state = machine()?;
        self.with(|devices| {
            let lost = devices.iter().position(|device| state.is_lost(*device));
            lost.map(|at| devices.swap_remove(at))
        })
    }
}

fn wait(set: EventSet, data: Out<EventData>, timeout_ms: u32) -> Answer {
    let until = Instant::now() + Duration::from_millis(timeout_ms.into());
    if data.is_null() {
        return Err(Error::InvalidArgument);
    }
    loop {
        if let Some(device) = set.next()? {
            return data.put(EventData {
                device: Handle::of(device).raw(),
                event_type: XID,
                event_data: FALLEN_OFF_THE_BUS,
                gpu_instance_id: NO_INSTANCE,
                compute_instance_id: NO_INSTANCE,
            });
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout);
        }
        std::thread::sleep(left.min(LOOK));
    }
}

nvml! {
    /// An empty set.
    fn nvmlEventSetCreate(set: Out<EventSet>) {
        let mut sets = sets();
        let number = sets.last_key_value().map_or(0, |(number, _)| *number) + 1;
        set.put(EventSet(core::ptr::without_provenance_mut(number)))?;
        sets.insert(number, Vec::new());
        Ok(())
    }

    /// Its end.
    fn nvmlEventSetFree(set: EventSet) {
        sets().remove(&set.0.addr()).map(|_| ()).ok_or(Error::InvalidArgument)
    }

    /// Which events a device has.
    fn nvmlDeviceGetSupportedEventTypes(device: Handle, types: Out<u64>) {
        device.device()?;
        types.put(XID)
    }

    /// Adds them to a set.
    fn nvmlDeviceRegisterEvents(device: Handle, types: u64, set: EventSet) {
        let index = device.device()?.index;
        if types & !XID != 0 {
            return Err(Error::NotSupported);
        }
        set.with(|devices| {
            if types == XID && !devices.contains(&index) {
                devices.push(index);
            }
        })
    }

    /// Waits for the next event, up to `timeout_ms` milliseconds.
    fn nvmlEventSetWait_v2(set: EventSet, data: Out<EventData>, timeout_ms: u32) {
        wait(set, data, timeout_ms)
    }

    /// The same.
    fn nvmlEventSetWait(set: EventSet, data: Out<EventData>, timeout_ms: u32) {
        wait(set, data, timeout_ms)
    }
}
