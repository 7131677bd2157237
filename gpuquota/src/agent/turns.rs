//! Gives turns to containers that share a device (`quota::share::scheduler`).
//!
//! A thread of its own looks about every millisecond at what each container of a shared device wants, and writes into its
//! region when it may launch. Regions are read and written with `pread` and `pwrite`, and their page is mapped only to
//! wake whoever sleeps on it: a tenant that truncates its file must not be able to kill the agent. If the agent stops,
//! what it said last is old in a moment, and every container keeps its own share as without one.

mod device;

use crate::regions::{Found, Places};
use device::{Shared, Watched};
use gpuquota_quota::share::client::Client;
use gpuquota_quota::share::lease::AGENT_TIMEOUT_NS;
use gpuquota_region::lock::AGENT_BYTE;
use gpuquota_region::sys::{Bells, Descriptor, LockKind, inode_of, monotonic_ns};
use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// How often new regions are looked for.
const SEARCH: Duration = Duration::from_secs(2);
/// How often it looks while nobody does anything.
const IDLE_LOOK_NS: u64 = 20_000_000;
/// What was said is said again after this time, so that it does not count as old, whatever the next look comes to.
const AGAIN_NS: u64 = AGENT_TIMEOUT_NS / 5;
const _: () = assert!(AGAIN_NS + IDLE_LOOK_NS < AGENT_TIMEOUT_NS);

/// A region's file, open to be written, and locked against other agents.
struct Home {
    file: File,
    /// Which file: its file system and its number there.
    inode: (u64, u64),
    bells: Bells,
}

/// Watches for ever.
pub fn watch(places: &Places) {
    // Sleeps that end up to 50 us too late, the default, would leave devices idle.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let (finds, found) = mpsc::sync_channel(1);
    thread::scope(|scope| {
        // To read all regions of a node takes longer than a turn.
        scope.spawn(move || {
            while finds.send(places.search().0).is_ok() {
                thread::sleep(SEARCH);
            }
        });
        let mut devices: Vec<Shared> = Vec::new();
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

/// Every device of which there is anything to be said, with what is known of those that were there before.
fn arrange(found: Vec<Found>, before: Vec<Shared>) -> Vec<Shared> {
    let here = inode_of(c"/proc/self/ns/time");
    let mut known = before;
    let mut devices: Vec<Shared> = Vec::new();
    for found in found {
        // Of another clock nothing can be told, and the dead want nothing.
        if found.region.time_namespace != here || found.region.alive().next().is_none() {
            continue;
        }
        let Some(home) = home(found.file, &known) else { continue };
        for device in found.region.devices {
            let watched = Watched::new(Arc::clone(&home), &device);
            match devices.iter_mut().find(|shared| shared.uuid == device.uuid) {
                Some(shared) => shared.add(watched, Client::new(device.gpu_time_ns)),
                None => devices.push(Shared::new(device.uuid, watched, Client::new(device.gpu_time_ns))),
            }
        }
    }
    devices.retain(Shared::needs_turns);
    for shared in &mut devices {
        if let Some(at) = known.iter().position(|known| known.uuid == shared.uuid) {
            shared.inherit(known.swap_remove(at));
        }
        shared.prepare();
    }
    devices
}

/// The file of a region to write in; `None` where another agent is at it. It is opened anew by its descriptor, so no name
/// leads anywhere else.
fn home(file: OwnedFd, known: &[Shared]) -> Option<Arc<Home>> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let file = File::options().read(true).write(true).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let inode = (metadata.dev(), metadata.ino());
    let homes = known.iter().flat_map(Shared::homes);
    if let Some(home) = homes.into_iter().find(|home| home.inode == inode) {
        return Some(Arc::clone(home));
    }
    let descriptor = Descriptor::from_raw(file.try_clone().ok()?.into_raw_fd());
    descriptor.try_lock(LockKind::Ofd, AGENT_BYTE).ok()?;
    let bells = Bells::of(&descriptor, gpuquota_region::layout::OURS as u64).ok()?;
    Some(Arc::new(Home { file, inode, bells }))
}
