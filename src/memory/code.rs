//! Code: the driver says what it takes only once it is loaded. What turns out to be more than fits is unloaded again.

use super::reserve::Memory;
use crate::container::DeviceRef;
use crate::driver::cuda::CUresult;
use gpuquota_region::layout::KIND_MODULE;
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
        self.report_refusal(device, grown);
        CUresult::OUT_OF_MEMORY
    }
}
