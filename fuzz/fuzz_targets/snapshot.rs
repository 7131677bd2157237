//! The node's reader of regions: files that a tenant can write at will.
#![no_main]

use std::sync::{LazyLock, Mutex};

use arbitrary::Arbitrary;
use gpuquota_fuzz::{Damage, Unnamed};
use gpuquota_region::layout::DEVICE_READY;
use gpuquota_region::{Snapshot, layout};
use libfuzzer_sys::fuzz_target;
use std::sync::atomic::Ordering::Relaxed;

/// A region with a device, a process and an event.
static SAMPLE: LazyLock<Mutex<Vec<u8>>> = LazyLock::new(|| {
    let file = Unnamed::new(&[]);
    file.opened(|region| {
        let region = region.expect("an empty file becomes a region");
        let ours = region.ours();
        ours.devices[0].used.store(4096, Relaxed);
        ours.devices[0].state.store(DEVICE_READY, Relaxed);
        ours.slots[0].state.store(layout::SLOT_TAKEN, Relaxed);
        region.event(layout::EVENT_DENIED, 0, 10, 20, 25);
    });
    Mutex::new(file.contents())
});

#[derive(Arbitrary, Debug)]
struct Input<'i> {
    damage: Damage<'i>,
    slot: usize,
    device: usize,
}

fuzz_target!(|input: Input| {
    let mut sample = SAMPLE.lock().expect("nobody else is here");
    input.damage.shown(&mut sample, |bytes| {
        let Ok(snapshot) = Snapshot::parse(bytes) else { return };
        for device in snapshot.devices() {
            assert!(device.used <= layout::USED_MASK);
            assert!(!device.uuid.contains(&0) && device.uuid.len() <= layout::UUID_BYTES);
            let _ = snapshot.device_offset(device.index);
        }
        for process in snapshot.processes() {
            let _ = snapshot.held(process.slot, input.device);
        }
        let _ = (snapshot.events().count(), snapshot.held(input.slot, input.device));
        let _ = (snapshot.pending_ns(input.slot, input.device), snapshot.generation(), snapshot.fallbacks());
    });
});
