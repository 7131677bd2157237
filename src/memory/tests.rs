//! A process's memory for a test: in a container of its own, without a driver.
//!
//! # Safety
//! This file may use `unsafe` because all-zero bytes are valid for each of the parts that it makes.
#![allow(unsafe_code)]

use super::holdings::{Holding, Key, Kind};
use super::{Memory, State};
use crate::container::{Container, DeviceRef};
use crate::devices::Scope;
use core::sync::atomic::Ordering::Acquire;
use gpuquota_quota::ledger;
use gpuquota_quota::limits::Limits;
use gpuquota_region::hami::Used;
use std::boxed::Box;

/// The parts of a process that count bytes.
pub struct Bench {
    pub scope: Box<Scope>,
    state: Box<State>,
}

impl Bench {
    /// A process with this cap on the first device; 0 is none.
    pub fn new(cap: u64) -> Self {
        let container = Container::of_test(Limits { quiet: true, ..Limits::default() });
        container.region().limit_memory(0, cap);
        // SAFETY: all-zero bytes are a valid value of both.
        let (devices, state) = unsafe { (core::mem::zeroed(), Box::new(core::mem::zeroed())) };
        Self { scope: Box::new(Scope { container: *container, devices }), state }
    }

    pub fn memory(&self) -> Memory<'_> {
        Memory { scope: &self.scope, state: &self.state }
    }

    pub fn device(&self, index: u8) -> DeviceRef {
        self.scope.container.device(index).expect("a device")
    }

    /// Bytes in use on a device, by the region.
    pub fn used(&self, device: u8) -> u64 {
        ledger::used(&self.device(device).record.used)
    }

    /// The entry of HAMi's view for this process and a device.
    pub fn shown(&self, device: u8) -> &'static Used {
        let slot = self.scope.container.slot_index().expect("a slot");
        &self.scope.container.hami().procs[slot].used[usize::from(device)]
    }

    /// The same as numbers: data, contexts, code, total.
    pub fn shown_bytes(&self, device: u8) -> [u64; 4] {
        let used = self.shown(device);
        [&used.data, &used.context, &used.module, &used.total].map(|word| word.load(Acquire))
    }
}

/// The key of memory at an address.
pub fn memory_at(address: u64) -> Key {
    Key::new(Kind::Memory, address).expect("an address")
}

/// A holding of the first device.
pub fn holding(bytes: u64, owner: u64) -> Holding {
    Holding { bytes, device: 0, journal: 0, owner }
}
