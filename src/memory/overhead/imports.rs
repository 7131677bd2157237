//! Memory that one process made and another one has opened: legacy handles, descriptors, pointers into pools.
//!
//! Its maker is charged while it holds the memory, as the driver's figures have it (an H200 with driver 580, 2026-11-27). The memory
//! outlives the maker as long as another process keeps it open, and then the driver's figure for that process contains it,
//! unless it came from a pool: that is in nobody's figure, and stays until those that have opened the pool destroy it. Nothing
//! tells which process keeps what. So:
//!
//! 1. A process notes in its slot how many bytes it has made others able to open ([`Books::was_exported`]).
//! 2. A process notes in its slot that it opens memory of others ([`Overhead::imported`]).
//! 3. Whoever finds a maker dead gives back all but these bytes, and asks those that import to measure (`region::slot`).
//! 4. Each of them measures at its next call, charges what it keeps, and takes as much off the dead process's bytes
//!    ([`Overhead::measure_losses`]). What it has opened of pools it charges by size, as far as the dead have left bytes. Once all
//!    have, the rest of these is given back.
//!
//! Where the driver gives no figure for a process, nobody is charged for handles and descriptors after the maker's death. What a
//! living maker frees of a pool while others have it open is charged to nobody until the maker dies.

use super::{Charges, Overhead};
use crate::container::DeviceRef;
use crate::driver::cuda::{CUresult, managed};
use crate::driver::nvml::process_memory;
use crate::memory::books::{Books, Placement, Reservation};
use crate::memory::due;
use crate::memory::holdings::{Holding, Key, Kind};
use crate::memory::reserve::Memory;
use crate::uuid::Uuid;
use core::sync::atomic::{Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use gpuquota_region::layout::{DEVICES, KIND_CONTEXT, KIND_MODULE, KIND_POOL};
use gpuquota_region::slot;
use gpuquota_region::sys::KeepErrno;

/// This process's charge for overhead, bytes.
fn overhead_of(books: Books<'_>, device: DeviceRef) -> u64 {
    let of_kind = |kind| books.accounts.journals.other_bytes(device.index, kind);
    of_kind(KIND_CONTEXT).wrapping_add(of_kind(KIND_MODULE))
}

/// Whether the driver gives a figure for this process.
fn has_figure(device: DeviceRef) -> bool {
    let _errno = KeepErrno::new();
    process_memory::of_this_process(&Uuid::of(device.record)).is_some()
}

impl Books<'_> {
    /// Other processes may open `bytes` of this one from now on.
    pub fn was_exported(self, bytes: u64) {
        if let Some(slot) = self.container().slot() {
            self.accounts.exported.fetch_add(bytes, Relaxed);
            slot.exported.fetch_add(bytes, Relaxed);
        }
    }
}

impl Books<'_> {
    /// This process opens memory of others from now on.
    fn imports(self) {
        if let Some(slot) = self.container().slot().filter(|slot| slot.imports.load(Relaxed) == 0) {
            self.accounts.due.add_everywhere(due::IMPORTS);
            slot.imports.store(1, Release);
        }
    }

    /// Charges what this process has opened of a device's pools, as far as the dead have left bytes.
    fn charge_borrowed(self, device: DeviceRef) {
        let holdings = &self.accounts.holdings;
        let borrowed = (0..).map_while(|before| holdings.nth_of(Kind::Borrowed, device.index, before));
        for (key, Holding { bytes, .. }) in borrowed {
            // What they have left of other kinds is for those whose figures contain it.
            let bytes = bytes.min(slot::left_of_kind(self.container().ours(), device.index, KIND_POOL));
            if bytes == 0 {
                continue;
            }
            // First the new charge, so that there is never too little.
            let Ok(reservation) = self.try_reserve(device, bytes, Placement::Given) else { continue };
            let taken = slot::take_over_left(self.container().ours(), bytes);
            let Reservation { journal, .. } = reservation;
            if let Some(rest) = bytes.checked_sub(taken).filter(|rest| *rest != 0) {
                self.give_back(device.index, journal, rest);
            }
            if taken != 0 {
                holdings.change(key, |holding| {
                    holding.bytes = holding.bytes.saturating_sub(taken);
                    true
                });
                let kept = Holding { bytes: taken, device: device.index, journal, owner: key.value() };
                self.record_holding(Key::new(Kind::Kept, holdings.next_number()), kept);
            }
        }
    }
}

impl Memory<'_> {
    /// Makes the call that opens memory of another process's `pool`; `address` reads the result.
    pub fn import_from_pool(
        self,
        device: DeviceRef,
        pool: u64,
        call: impl FnOnce() -> CUresult,
        address: impl FnOnce() -> u64,
    ) -> CUresult {
        let books = self.books();
        books.imports();
        let answer = call();
        if answer.is_success()
            && let Some(key) = Key::new(Kind::Borrowed, pool)
            && let Some(bytes) = managed::bytes_of(address())
        {
            let bytes = self.in_blocks(device, bytes);
            let more = |holding: &mut Holding| {
                holding.bytes = holding.bytes.saturating_add(bytes);
                true
            };
            if books.accounts.holdings.change(key, more).is_none() {
                let holding = Holding { bytes, device: device.index, journal: 0, owner: pool };
                books.record_holding(Some(key), holding);
            }
            // Its maker may be dead already.
            self.state.overhead.measure_losses(self.charges());
        }
        answer
    }
}

impl Overhead {
    /// Makes the call that opens memory of another process, and says before it that this process does so.
    pub fn imported<R>(&self, charges: Charges<'_>, device: DeviceRef, call: impl FnOnce() -> R) -> R {
        let books = charges.books;
        let is_new = books.container().slot().is_some_and(|slot| slot.imports.load(Relaxed) == 0);
        if is_new && has_figure(device) {
            books.imports();
        }
        let answer = call();
        // Its maker may be dead already.
        self.measure(charges, device, 0);
        answer
    }

    /// Measures what this process keeps of processes that were found dead, if there are any that it has not measured.
    pub(super) fn measure_losses(&self, charges: Charges<'_>) {
        let books = charges.books;
        let container = books.container();
        let Some(slot) = container.slot() else { return };
        let lost = slot.exporters_lost.load(Acquire);
        if lost == slot.losses_measured.load(Relaxed) {
            return;
        }
        let used =
            |index: &u8| self.of(*index).is_some_and(|device| device.measured_at_ns.load(Relaxed) != 0);
        let devices = || (0..DEVICES as u8).filter(used).filter_map(|index| container.device(index));
        let charged = || devices().map(|device| overhead_of(books, device)).fold(0, u64::wrapping_add);
        let before = charged();
        // Without a cap nothing is charged that only a measurement shows.
        let measured = |device| {
            books.scope.devices.memory_cap(device).is_none()
                || self.measure(charges, device, 0)
                || !has_figure(device)
        };
        if devices().all(measured) {
            slot::take_over_left(container.ours(), charged().saturating_sub(before));
            let known = (0..DEVICES as u8).filter_map(|index| container.device(index));
            known.for_each(|device| books.charge_borrowed(device));
            slot.losses_measured.store(lost, Release);
            container.reap();
        }
    }
}
