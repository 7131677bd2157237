//! Gives leases to containers that share a device (`quota::share::scheduler`).
//!
//! A thread of its own looks about every millisecond at what each container of a shared device wants, and writes into its
//! region when it may launch. If the agent stops, what it wrote last is old in a moment, and every container keeps its own
//! share as without one.

mod container;
mod device;

use crate::regions::{Found, Places};
use container::{ContainerDevice, RegionWriter};
use device::{IDLE_LOOK_NS, SharedDevice};
use gpuquota_quota::share::client::Client;
use gpuquota_region::sys::{inode_of, monotonic_ns};
use std::num::NonZeroU64;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How often new regions are looked for.
const SEARCH: Duration = Duration::from_secs(2);

/// How often dead processes are looked for: nobody may be left in their container who would.
const REAP: Duration = Duration::from_millis(500);

/// Watches for ever.
pub fn watch(places: &Places) {
    // Sleeps that end up to 50 us too late, the default, would leave devices idle.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let (finds, found) = mpsc::sync_channel(1);
    thread::scope(|scope| {
        // To read all regions of a node takes longer than a lease.
        scope.spawn(move || {
            while finds.send(places.search().0).is_ok() {
                let until = Instant::now() + SEARCH;
                while Instant::now() < until {
                    thread::sleep(REAP);
                    places.settle();
                }
            }
        });
        let mut devices: Vec<SharedDevice> = Vec::new();
        loop {
            if let Ok(found) = found.try_recv() {
                devices = arrange(found, devices);
            }
            let now = monotonic_ns();
            let looks = devices.iter_mut().map(|device| device.look(now));
            let next = looks.min().unwrap_or(now + IDLE_LOOK_NS);
            thread::sleep(Duration::from_nanos(next.saturating_sub(monotonic_ns())));
        }
    });
}

/// Every device that takes leases, with what is known of those that were there before.
fn arrange(found: Vec<Found>, before: Vec<SharedDevice>) -> Vec<SharedDevice> {
    let here = inode_of(c"/proc/self/ns/time");
    let mut known = before;
    let mut devices: Vec<SharedDevice> = Vec::new();
    for found in found {
        // Of another clock nothing can be told, and dead processes want nothing.
        if found.region.time_namespace != here || found.region.alive().next().is_none() {
            continue;
        }
        let open = known.iter().flat_map(SharedDevice::regions);
        let Some(region) = RegionWriter::of(&found.file, open) else { continue };
        for device in found.region.devices {
            let client = Client::new(device.gpu_time_ns.unwrap_or(0));
            let Some(container) = ContainerDevice::new(Arc::clone(&region), &device) else { continue };
            match devices.iter_mut().find(|shared| shared.uuid == device.uuid) {
                Some(shared) => shared.add(container, client),
                None => devices.push(SharedDevice::new(device.uuid, container, client)),
            }
        }
    }
    devices.retain(SharedDevice::needs_leases);
    for shared in &mut devices {
        if let Some(at) = known.iter().position(|known| known.uuid == shared.uuid) {
            shared.inherit(known.swap_remove(at));
        }
        shared.announce();
    }
    devices
}
