use super::{Ask, Lock};
use crate::thread;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// As in a hook: the thread knows its number.
fn known<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            thread::learn_id();
            action()
        });
        thread.join().expect("ran")
    })
}

fn free() -> Lock {
    Lock(Default::default())
}

#[test]
fn the_lock_of_an_ended_thread_is_taken_over_and_repaired() {
    let lock = free();
    known(|| core::mem::forget(lock.try_lock().expect("free")));
    for lose_again in [true, false] {
        let mut repaired = 0;
        known(|| {
            let guard = lock.lock(|| repaired += 1).expect("taken over");
            if lose_again {
                core::mem::forget(guard);
            }
        });
        assert_eq!(repaired, 1);
    }
    assert!(known(|| lock.try_lock().is_some()), "it was released");
}

#[test]
fn a_thread_takes_its_own_lost_lock_over() {
    let lock = free();
    known(|| {
        core::mem::forget(lock.try_lock().expect("free"));
        assert!(lock.try_lock().is_none());
        let repaired = AtomicBool::new(false);
        assert!(lock.try_lock_or_repair(Ask::Kernel, || repaired.store(true, SeqCst)).is_some());
        assert!(repaired.load(SeqCst));
    });
}

#[test]
fn a_signal_handler_does_not_wait_for_the_code_that_it_interrupted() {
    let lock = free();
    known(|| {
        let _held = lock.try_lock().expect("free");
        thread::tests::nested(|| {
            assert!(lock.lock(|| panic!("it is not lost")).is_none());
            assert!(lock.try_lock_or_repair(Ask::Kernel, || panic!("it is not lost")).is_none());
        });
    });
    assert!(known(|| lock.try_lock().is_some()));
}

#[test]
fn the_lock_of_a_living_thread_is_never_taken_and_nobody_waits_for_it_for_ever() {
    let lock = free();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            thread::learn_id();
            let _held = lock.try_lock().expect("free");
            while !done.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        while lock.0.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        let waited = [(); 2].map(|()| {
            let began = Instant::now();
            assert!(known(|| lock.lock(|| panic!("it is not lost")).is_none()));
            began.elapsed()
        });
        assert!(waited[1] < waited[0] / 10, "the second waiter knows: {waited:?}");
        done.store(true, SeqCst);
    });
    assert!(known(|| lock.lock(|| panic!("it is not lost")).is_some()));
}
