//! Blocks: what an allocation takes of the device, by its address.
//!
//! A driver gives device memory out in blocks (2 MiB on NVIDIA's); `cuMemGetAllocationGranularity` says their size. An
//! allocation fills the blocks in its middle alone, and may share the first and the last one with others. So its charge is
//! the blocks in its middle, and each shared block is charged while any allocation of the process lies in it. The address
//! tells which blocks these are, without any knowledge of how the driver places allocations.
//!
//! Before the call the address is not known. So the library reserves as many blocks as the allocation can need, and settles
//! with the address. An allocation smaller than a block usually finds its place in a block that is charged already: it then
//! needs no reservation, so the library makes the call first and reserves only where the driver has opened a block. If that
//! block does not fit, the memory is freed again. One thread of a process does this at a time, so that at most one block of
//! the process lies above the cap, for the time of the call.
//!
//! A driver that does not say the size of its blocks is taken at its word: the charge is the size of the request.

use super::blocks::Blocks;
use super::books::{Books, Placement, Reservation};
use super::extent::{Extent, is_in_one_block, mask, rounded};
use super::holdings::{Holding, Key, Kind, Sums};
use super::ops::call_with_retries;
use super::refusal::count_excess;
use super::reserve::Memory;
use super::shared_blocks::{Left, Payer};
use crate::container::DeviceRef;
use crate::devices::Place;
use crate::driver::cuda::{CUresult, managed};
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_region::layout::REFUSED_MEMORY_LIMIT;

/// The address of an allocation that the driver has just made, and the bytes that it has.
pub type Taken = (u64, u64);

impl<'p> Memory<'p> {
    /// `bytes` in whole blocks of a device.
    pub fn in_blocks(self, device: DeviceRef, bytes: u64) -> u64 {
        rounded(bytes, self.state.accounts.blocks.learned(&self.scope.devices, device.index))
    }

    /// Makes an allocation of at most `most` bytes of device memory by `call`. `taken` reads the result after it.
    #[inline(always)]
    pub fn allocate(
        self,
        place: Place,
        most: u64,
        call: impl Fn() -> CUresult,
        taken: impl Fn() -> Taken,
    ) -> CUresult {
        let blocks = &self.state.accounts.blocks;
        let shift = blocks.learned(&self.scope.devices, place.device.index);
        if most & mask(shift) != 0 && blocks.shared.any() {
            return self.allocate_beside_others(place, most, shift, &call, &taken);
        }
        let bound = rounded(most, shift);
        let Some(reservation) = self.reserve(place.device, bound) else { return CUresult::OUT_OF_MEMORY };
        let answer = call_with_retries(self.books(), place.device, call);
        if !answer.is_success() {
            self.books().roll_back(reservation);
            return answer;
        }
        self.settle(reservation, place.context, taken(), shift, answer)
    }

    /// The same for an allocation that does not fill its last block, while others lie in such blocks.
    #[inline(never)]
    fn allocate_beside_others(
        self,
        place: Place,
        most: u64,
        shift: u32,
        call: &impl Fn() -> CUresult,
        taken: &impl Fn() -> Taken,
    ) -> CUresult {
        let blocks = &self.state.accounts.blocks;
        self.state.overhead.measure_if_due(self.charges(), place.device);
        if most >> shift == 0
            && !self.scope.container.observes()
            && let Some(_attempt) = blocks.attempt.try_lock()
            && let Some(answer) = self.attempt(place, shift, call, taken)
        {
            return answer;
        }
        self.allocate_by_bound(place, most, shift, call, taken)
    }

    /// Calls the driver without a reservation. `None`: there was no room, and this has changed nothing.
    #[inline(always)]
    fn attempt(
        self,
        place: Place,
        shift: u32,
        call: &impl Fn() -> CUresult,
        taken: &impl Fn() -> Taken,
    ) -> Option<CUresult> {
        let answer = call();
        if !answer.is_success() {
            return Some(answer).filter(|answer| !answer.is_out_of_memory());
        }
        let (address, bytes) = taken();
        let books = self.books();
        // Each way records for itself: one call for both would cost the usual way six instructions.
        if is_in_one_block(address, bytes, shift) && books.join_block(address >> (shift & 63)) {
            let holding = Holding { bytes, device: place.device.index, journal: 0, owner: place.context };
            books.record_holding(Key::new(Kind::Memory, address), holding);
            return Some(answer);
        }
        match books.take_extent(place.device, Extent::of(address, bytes, shift), shift, Placement::Device) {
            Some(journal) => {
                let holding = Holding { bytes, device: place.device.index, journal, owner: place.context };
                books.record_holding(Key::new(Kind::Memory, address), holding);
                Some(answer)
            }
            None => {
                managed::free_unseen(address);
                None
            }
        }
    }

    /// Reserves all blocks that the allocation may need before it calls the driver.
    #[inline(never)]
    fn allocate_by_bound(
        self,
        place: Place,
        most: u64,
        shift: u32,
        call: &impl Fn() -> CUresult,
        taken: &impl Fn() -> Taken,
    ) -> CUresult {
        let (books, blocks, device) = (self.books(), &self.state.accounts.blocks, place.device);
        let bound = rounded(most, shift);
        let reservation = match books.try_reserve(device, bound, Placement::Device) {
            Ok(reservation) => Some(reservation),
            Err(_) => {
                if most < 1 << shift
                    && blocks.shared.any()
                    && let Some(_attempt) = blocks.next_attempt()
                    && let Some(answer) = self.attempt(place, shift, call, taken)
                {
                    return answer;
                }
                self.reserve_in(device, bound, Placement::Device)
            }
        };
        let Some(reservation) = reservation else { return CUresult::OUT_OF_MEMORY };
        if self.scope.container.observes() {
            count_excess(books, device);
        }
        // Others wait for a reservation that may shrink before they refuse.
        let may_shrink = blocks.shared.any();
        let mark = |bytes: i64| {
            if may_shrink {
                books.accounts.journals.add_reserving(books.container(), reservation.journal, bytes);
            }
        };
        mark(bound.cast_signed());
        let answer = call_with_retries(books, device, call);
        let answer = if answer.is_success() {
            self.settle(reservation, place.context, taken(), shift, answer)
        } else {
            books.roll_back(reservation);
            answer
        };
        mark(bound.cast_signed().wrapping_neg());
        answer
    }

    /// The driver has made an allocation, whose blocks are now known: gives back what was reserved beyond them, and records
    /// the holding. Where more is needed and does not fit, frees the memory and answers that there is none.
    #[inline(always)]
    pub fn settle(
        self,
        reservation: Reservation,
        owner: u64,
        (address, bytes): Taken,
        shift: u32,
        answer: CUresult,
    ) -> CUresult {
        let (books, device) = (self.books(), reservation.device);
        let payer = Payer { device: device.index, journal: reservation.journal };
        let holding = Holding { bytes, device: device.index, journal: reservation.journal, owner };
        let is_settled = if (address | bytes) & mask(shift) == 0 {
            bytes == reservation.bytes
        } else if is_in_one_block(address, bytes, shift) && reservation.bytes >> shift == 1 {
            books.accounts.blocks.shared.enter_fresh(address >> (shift & 63), payer)
        } else {
            false
        };
        if is_settled {
            books.record_holding(Key::new(Kind::Memory, address), holding);
            return answer;
        }
        self.settle_slowly(reservation, holding, address, answer)
    }

    /// The same for an extent of several blocks, or of blocks that are charged already.
    #[inline(never)]
    fn settle_slowly(
        self,
        reservation: Reservation,
        holding: Holding,
        address: u64,
        answer: CUresult,
    ) -> CUresult {
        let (books, device) = (self.books(), reservation.device);
        let shift = books.accounts.blocks.shift(device.index);
        let extent = Extent::of(address, holding.bytes, shift);
        let journal = match books.use_reservation(reservation, extent, shift) {
            Some(journal) => Some(journal),
            None => {
                let journal = books.take_extent(device, extent, shift, Placement::Device);
                books.roll_back(reservation);
                journal
            }
        };
        let Some(journal) = journal else {
            managed::free_unseen(address);
            return CUresult::OUT_OF_MEMORY;
        };
        books.record_holding(Key::new(Kind::Memory, address), Holding { journal, ..holding });
        answer
    }

    /// Makes an allocation of managed memory by `call`, or by `on_host` where the device has no room. `address` reads the
    /// result.
    pub fn allocate_managed(
        self,
        place: Place,
        bytes: u64,
        call: impl Fn() -> CUresult,
        on_host: impl FnOnce() -> CUresult,
        address: impl Fn() -> u64,
    ) -> CUresult {
        let (books, device) = (self.books(), place.device);
        let shift = self.state.accounts.blocks.learned(&self.scope.devices, device.index);
        if let Some(reservation) = self.reserve_on_device(device, rounded(bytes, shift)) {
            let answer = call_with_retries(books, device, call);
            if answer.is_success() {
                return self.settle(reservation, place.context, (address(), bytes), shift, answer);
            }
            books.roll_back(reservation);
            return answer;
        }
        let answer = on_host();
        if answer.is_success() {
            device.record.spills.fetch_add(1, Relaxed);
            books.accounts.holdings.mark_spilled();
            let holding = Holding { bytes, device: device.index, journal: 0, owner: place.context };
            books.record_holding(Key::new(Kind::OnHost, address()), holding);
        } else {
            self.report_refusal(device, bytes, REFUSED_MEMORY_LIMIT);
        }
        answer
    }

    /// Whether the library has placed memory on the host; `base_of` finds where its allocation begins.
    pub fn is_kept_on_host(self, address: u64, base_of: impl FnOnce(u64) -> Option<u64>) -> bool {
        let holdings = &self.books().accounts.holdings;
        let kept = |base| {
            let of_kind = |kind| Key::new(kind, base).is_some_and(|key| holdings.get(key).is_some());
            of_kind(Kind::OnHost) || of_kind(Kind::Spilled)
        };
        holdings.has_spilled() && kept(base_of(address).unwrap_or(address))
    }

    /// Charges an allocation that the driver has made already.
    pub fn adopt(self, device: DeviceRef, address: u64, bytes: u64) {
        let (books, blocks) = (self.books(), &self.state.accounts.blocks);
        let shift = blocks.learned(&self.scope.devices, device.index);
        let extent = Extent::of(address, bytes, shift);
        if let Some(journal) = books.take_extent(device, extent, shift, Placement::Given) {
            let holding = Holding { bytes, device: device.index, journal, owner: 0 };
            books.record_holding(Key::new(Kind::Memory, address), holding);
        }
    }
}

impl Books<'_> {
    /// Counts one more allocation in a block. False if the block is not charged.
    #[inline(always)]
    fn join_block(self, block: u64) -> bool {
        self.accounts.blocks.shared.join(&self.accounts.holdings, block)
    }

    /// Charges a block to a journal that has taken its bytes, with one allocation in it. Gives them back if another thread has
    /// charged the block meanwhile.
    fn enter_block(self, block: u64, device: u8, journal: u8, shift: u32) {
        let (shared, payer) = (&self.accounts.blocks.shared, Payer { device, journal });
        match shared.enter(&self.accounts.holdings, block, 1 << shift, payer) {
            Ok(true) => {}
            Ok(false) => self.give_back(device, journal, 1 << shift),
            // The charge stays until the process ends.
            Err(_) => self.scope.container.count_fallback(),
        }
    }

    /// One allocation in a block is gone. The last one gives the block back.
    fn leave_block(self, block: u64, shift: u32) {
        if let Some(Payer { device, journal }) =
            self.accounts.blocks.shared.leave(&self.accounts.holdings, block)
        {
            self.give_back(device, journal, 1 << shift);
        }
    }

    /// What the allocations of a device are charged; `None` where the process has too many.
    pub fn sums_of(self, device: u8) -> Option<Sums> {
        let Blocks { shared, .. } = &self.accounts.blocks;
        let shift = self.accounts.blocks.shift(device);
        let Sums { charged, on_device } = self.accounts.holdings.sums_of(device, shift)?;
        let blocks = shared.count_of(device) << shift;
        Some(Sums { charged: charged.wrapping_add(blocks), on_device: on_device.wrapping_add(blocks) })
    }

    /// Joins the shared blocks of an extent that are charged. Answers those that are not, and the bytes to charge.
    fn join(self, extent: Extent, shift: u32) -> ([Option<u64>; 2], u64) {
        let fresh = extent.shared.map(|block| block.filter(|block| !self.join_block(*block)));
        (fresh, extent.whole.saturating_add((fresh.iter().flatten().count() as u64) << shift))
    }

    /// Charges the shared blocks of an extent that `join` has found without a charge.
    fn enter(self, fresh: [Option<u64>; 2], device: u8, journal: u8, shift: u32) {
        fresh.into_iter().flatten().for_each(|block| self.enter_block(block, device, journal, shift));
    }

    /// Leaves again the blocks that `join` has joined.
    fn leave(self, extent: Extent, fresh: [Option<u64>; 2], shift: u32) {
        let joined = extent.shared_blocks().filter(|block| !fresh.contains(&Some(*block)));
        joined.for_each(|block| self.leave_block(block, shift));
    }

    /// Takes the bytes of an extent. Answers the journal that took them, `None` where they do not fit.
    fn take_extent(self, device: DeviceRef, extent: Extent, shift: u32, placement: Placement) -> Option<u8> {
        let (fresh, needed) = self.join(extent, shift);
        let Ok(journal) = self.try_take(device, needed, placement) else {
            self.leave(extent, fresh, shift);
            return None;
        };
        self.enter(fresh, device.index, journal, shift);
        Some(journal)
    }

    /// Uses a reservation for an extent, and gives back what is left of it. `None` where it does not suffice: then nothing has
    /// changed.
    fn use_reservation(self, reservation: Reservation, extent: Extent, shift: u32) -> Option<u8> {
        let Reservation { device, journal, bytes } = reservation;
        let (fresh, needed) = self.join(extent, shift);
        let Some(rest) = bytes.checked_sub(needed) else {
            self.leave(extent, fresh, shift);
            return None;
        };
        if rest != 0 {
            self.give_back(device.index, journal, rest);
        }
        self.enter(fresh, device.index, journal, shift);
        Some(journal)
    }

    /// Gives back the bytes of memory that was freed.
    #[inline(always)]
    pub fn release_memory(self, address: u64, holding: Holding) {
        let Holding { bytes, device, journal, .. } = holding;
        let shift = self.accounts.blocks.shift(device);
        let (journal, bytes) = if (address | bytes) & mask(shift) == 0 {
            (journal, bytes)
        } else {
            let left = if is_in_one_block(address, bytes, shift) {
                self.accounts.blocks.shared.leave_at_once(address >> (shift & 63))
            } else {
                Left::Unknown
            };
            match left {
                Left::Nobody(payer) => (payer.journal, 1 << shift),
                Left::Others => return,
                Left::Unknown => return self.release_extent(address, holding, shift),
            }
        };
        self.give_back(device, journal, bytes);
    }

    #[inline(never)]
    fn release_extent(self, address: u64, holding: Holding, shift: u32) {
        let extent = Extent::of(address, holding.bytes, shift);
        if extent.whole != 0 {
            self.give_back(holding.device, holding.journal, extent.whole);
        }
        extent.shared_blocks().for_each(|block| self.leave_block(block, shift));
    }
}
