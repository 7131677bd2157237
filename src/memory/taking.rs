//! The steps round a call that takes memory from an arena; `quota::arena` has the rules.

use super::arenas::{Open, allowed_excess};
use super::books::{Books, Placement, Reservation};
use super::ops::call_with_retries;
use super::reserve::Memory;
use crate::container::DeviceRef;
use crate::driver::cuda::CUresult;
use crate::driver::cuda::arenas::Arena;
use gpuquota_quota::arena::{self, Book, Call, Charged, Taken, Usage};
use gpuquota_region::layout::REFUSED_MEMORY_LIMIT;

/// The largest block by which an arena is expected to grow.
const MOST_EXCESS: u64 = 64 << 20;

/// An arena beside the device from which it takes.
struct Source<'p, U> {
    open: Open<'p, U>,
    memory: Memory<'p>,
    device: DeviceRef,
}

impl<U: Fn() -> Option<Usage>> Charged for Source<'_, U> {
    fn book(&self) -> &Book {
        self.open.book()
    }

    fn usage(&self) -> Option<Usage> {
        self.open.usage()
    }

    fn locked<T>(&self, change: impl FnOnce(&Book) -> T) -> Option<T> {
        self.open.locked(change)
    }
}

impl<U: Fn() -> Option<Usage>> arena::Arena for Source<'_, U> {
    type Reservation = Reservation;

    fn reserve_at_once(&self, bytes: u64) -> Option<Reservation> {
        self.memory.books().try_reserve(self.device, bytes, Placement::Device).ok()
    }

    fn reserve(&self, bytes: u64) -> Option<Reservation> {
        self.memory.reserve(self.device, bytes)
    }

    fn bytes(reservation: &Reservation) -> u64 {
        reservation.bytes
    }

    fn give_back(&self, reservation: Reservation) {
        self.memory.books().roll_back(reservation);
    }

    fn keep(&self, _: Reservation) {
        self.memory.scope.container.count_fallback();
    }
}

impl Memory<'_> {
    /// Makes a call that takes `bytes` from an arena. `undo` frees them again where the arena grew by more than the cap
    /// allows; a call that cannot be undone has none. `None` where the driver has never said what the arena holds:
    /// then this has not made the call.
    pub fn take_from_arena(
        self,
        arena: Arena,
        device: DeviceRef,
        bytes: u64,
        call: impl Fn() -> CUresult,
        undo: Option<&dyn Fn()>,
    ) -> Option<CUresult> {
        self.take_from_arena_of(arena, || arena.usage(), device, bytes, call, undo)
    }

    /// The same with the driver's answer from `usage`.
    pub(super) fn take_from_arena_of(
        self,
        arena: Arena,
        usage: impl Fn() -> Option<Usage>,
        device: DeviceRef,
        bytes: u64,
        call: impl Fn() -> CUresult,
        undo: Option<&dyn Fn()>,
    ) -> Option<CUresult> {
        let arenas = &self.state.arenas;
        let _turn = arenas.take_turn(arena);
        let books: Books<'_> = self.books();
        let source = Source { open: arenas.open(books, arena, usage)?, memory: self, device };
        let before = arena::figure(&source);
        if before.is_none() && !source.open.is_known() {
            return None;
        }
        // Arenas grow in blocks.
        let expected = bytes.saturating_add(arenas.usual_excess(arena)).max(self.in_blocks(device, bytes));
        let mut admitted = Call::begin(&source, bytes, expected);
        let mut is_last = false;
        while let Some(begun) = admitted {
            // At most one block or request of the process lies above the cap: one thread at a time makes a call that may be above
            // it, and who has waited too long for its turn reserves all.
            let may_exceed = undo.is_some() && begun.reserved() < expected;
            let attempt = if may_exceed { books.accounts.blocks.next_attempt() } else { None };
            if may_exceed && attempt.is_none() && !is_last {
                begun.abandon(&source);
                is_last = true;
                admitted = Call::begin_whole(&source, expected);
                continue;
            }
            let answer = call_with_retries(books, device, &call);
            let is_success = answer.is_success();
            let allowed = allowed_excess(arena);
            let end = begun.end(&source, &Taken { is_success, allowed, expected, undo });
            match end.held {
                Some(held) => {
                    if let Some(before) = before.filter(|_| is_success && end.undone.is_none()) {
                        let beyond = held.saturating_sub(before.held).saturating_sub(before.growth(bytes));
                        arenas.note_excess(arena, beyond.min(MOST_EXCESS));
                    }
                }
                // The next update asks again.
                None => arenas.mark_stale(),
            }
            let Some(excess) = end.undone else { return Some(answer) };
            if is_last {
                self.report_refusal(device, excess, REFUSED_MEMORY_LIMIT);
                break;
            }
            is_last = true;
            admitted = Call::begin_whole(&source, bytes.saturating_add(excess));
        }
        Some(CUresult::OUT_OF_MEMORY)
    }
}

#[cfg(test)]
mod tests;
