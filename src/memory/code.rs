//! Code: the driver says what it takes only once it is loaded. What turns out to be more than fits is unloaded again.
//!
//! Stacks and heaps: a limit of a context says how much they may take at most. One that does not fit is refused. The driver takes the
//! memory with the call or with a later launch, so it is counted when a measurement shows it.

use super::reserve::Memory;
use crate::container::DeviceRef;
use crate::driver::cuda::{self, CUresult, heaps};
use crate::driver::sys::cuda::CUlimit;
use gpuquota_region::layout::{KIND_MODULE, REFUSED_CODE};
use gpuquota_region::sys::KeepErrno;

impl Memory<'_> {
    /// Loads code by `call`; `undo` unloads it.
    #[cold]
    pub fn load_code(
        self,
        device: DeviceRef,
        call: impl FnOnce() -> CUresult,
        undo: impl FnOnce(),
    ) -> CUresult {
        let _errno = KeepErrno::new();
        self.call_measured(device, call, undo)
    }

    /// Sets a limit of the current context by `call`, unless what the driver may take for it does not fit.
    #[cold]
    pub fn set_limit(
        self,
        device: DeviceRef,
        limit: CUlimit,
        value: u64,
        call: impl FnOnce() -> CUresult,
    ) -> CUresult {
        let _errno = KeepErrno::new();
        let ordinal = self.scope.devices.ordinal_of(device.index).unwrap_or_else(cuda::current_device);
        let before = heaps::limit(limit);
        let most = |value| heaps::most_for(limit, value, ordinal);
        let more = most(value).saturating_sub(before.map_or(0, most));
        if more != 0 {
            let Some(reservation) = self.reserve(device, self.in_blocks(device, more)) else {
                return CUresult::OUT_OF_MEMORY;
            };
            self.books().roll_back(reservation);
        }
        let undo = || {
            if let Some(before) = before {
                heaps::set_limit_back(limit, before);
            }
        };
        self.call_measured(device, call, undo)
    }

    /// Makes a call, measures what it has taken, and undoes it where that is more than fits.
    fn call_measured(
        self,
        device: DeviceRef,
        call: impl FnOnce() -> CUresult,
        undo: impl FnOnce(),
    ) -> CUresult {
        let (books, overhead) = (self.books(), &self.state.overhead);
        let charged = || books.accounts.journals.other_bytes(device.index, KIND_MODULE);
        let before = charged();
        let answer = call();
        if !answer.is_success() {
            return answer;
        }
        // Each load by itself: nothing tells how much two have taken together.
        overhead.measure_now(self.charges(), device);
        let is_too_much = || charged() > before && self.is_above_cap(device);
        if is_too_much() {
            // As before any other refusal.
            self.state.arenas.trim(books, device.index);
            books.container().reap();
        }
        if !is_too_much() {
            return answer;
        }
        let grown = charged().saturating_sub(before);
        undo();
        overhead.measure_now(self.charges(), device);
        self.report_refusal(device, grown, REFUSED_CODE);
        CUresult::OUT_OF_MEMORY
    }
}
