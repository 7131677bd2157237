//! The region's records of devices: the first process of the container that meets a device makes its record.

use crate::container::Container;
use crate::uuid::Uuid;
use core::sync::atomic::{Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use gpuquota_region::layout::{DEVICE_CLAIMED, DEVICE_FREE, DEVICE_READY, Device};
use gpuquota_region::{Region, lock, sys};

/// The index of the region's record of a device; makes the record if the container has none yet.
#[cold]
pub fn register(container: &Container, uuid: &Uuid, total: u64) -> Option<u8> {
    let _errno = sys::KeepErrno::new();
    let region = container.region();
    let devices = &region.ours().devices;
    loop {
        if let Some(found) = position(&region, uuid) {
            return Some(found);
        }
        let own = devices.iter().position(|device| {
            device.state.compare_exchange(DEVICE_FREE, DEVICE_CLAIMED, AcqRel, Relaxed).is_ok()
        })?;
        let device = devices.get(own)?;
        write_uuid(device, uuid);
        // If two processes register the same device at once, the lower record wins.
        let mut lost = false;
        for earlier in devices.iter().take(own) {
            wait_while_claimed(earlier);
            lost |= earlier.state.load(Acquire) == DEVICE_READY && uuid.matches(earlier);
        }
        if lost {
            device.state.store(DEVICE_FREE, Release);
            continue;
        }
        publish(&region, own, device, uuid, total);
    }
}

fn write_uuid(device: &Device, uuid: &Uuid) {
    device.claimed_by.store(sys::pid(), Relaxed);
    device.uuid.iter().zip(uuid.words()).for_each(|(stored, own)| stored.store(own, Relaxed));
}

fn publish(region: &Region, at: usize, device: &Device, uuid: &Uuid, total: u64) {
    device.memory_total.store(total, Relaxed);
    region.settle_limits(at);
    device.state.store(DEVICE_READY, Release);
    write_hami_view(region, at, uuid);
}

/// Puts a device back at its place. False where that is another device's.
#[cold]
pub fn put_back_record(region: &Region, index: u8, uuid: &Uuid, total: u64) -> bool {
    let Some(device) = region.ours().devices.get(usize::from(index)) else { return false };
    wait_while_claimed(device);
    if device.state.compare_exchange(DEVICE_FREE, DEVICE_CLAIMED, AcqRel, Acquire).is_ok() {
        write_uuid(device, uuid);
        publish(region, usize::from(index), device, uuid, total);
    }
    wait_while_claimed(device);
    device.state.load(Acquire) != DEVICE_READY || uuid.matches(device)
}

fn position(region: &Region, uuid: &Uuid) -> Option<u8> {
    let is_its = |device: &Device| device.state.load(Acquire) == DEVICE_READY && uuid.matches(device);
    region.ours().devices.iter().position(is_its).map(|index| index as u8)
}

/// Waits for a process that is writing a record. That takes microseconds; the record of a process that died is freed.
fn wait_while_claimed(device: &Device) {
    let deadline = sys::monotonic_ns().wrapping_add(100_000_000);
    while device.state.load(Acquire) == DEVICE_CLAIMED {
        let now = sys::monotonic_ns();
        if now > deadline && lock::process_stat(device.claimed_by.load(Relaxed)).is_none() {
            let _ = device.state.compare_exchange(DEVICE_CLAIMED, DEVICE_FREE, AcqRel, Relaxed);
            return;
        }
        sys::sleep_until(now.wrapping_add(50_000));
    }
}

/// Writes a device into HAMi's view.
fn write_hami_view(region: &Region, index: usize, uuid: &Uuid) {
    let view = region.hami();
    let Some(words) = view.uuids.get(index) else { return };
    words.iter().zip(uuid.words()).for_each(|(stored, own)| stored.store(own, Relaxed));
    view.device_num.fetch_max((index as u64).wrapping_add(1), AcqRel);
}
