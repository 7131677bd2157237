//! A file that HAMi's library has left behind, that a monitor writes, or that is something else: it becomes a region, or
//! stays as it is.
#![no_main]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{LazyLock, Mutex};

use arbitrary::Arbitrary;
use gpuquota_fuzz::{Damage, Unnamed};
use gpuquota_region::layout::{FILE_BYTES, STATE_READY};
use gpuquota_region::{Snapshot, hami};
use libfuzzer_sys::fuzz_target;

/// HAMi's view alone, as its library makes it, and a region of ours.
static SAMPLES: LazyLock<Mutex<[Vec<u8>; 2]>> = LazyLock::new(|| {
    let file = Unnamed::new(&[]);
    file.opened(|region| assert!(region.is_ok()));
    let ours = file.contents();
    Mutex::new([ours[..size_of::<hami::View>()].to_vec(), ours])
});

#[derive(Arbitrary, Debug)]
struct Input<'i> {
    ours: bool,
    damage: Damage<'i>,
}

fuzz_target!(|input: Input| {
    let mut samples = SAMPLES.lock().expect("nobody else is here");
    let sample = &mut samples[usize::from(input.ours)];
    input.damage.shown(sample, |before| {
        let file = Unnamed::new(before);
        let opened = file.opened(|region| {
            let region = region.ok()?;
            let view = region.hami();
            assert_eq!(region.ours().header.state.load(Relaxed), STATE_READY);
            Some((view.device_num.load(Relaxed), view.proc_num.load(Relaxed)))
        });
        let after = file.contents();
        match opened {
            None => assert!(after == before, "a file that is no region is left as it is"),
            Some(_) if before.len() >= FILE_BYTES => assert_eq!(after.len(), before.len()),
            Some(counts) => {
                assert_eq!(counts, (0, 0), "what was there before is nobody's");
                assert!(Snapshot::parse(&after).is_ok(), "the node reads it");
            }
        }
    });
});
