//! The steps round a call that takes memory from an arena; `quota::arena` has the rules.

use super::arenas::{Open, allowed_excess};
use super::books::{Books, Placement, Reservation};
use super::ops::call_with_retries;
use super::reserve::Memory;
use crate::container::DeviceRef;
use crate::driver::cuda::CUresult;
use crate::driver::cuda::arenas::Arena;
use gpuquota_quota::arena::{self, Book, Call, Charged, Taken, Usage};

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
    /// allows; a call that cannot be undone has none. `None` where the driver does not say what the arena holds: then this
    /// has not made the call.
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
        let before = usage()?;
        let books: Books<'_> = self.books();
        let source = Source { open: arenas.open(books, arena, usage)?, memory: self, device };
        // Arenas grow in blocks.
        let most = bytes.saturating_add(arenas.usual_excess(arena));
        let Some(admitted) = Call::begin(&source, bytes, most) else { return Some(CUresult::OUT_OF_MEMORY) };
        let answer = call_with_retries(books, device.record, call);
        let is_success = answer.is_success();
        let end = admitted.end(&source, &Taken { is_success, allowed: allowed_excess(arena), undo });
        match end.held {
            Some(held) if is_success && !end.is_undone => {
                let beyond = held.saturating_sub(before.held).saturating_sub(before.growth(bytes));
                arenas.note_excess(arena, beyond.min(MOST_EXCESS));
            }
            Some(_) => {}
            // The next update asks again.
            None => arenas.mark_stale(),
        }
        Some(if end.is_undone { CUresult::OUT_OF_MEMORY } else { answer })
    }
}

#[cfg(test)]
mod tests;
