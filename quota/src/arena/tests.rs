//! The book of an arena beside a driver and a ledger, which are numbers.

use super::{Arena, Book, Call, Charged, Taken, Usage, update};
use crate::sync::{AtomicU64, Ordering};

#[cfg(loom)]
use loom::sync::{Arc, Mutex};
#[cfg(not(loom))]
use std::sync::Mutex;

/// The device: what the arena holds and uses, and plain memory.
#[derive(Clone, Copy)]
struct Device {
    held: u64,
    used: u64,
    plain: u64,
}

struct Bench {
    book: Book,
    lock: Mutex<()>,
    device: Mutex<Device>,
    /// The ledger's total: charges and reservations.
    total: AtomicU64,
    cap: u64,
    /// By so much the device may be above the cap and the books for the time of a call.
    excess: u64,
}

impl Bench {
    fn new(cap: u64, Device { held, used, plain }: Device) -> Self {
        let zero = || AtomicU64::new(0);
        let book =
            Book { charged: AtomicU64::new(held), settings: zero(), claimed: zero(), reserved: zero() };
        let (lock, device) = (Mutex::new(()), Mutex::new(Device { held, used, plain }));
        Self { book, lock, device, total: AtomicU64::new(held + plain), cap, excess: 0 }
    }

    /// One whose driver cannot use what the arena holds.
    #[cfg(loom)]
    fn fragmented(cap: u64, device: Device, excess: u64) -> Self {
        Self { excess, ..Self::new(cap, device) }
    }

    /// Changes the device. What it has given is in the ledger and below the cap, always.
    fn on_device<T>(&self, change: impl FnOnce(&mut Device) -> T) -> T {
        let mut device = self.device.lock().expect("no panic");
        let answer = change(&mut device);
        let (taken, total) = (device.held + device.plain, self.total.load(Ordering::Acquire));
        assert!(taken <= total + self.excess, "{taken} on the device, {total} in the books");
        assert!(taken <= self.cap + self.excess, "{taken} on the device");
        answer
    }

    fn trim(&self) {
        self.on_device(|device| device.held = device.used);
    }

    #[cfg(loom)]
    fn free(&self, bytes: u64) {
        self.on_device(|device| device.used -= bytes);
    }

    /// Takes bytes from the arena. False: no room.
    fn take(&self, bytes: u64) -> bool {
        let Some(call) = Call::begin(self, bytes, bytes) else { return false };
        self.on_device(|device| {
            device.used += bytes;
            device.held = if self.excess == 0 { device.held.max(device.used) } else { device.held + bytes };
        });
        let undo = || {
            assert_ne!(self.excess, 0, "this driver uses what it has");
            self.on_device(|device| (device.used, device.held) = (device.used - bytes, device.held - bytes));
        };
        let end = call.end(self, &Taken { is_success: true, allowed: 0, expected: 0, undo: Some(&undo) });
        end.undone.is_none()
    }

    fn take_plain(&self, bytes: u64) -> bool {
        let is_reserved = self.reserve(bytes).is_some();
        if is_reserved {
            self.on_device(|device| device.plain += bytes);
        }
        is_reserved
    }

    /// At rest the ledger has what the device has given.
    fn assert_settled(&self) {
        assert!(update(self));
        let Device { held, plain, .. } = self.on_device(|device| *device);
        assert_eq!((self.book.charged(), self.total.load(Ordering::Acquire)), (held, held + plain));
        assert!(held + plain <= self.cap);
    }
}

impl Charged for Bench {
    fn book(&self) -> &Book {
        &self.book
    }

    fn usage(&self) -> Option<Usage> {
        let Device { held, used, .. } = *self.device.lock().expect("no panic");
        Some(Usage { held, used })
    }

    fn locked<T>(&self, change: impl FnOnce(&Book) -> T) -> Option<T> {
        let _locked = self.lock.lock().expect("no panic");
        let before = self.book.charged();
        let answer = change(&self.book);
        self.total.fetch_add(self.book.charged().wrapping_sub(before), Ordering::AcqRel);
        Some(answer)
    }
}

impl Arena for Bench {
    type Reservation = u64;

    fn reserve_at_once(&self, bytes: u64) -> Option<u64> {
        let mut before = self.total.load(Ordering::Acquire);
        while before + bytes <= self.cap {
            let swapped =
                self.total.compare_exchange(before, before + bytes, Ordering::AcqRel, Ordering::Acquire);
            match swapped {
                Ok(_) => return Some(bytes),
                Err(now) => before = now,
            }
        }
        None
    }

    fn reserve(&self, bytes: u64) -> Option<u64> {
        self.reserve_at_once(bytes).or_else(|| {
            self.trim();
            update(self);
            self.reserve_at_once(bytes)
        })
    }

    fn bytes(reservation: &u64) -> u64 {
        *reservation
    }

    fn give_back(&self, reservation: u64) {
        self.total.fetch_sub(reservation, Ordering::AcqRel);
    }

    fn keep(&self, _: u64) {
        panic!("the lock can be had");
    }
}

#[cfg(not(loom))]
mod alone {
    use super::*;

    #[test]
    fn unused_bytes_of_an_arena_are_used_first() {
        let growth = |held, used, bytes| Usage { held, used }.growth(bytes);
        assert_eq!(growth(0, 0, 10), 10);
        assert_eq!(growth(100, 90, 10), 0);
        assert_eq!(growth(100, 90, 11), 1);
        assert_eq!(growth(100, 0, 0), 0);
        // Between two queries a driver may count more as used than as held.
        assert_eq!(growth(90, 100, 10), 10);
        assert_eq!(growth(u64::MAX, 0, u64::MAX), 0);
        assert_eq!(growth(0, 0, u64::MAX), u64::MAX);
    }

    #[test]
    fn what_is_unused_serves_a_request_on_a_full_device_and_no_more() {
        let bench = Bench::new(100, Device { held: 60, used: 20, plain: 40 });
        assert!(!bench.take(41));
        assert!(bench.take(40));
        assert!(!bench.take(1));
        bench.assert_settled();
    }

    /// What a call claims stays charged although it is trimmed.
    #[test]
    fn nobody_gets_what_a_call_under_way_has_claimed() {
        let bench = Bench::new(100, Device { held: 60, used: 20, plain: 40 });
        let call = Call::begin(&bench, 30, 30).expect("it is unused");
        assert!(!bench.take_plain(11));
        assert!(bench.take_plain(10), "the call has not claimed this");
        assert!(Call::begin(&bench, 1, 1).is_none());
        bench.on_device(|device| (device.used, device.held) = (50, 50));
        let end = call.end(&bench, &Taken { is_success: true, allowed: 0, expected: 0, undo: None });
        assert_eq!((end.held, end.undone), (Some(50), None));
        bench.assert_settled();
    }
}

/// Every interleaving of two threads with at most [`PREEMPTIONS`]: `RUSTFLAGS="--cfg loom" cargo test -p gpuquota-quota --lib --release loom`.
#[cfg(loom)]
mod models {
    use super::*;

    /// More would take hours.
    const PREEMPTIONS: usize = 3;

    fn beside(bench: fn() -> Bench, one: fn(&Bench), other: fn(&Bench)) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(move || {
            let bench = Arc::new(bench());
            let there = {
                let bench = Arc::clone(&bench);
                loom::thread::spawn(move || other(&bench))
            };
            one(&bench);
            there.join().expect("no panic");
            bench.assert_settled();
        });
    }

    fn full() -> Bench {
        Bench::new(100, Device { held: 60, used: 20, plain: 40 })
    }

    /// Both count on what is unused, without a turn. One may be refused for what the other's call has claimed.
    #[test]
    fn loom_two_threads_take_what_a_pool_has_left() {
        beside(full, |bench| _ = bench.take(25), |bench| _ = bench.take(30));
    }

    #[test]
    fn loom_a_trim_takes_what_a_call_has_claimed() {
        beside(full, |bench| _ = bench.take(25), |bench| _ = bench.take_plain(30));
    }

    /// The figure of an update is as late as can be.
    #[test]
    fn loom_a_late_figure_beside_growth() {
        let roomy = || Bench::new(100, Device { held: 20, used: 20, plain: 0 });
        beside(
            roomy,
            |bench| _ = bench.take(60),
            |bench| {
                update(bench);
                bench.take_plain(30);
            },
        );
    }

    /// The call must see what the update sees too.
    #[test]
    fn loom_an_update_beside_growth_that_does_not_fit() {
        let fragmented = || Bench::fragmented(100, Device { held: 60, used: 20, plain: 40 }, 30);
        beside(fragmented, |bench| _ = bench.take(30), |bench| _ = update(bench));
    }

    #[test]
    fn loom_a_free_and_a_trim_beside_growth() {
        beside(
            full,
            |bench| _ = bench.take(45),
            |bench| {
                bench.free(20);
                bench.trim();
                update(bench);
            },
        );
    }
}
