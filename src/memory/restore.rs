//! The contents of the region are lost: this process puts back what it knows of them.
//!
//! `gpuquota_region::lost` has what becomes of the file. Each process does this at its next call, so the books are whole again
//! when all have made one; until then the driver's figures of the others count (`absent`). An admission counts only if the contents were whole
//! after it ([`Books::try_take`](super::books::Books::try_take)), so a loss lets no thread pass the cap.

use super::books::Books;
use super::due;
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_region::slot;
use gpuquota_region::sys::{KeepErrno, NoSignals};

/// How often this begins again because the contents were lost again meanwhile; the next call begins again too.
const TRIES: usize = 8;

impl Books<'_> {
    /// Restores the contents of the region if they are lost.
    #[cold]
    #[inline(never)]
    pub fn make_whole(self) {
        let container = self.container();
        let _errno = KeepErrno::new();
        let _signals = NoSignals::new();
        let Some(_restoring) = container.begin_to_restore() else { return };
        let mut anew = false;
        for _ in 0..TRIES {
            anew |= container.make_contents_whole();
            let born_ns = container.region().born_ns();
            let taken = self.scope.devices.known.put_back(container);
            let bytes = match container.claimed_slot() {
                Some(_) => self.accounts.journals.put_back(container),
                None => Some(0),
            };
            // A thread has a journal and does not give it back: the next call tries again.
            let Some(bytes) = bytes else { return };
            self.put_back_slot_words();
            self.scope.devices.known.put_back_limits(container);
            // The others wait for this.
            if let Some(at) = container.claimed_slot() {
                slot::come_back(&container.region(), at);
            }
            if let Some(now_ns) = container.wait_for_others(born_ns) {
                self.scope.devices.close(taken);
                container.end_restoring([born_ns, now_ns], anew, bytes);
                self.accounts.absent.look(container);
                break;
            }
        }
    }

    /// Puts back what this process shares with others.
    fn put_back_slot_words(self) {
        let slot = self.container().claimed_slot().and_then(|at| self.container().ours().slots.get(at));
        if let Some(slot) = slot {
            slot.priority.store(self.container().limits().priority.unsigned_abs(), Relaxed);
            slot.imports.store(u32::from(self.accounts.due.any(due::IMPORTS)), Relaxed);
            slot.exported.store(self.accounts.exported.load(Relaxed), Relaxed);
        }
    }
}
