//! The books of a pool: by example, and over all interleavings of a few threads.

use super::*;

#[cfg(not(loom))]
mod examples {
    use super::*;

    #[test]
    fn an_answer_that_is_older_than_another_settlement_never_lowers_the_charge() {
        let books = PoolBooks::default();
        let early = books.ask();
        books.reserve(32);
        let asked = books.ask();
        assert_eq!(books.settle(asked, 32, Part::Growth(32), Some(32)), 32);
        // Asked before the pool grew, and answered now.
        assert_eq!(books.update(early, 0), None);
        books.reserve(0);
        assert_eq!(books.settle(early, 0, Part::Growth(0), Some(0)), 32);
        // A new answer does.
        let asked = books.ask();
        assert_eq!(books.update(asked, 8), Some(8));
    }

    #[test]
    fn unused_bytes_are_promised_once() {
        let books = PoolBooks::default();
        let asked = books.ask();
        assert_eq!(books.update(asked, 100), Some(100));
        let asked = books.ask();
        assert!(books.promise(asked, 60, 40));
        assert!(!books.promise(asked, 60, 40), "20 are left");
        assert!(books.promise(asked, 60, 20));
        let again = books.ask();
        assert_eq!(books.settle(again, 100, Part::Unused(40), Some(40)), 100);
        assert!(!books.promise(asked, 60, 1), "the answer is old");
        assert!(!books.promise(books.ask(), u64::MAX, u64::MAX), "no overflow");
    }

    #[test]
    fn the_block_of_a_pool_is_learned_from_its_growth() {
        let grown = |pairs: &[(u64, u64)]| {
            let (books, mut held) = (PoolBooks::default(), 0);
            for (bytes, growth) in pairs {
                books.reserve(*growth);
                held += growth;
                let asked = books.ask();
                books.settle(asked, held, Part::Growth(*growth), Some(*bytes));
            }
            books.unit(2)
        };
        assert_eq!(grown(&[]), 2);
        assert_eq!(grown(&[(4, 4), (6, 6)]), 2);
        assert_eq!(grown(&[(1, 32)]), 32);
        assert_eq!(grown(&[(16, 32)]), 32);
        assert_eq!(grown(&[(33, 64)]), 32);
        assert_eq!(grown(&[(1, 32), (32, 32), (31, 32)]), 32);
        assert_eq!(grown(&[(1, 1 << 40)]), 2, "no block is so large");
        assert_eq!(in_units(33, 32), 64);
        assert_eq!(in_units(u64::MAX, 32), u64::MAX);
    }

    #[test]
    fn growth_beyond_charge_and_reservations_is_unexpected() {
        let books = PoolBooks::default();
        books.reserve(10);
        books.reserve(5);
        assert_eq!((books.unexpected(15), books.unexpected(17)), (0, 2));
        books.forget(Part::Growth(5));
        assert_eq!(books.unexpected(15), 5);
        books.clear();
        assert_eq!(books.unexpected(15), 15);
    }
}

/// Every interleaving of threads that allocate from one pool, of a driver that answers late, and of one that shrinks the
/// pool: it never holds more than its charge and the reservations.
#[cfg(loom)]
mod loom_models {
    use super::*;
    use loom::sync::{Arc, Mutex, atomic::AtomicU64};
    use std::sync::atomic::Ordering::SeqCst;

    /// A pool of the driver's and its books.
    #[derive(Default)]
    struct World {
        /// What the pool holds and what its allocations use.
        pool: Mutex<(u64, u64)>,
        books: PoolBooks,
        lock: Mutex<()>,
        /// What the container is charged for the pool, reservations included.
        ledger: AtomicU64,
    }

    impl World {
        fn locked<T>(&self, action: impl FnOnce(&PoolBooks) -> T) -> T {
            let _locked = self.lock.lock().expect("no thread panics");
            action(&self.books)
        }

        /// The driver's call: an allocation that grows the pool if its unused bytes do not suffice.
        fn call(&self, bytes: u64) {
            let mut pool = self.pool.lock().expect("no thread panics");
            pool.1 += bytes;
            pool.0 = pool.0.max(pool.1);
            assert!(pool.0 <= self.ledger.load(SeqCst), "the pool holds {} of {:?}", pool.0, self.ledger);
        }

        fn held(&self) -> (u64, u64) {
            *self.pool.lock().expect("no thread panics")
        }

        /// Sets the ledger's part for the charge, as `change` of the books says.
        fn recharge(&self, before: u64, after: u64) {
            if after >= before {
                self.ledger.fetch_add(after - before, SeqCst);
            } else {
                self.ledger.fetch_sub(before - after, SeqCst);
            }
        }

        fn settle(&self, part: Part, bytes: u64) {
            let asked = self.locked(PoolBooks::ask);
            let (held, _) = self.held();
            self.locked(|books| {
                let before = books.charged();
                assert_eq!(books.unexpected(held), 0);
                self.recharge(before, books.settle(asked, held, part, Some(bytes)));
            });
            if let Part::Growth(growth) = part {
                self.ledger.fetch_sub(growth, SeqCst);
            }
        }

        fn allocate(&self, bytes: u64) {
            self.ledger.fetch_add(bytes, SeqCst);
            self.locked(|books| books.reserve(bytes));
            self.call(bytes);
            self.settle(Part::Growth(bytes), bytes);
        }

        /// Allocates from unused bytes, if there are enough.
        fn allocate_unused(&self, bytes: u64) -> bool {
            let asked = self.locked(PoolBooks::ask);
            let (held, used) = self.held();
            let promised = self.locked(|books| books.promise(asked, held.saturating_sub(used), bytes));
            if promised {
                self.call(bytes);
                self.settle(Part::Unused(bytes), bytes);
            }
            promised
        }

        fn update(&self) {
            let asked = self.locked(PoolBooks::ask);
            let (held, _) = self.held();
            self.locked(|books| {
                let before = books.charged();
                if let Some(after) = books.update(asked, held) {
                    self.recharge(before, after);
                }
            });
        }

        /// The program gives memory back, and the driver trims.
        fn trim(&self) {
            let mut pool = self.pool.lock().expect("no thread panics");
            pool.0 = pool.1;
        }
    }

    fn world(held: u64, used: u64) -> Arc<World> {
        let world = World::default();
        *world.pool.lock().expect("new") = (held, used);
        world.ledger.store(held, SeqCst);
        assert_eq!(world.books.update(world.books.ask(), held), Some(held));
        Arc::new(world)
    }

    fn run(world: Arc<World>, one: fn(&World), two: fn(&World)) {
        let other = world.clone();
        let thread = loom::thread::spawn(move || one(&other));
        two(&world);
        thread.join().expect("no thread panics");
        assert!(world.held().0 <= world.ledger.load(SeqCst));
    }

    #[test]
    fn loom_two_allocations_are_charged_whatever_answer_is_late() {
        loom::model(|| run(world(0, 0), |world| world.allocate(2), |world| world.allocate(3)));
    }

    #[test]
    fn loom_an_update_beside_an_allocation_takes_no_old_answer() {
        loom::model(|| run(world(4, 2), |world| world.allocate(3), World::update));
    }

    #[test]
    fn loom_two_threads_do_not_use_the_same_unused_bytes() {
        let take = |world: &World| _ = world.allocate_unused(3);
        loom::model(move || run(world(8, 4), take, take));
    }

    #[test]
    fn loom_a_trim_beside_a_promise_is_charged() {
        loom::model(|| {
            let trim = |world: &World| {
                world.trim();
                world.update();
            };
            run(world(8, 4), |world| _ = world.allocate_unused(3), trim);
        });
    }
}
