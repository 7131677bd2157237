//! A container of a test's own, with a region in a file of its own.
//!
//! # Safety
//! This file may use `unsafe` because it makes a container of zeroes, which is a container before its start, and starts it
//! before any other code has it.

use super::Container;
use super::start::Startup;
use gpuquota_quota::limits::Limits;
use gpuquota_quota::text::Fixed;
use gpuquota_region::Region;
use gpuquota_region::layout::{SLOT_FREE, SLOT_TAKEN};
use std::boxed::Box;
use std::ffi::CString;
use std::format;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

impl Container {
    /// A container with a region and these limits, as if the operator had asked for them.
    pub fn of_test(limits: Limits) -> Box<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let path = std::env::temp_dir().join(format!("gpuquota-test-{}-{number}", std::process::id()));
        let path = CString::new(path.to_str().expect("a path in UTF-8")).expect("no NUL");
        let mut startup = Startup::default();
        startup.region = Some(Region::open(&path, 0).expect("a region"));
        startup.path = Fixed::copy_of(path.as_bytes()).expect("a short path");
        startup.reading.limits = limits;
        // SAFETY: all-zero bytes are a container before its start, and no other code has it yet.
        let container = unsafe {
            let container: Box<Self> = Box::new(core::mem::zeroed());
            (*container.startup.get()).write(startup);
            container
        };
        // The claim of a slot opens the file by its name. Later uses of its locks have a descriptor.
        assert_eq!(container.slot_index(), Some(0));
        gpuquota_region::names::remove(&path);
        container
    }
}

#[test]
fn a_process_that_has_gone_is_a_peer_no_longer() {
    const SECOND: u64 = 1_000_000_000;
    let container = Container::of_test(Limits::default());
    assert!(container.may_have_peers(), "nobody has looked");
    let look = |at| (container.count_peers(at), container.may_have_peers());
    assert_eq!(look(SECOND), (0, false));
    let other = &container.ours().slots[3];
    other.state.store(SLOT_TAKEN, Relaxed);
    container.header().slot_high.store(4, Relaxed);
    assert_eq!(look(SECOND + 1), (0, false), "the last look was a moment ago");
    assert_eq!(look(2 * SECOND), (1, true));
    other.state.store(SLOT_FREE, Relaxed);
    assert_eq!(look(3 * SECOND), (0, false), "slot_high stays");
}
