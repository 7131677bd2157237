//! No thread leaves the quota, and none leaves others waiting: threads that are cancelled in a call of the driver's or jump
//! out of it, exceptions that pass through it, signal handlers and callbacks amid it. The drivers are `drivers/other.c`, whose
//! own calls go through our hooks or do not, and `drivers/other_life.c`.

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Outcome};

const CAP: i64 = 2 * GIB;

/// Runs `leaves` in some way on both kinds of drivers. Afterwards the slice is the slice, from any frame; the books say at least
/// what the driver holds; what is left can be had, and no more.
fn leave(how: &str, judge: impl Fn(&Outcome, &str)) {
    for kind in ["bound", "plt"] {
        let machine = Machine::with_driver(kind);
        let quota = machine.quota().memory(CAP).with("GPUQUOTA_LOG", "off");
        let outcome = quota.run("leaves", &[how]).success();
        let context = format!("{how} on {kind}: {outcome}");
        assert_eq!(outcome.values("total"), [CAP; 3], "{context}");
        for (charged, held) in outcome.values("charged").iter().zip(outcome.values("held")) {
            assert!(*charged >= held, "{context}");
        }
        assert!(outcome.value("driver_peak") <= CAP, "{context}");
        let over = outcome.values("over");
        assert!(over.iter().all(|rc| *rc == OUT_OF_MEMORY), "{context}");
        assert_eq!(outcome.values("rest"), [0, 0], "{context}");
        assert_eq!(outcome.values("charged")[1..], [CAP, CAP], "what is left can be had: {context}");
        judge(&outcome, &context);
    }
}

/// The driver may have given the bytes before the jump, so they stay charged.
#[test]
fn a_thread_that_jumps_out_of_a_call_stays_in_the_quota() {
    for how in ["jump", "deep_jump"] {
        leave(how, |outcome, context| assert_eq!(outcome.values("charged")[0], 8 * MIB, "{context}"));
    }
}

#[test]
fn jumps_out_of_calls_at_any_instant_leave_no_lock_and_no_thread_outside() {
    leave("jumps", |outcome, context| assert_eq!(outcome.value("met"), 1, "{context}"));
}

/// The charge is exact: what the handler takes, and what the interrupted call takes.
#[test]
fn what_a_signal_handler_or_a_callback_takes_amid_a_call_is_charged() {
    for how in ["called_back", "handler", "own_stack"] {
        leave(how, |outcome, context| {
            assert_eq!((outcome.value("rc"), outcome.value("nested_rc")), (0, 0), "{context}");
            assert_eq!(outcome.values("charged")[0], 12 * MIB, "{context}");
            assert_eq!(outcome.values("held")[0], 12 * MIB, "{context}");
        });
    }
}

/// A handler that needs a lock of the call that it has interrupted cannot have it: then a free leaves its charge behind. So
/// there may be a little too much in the books, and never too little.
#[test]
fn signal_handlers_may_take_memory_at_any_instant() {
    leave("handlers", |outcome, context| {
        assert_eq!(outcome.value("met"), 1, "{context}");
        let more = outcome.values("charged")[0] - outcome.values("held")[0];
        assert!((0..=8 * MIB).contains(&more), "{more} bytes too much: {context}");
    });
}

#[test]
fn a_thread_that_is_cancelled_in_the_driver_leaves_nobody_waiting() {
    leave("cancel", |outcome, context| {
        assert_eq!(outcome.value("cancelled"), 1, "{context}");
        assert!(outcome.values("came_back").is_empty(), "{context}");
    });
}

/// Without the library these calls are none, with this driver; so they are none with it, also where it opens files or waits.
#[test]
fn the_library_makes_no_call_a_point_of_cancellation() {
    leave("first_call", |outcome, context| {
        assert_eq!((outcome.value("rc"), outcome.value("cancelled")), (0, 1), "{context}");
        assert_eq!(outcome.values("charged")[0], 0, "{context}");
    });
}

#[test]
fn threads_that_are_cancelled_at_any_instant_leave_no_lock() {
    leave("cancels", |_, _| {});
}

#[test]
fn a_thread_stays_in_the_quota_after_an_exception_through_a_call() {
    for kind in ["bound", "plt"] {
        let machine = Machine::with_driver(kind);
        let outcome = machine.quota().memory(CAP).with("GPUQUOTA_LOG", "off").run("thrown", &[]).success();
        assert_eq!(outcome.value("caught"), 42, "{outcome}");
        assert_eq!(outcome.value("total"), CAP, "{outcome}");
        assert_eq!((outcome.value("over"), outcome.value("rest")), (OUT_OF_MEMORY, 0), "{outcome}");
        assert!(outcome.value("driver_peak") <= CAP, "{outcome}");
    }
}

/// Afterwards others launch at their share, 10% with kernels of 2 ms: at least 10 launches in 150 ms.
#[test]
fn a_thread_that_leaves_a_launch_while_it_waits_delays_nobody() {
    let machine = Machine::with_driver("life");
    for how in ["cancel", "killed", "jump", "elsewhere"] {
        let quota = machine.quota().memory(CAP).cores(10);
        let outcome = quota.run("leaves_launch", &[how]).success();
        assert_eq!(outcome.value("left"), 1, "{how}: {outcome}");
        let took = outcome.value("milliseconds");
        assert!(took >= 150, "{how}: the share does not hold any more: {outcome}");
        assert!(took < 5000, "{how}: {outcome}");
    }
}

#[test]
fn a_primary_context_that_is_retained_and_released_for_ever_leaks_nothing() {
    let machine = Machine::with_driver("life");
    let quota = machine.quota().memory(CAP).cores(99).with("OTHER_KERNEL_MS", "0.002");
    let outcome = quota.run("retains", &["100000"]).success();
    assert_eq!(outcome.value("driver_launches"), 100_000, "{outcome}");
    assert_eq!(outcome.value("charged"), 4 * MIB, "{outcome}");
    let (events, streams) = (outcome.value("driver_events_peak"), outcome.value("driver_streams_peak"));
    assert!(events <= 150 && streams <= 1, "{outcome}");
}

/// 40 kernels of 2 ms, none of which is over before its context was released.
#[test]
fn what_flew_when_a_primary_context_was_released_is_charged_as_it_was() {
    let machine = Machine::with_driver("life");
    let quota = machine.quota().memory(CAP).cores(99);
    quota.run("retains", &["40", "1"]).success();
    let charged = quota.inspect()["devices"][0]["gpu_time_ns"].as_i64().expect("a number");
    assert_eq!(charged, 80_000_000);
}

#[test]
fn the_memory_of_a_green_context_is_given_back_with_it_or_stays_charged_with_the_device() {
    let machine = Machine::with_driver("life");
    for first in [&["first"][..], &[]] {
        for keeps in [false, true] {
            let mut quota = machine.quota().memory(CAP);
            if keeps {
                quota = quota.with("OTHER_GREEN_KEEPS", "1");
            }
            let outcome = quota.run("green", first).success();
            assert_eq!(outcome.values("charged"), outcome.values("held"), "{first:?}, {keeps}: {outcome}");
            assert_eq!(outcome.values("held")[0], 6 * MIB, "{first:?}, {keeps}: {outcome}");
        }
    }
}
