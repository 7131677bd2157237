//! The steps round a call of the driver: bytes are admitted before it, and committed or rolled back after it.

use super::books::{Books, Placement, Reservation};
use super::holdings::{Key, Kind};
use super::refusal;
use super::reserve::Memory;
use crate::container::DeviceRef;
use crate::driver::cuda::CUresult;
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_region::layout::{Device, REFUSED_BY_DRIVER};
use gpuquota_region::sys;

/// How long the library repeats a call that the driver refuses while the memory of a dead process may be on its way back.
const TEARDOWN_NS: u64 = 100_000_000;
/// How long after a death the driver may still be freeing memory.
const TEARDOWN_WINDOW_NS: u64 = 1_000_000_000;

/// The decision on an allocation, which the hook carries out.
pub enum Decision<'p> {
    /// Make the call: this process has no quota.
    PassThrough,
    /// Answer that the device is out of memory.
    Refused,
    /// Make the call with these bytes.
    Granted(Grant<'p>),
}

/// The bytes of an allocation that was admitted.
#[derive(Clone, Copy)]
pub struct Grant<'p> {
    books: Books<'p>,
    reservation: Reservation,
}

impl<'p> Memory<'p> {
    /// Makes the call that opens memory of another process.
    pub fn import(self, device: DeviceRef, call: impl FnOnce() -> CUresult) -> CUresult {
        self.state.overhead.imported(self.charges(), device, call)
    }

    /// Decides on an allocation of `bytes`.
    #[inline(always)]
    pub fn admit(self, device: DeviceRef, bytes: u64) -> Decision<'p> {
        match self.reserve(device, bytes) {
            Some(reservation) => Decision::Granted(Grant { books: self.books(), reservation }),
            None => Decision::Refused,
        }
    }

    /// The same where the memory may lie on the host if the device has no room. `call` allocates on the device, and
    /// `on_host` on the host. Answers the grant, and the driver's answer to the last of these calls.
    #[cold]
    pub fn admit_or_spill(
        self,
        device: DeviceRef,
        bytes: u64,
        call: impl Fn() -> CUresult,
        on_host: impl FnOnce() -> CUresult,
    ) -> (CUresult, Option<Spillable<'p>>) {
        if let Some(reservation) = self.reserve_on_device(device, self.in_blocks(device, bytes)) {
            let grant = Grant { books: self.books(), reservation };
            let answer = again_after_deaths(grant.books, device, call);
            if !answer.is_out_of_memory() {
                return (answer, Some(Spillable { grant, kind: Kind::Memory }));
            }
            // The device itself is full, with the memory of other containers.
            grant.roll_back();
        }
        self.admit_on_host(device, bytes, on_host)
    }

    /// Admits an allocation on the host, and makes it by `on_host`.
    #[cold]
    pub fn admit_on_host(
        self,
        device: DeviceRef,
        bytes: u64,
        on_host: impl FnOnce() -> CUresult,
    ) -> (CUresult, Option<Spillable<'p>>) {
        match self.reserve_in(device, bytes, Placement::Anywhere) {
            Some(reservation) => Grant { books: self.books(), reservation }.spill(on_host),
            None => (CUresult::OUT_OF_MEMORY, None),
        }
    }

    /// Frees memory: removes the holding, makes the call, gives the bytes back. The holding leaves before the call, because
    /// another thread may get the same address right after it; a failed free records it again. A free without a holding
    /// goes to the driver too.
    #[inline(always)]
    pub fn free(self, key: Option<Key>, call: impl FnOnce() -> CUresult) -> CUresult {
        let held = key.and_then(|key| Some((key, self.books().accounts.holdings.remove(key)?)));
        let answer = call();
        if let Some((key, holding)) = held {
            if answer.is_success() {
                self.books().release(key, holding);
            } else {
                self.books().record_slowly(Some(key), holding);
            }
        }
        answer
    }

    /// Frees an array, large or small.
    pub fn free_array(self, handle: u64, call: impl FnOnce() -> CUresult) -> CUresult {
        let small = Key::new(Kind::SmallArray, handle);
        let is_small = small.is_some_and(|key| self.books().accounts.holdings.get(key).is_some());
        self.free(if is_small { small } else { Key::new(Kind::Array, handle) }, call)
    }

    /// Frees memory by address, in stream order or not, with a charge of its own or from a pool.
    #[inline(always)]
    pub fn free_by_address(self, pointer: u64, call: impl FnOnce() -> CUresult) -> CUresult {
        if self.state.arenas.any()
            && let Some(key) = Key::new(Kind::Pooled, pointer)
            && let Some(holding) = self.books().accounts.holdings.remove(key)
        {
            let answer = call();
            if answer.is_success() {
                self.state.arenas.mark_stale();
            } else {
                self.books().record_holding(Some(key), holding);
            }
            return answer;
        }
        self.free(self.books().memory_key(pointer), call)
    }
}

impl<'p> Grant<'p> {
    /// The books in which the bytes are.
    pub fn books(self) -> Books<'p> {
        self.books
    }

    /// Makes the call. If the driver has no memory although the cap has room, and a process has just died, repeats it until
    /// the memory of that process is back.
    #[inline(always)]
    pub fn call(self, call: impl Fn() -> CUresult) -> CUresult {
        call_with_retries(self.books, self.reservation.device, call)
    }

    /// The driver has given the bytes, under this key.
    #[inline(always)]
    pub fn commit(self, key: Option<Key>, owner: u64) {
        self.books.record_holding(key, self.reservation.holding(owner));
    }

    /// The call has failed: gives the bytes back.
    pub fn roll_back(self) {
        self.books.roll_back(self.reservation);
    }

    /// Allocates on the host by `on_host`, and counts the bytes there.
    fn spill(self, on_host: impl FnOnce() -> CUresult) -> (CUresult, Option<Spillable<'p>>) {
        let Reservation { device, bytes, .. } = self.reservation;
        let (container, journals) = (self.books.container(), &self.books.accounts.journals);
        if !journals.change_spilled(container, device.index, bytes, true) {
            self.roll_back();
            return (CUresult::OUT_OF_MEMORY, None);
        }
        let answer = on_host();
        if !answer.is_success() {
            journals.change_spilled(container, device.index, bytes, false);
        }
        (answer, Some(Spillable { grant: self, kind: Kind::Spilled }))
    }
}

/// A grant whose call was made, for memory of the device or of the host.
pub struct Spillable<'p> {
    grant: Grant<'p>,
    kind: Kind,
}

impl Spillable<'_> {
    /// The call has succeeded, and the memory lies at `pointer`. Answers for the call.
    pub fn commit(self, memory: Memory<'_>, pointer: u64, bytes: u64, owner: u64) -> CUresult {
        let Grant { books, reservation } = self.grant;
        if self.kind == Kind::Memory {
            let shift = books.accounts.blocks.shift(reservation.device.index);
            return memory.settle(reservation, owner, (pointer, bytes), shift, CUresult::CUDA_SUCCESS);
        }
        reservation.device.record.spills.fetch_add(1, Relaxed);
        books.accounts.holdings.mark_spilled();
        books.record_holding(Key::new(self.kind, pointer), reservation.holding(owner));
        CUresult::CUDA_SUCCESS
    }

    /// The call has failed: gives the bytes back.
    pub fn roll_back(self) {
        self.grant.roll_back();
    }
}

/// Makes a call that the limits allow, and counts it where the driver has no room for it.
#[inline]
pub(super) fn call_with_retries(
    books: Books<'_>,
    device: DeviceRef,
    call: impl Fn() -> CUresult,
) -> CUresult {
    let answer = call();
    if answer.is_out_of_memory() { retry_and_count(books, device, answer, call) } else { answer }
}

#[cold]
fn retry_and_count(
    books: Books<'_>,
    device: DeviceRef,
    answer: CUresult,
    call: impl Fn() -> CUresult,
) -> CUresult {
    let answer = retry(books, device.record, answer, call);
    if answer.is_out_of_memory() {
        refusal::count(books.container(), device, REFUSED_BY_DRIVER);
    }
    answer
}

/// The same uncounted, where the memory may lie elsewhere.
fn again_after_deaths(books: Books<'_>, device: DeviceRef, call: impl Fn() -> CUresult) -> CUresult {
    let answer = call();
    if answer.is_out_of_memory() { retry(books, device.record, answer, call) } else { answer }
}

#[cold]
fn retry(books: Books<'_>, record: &Device, answer: CUresult, call: impl Fn() -> CUresult) -> CUresult {
    let _errno = sys::KeepErrno::new();
    books.container().reap();
    let started = sys::monotonic_ns();
    let died = record.reaped_at_ns.load(Relaxed);
    let mut answer = answer;
    if died == 0 || started.saturating_sub(died) > TEARDOWN_WINDOW_NS {
        return answer;
    }
    while answer.is_out_of_memory() && sys::monotonic_ns().saturating_sub(started) < TEARDOWN_NS {
        sys::sleep_until(sys::monotonic_ns().wrapping_add(2_000_000));
        answer = call();
    }
    answer
}

#[cfg(test)]
mod tests;
