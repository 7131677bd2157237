//! Tells containers what they cannot see: when others had the device (`quota::share::witness`).
//!
//! A thread of its own looks every millisecond at what each container on a shared device was charged, and writes into
//! each region for how long others had the device while it was at work. Regions are read and written with `pread` and
//! `pwrite`: a tenant that truncates its file must not be able to kill the agent. If the agent stops, the figure stands
//! still, and containers are charged by the clock as without one.

use crate::regions::Places;
use gpuquota_quota::share::witness::{SILENCE_NS, Witnessed, pass};
use gpuquota_region::layout::Device;
use gpuquota_region::lock::WITNESS_BYTE;
use gpuquota_region::sys::{Descriptor, LockKind, inode_of, monotonic_ns};
use std::fs::File;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How often new regions are looked for.
const SEARCH: Duration = Duration::from_secs(2);
/// How often it looks while containers are at work, and while none is.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// Work lately means: within this time.
const LATELY_NS: u64 = 1_000_000_000;
/// The figure is said again after this time, so that it does not count as old, whatever the next look comes to.
const AGAIN_NS: u64 = SILENCE_NS / 5;
const _: () = assert!(AGAIN_NS + 2 * LOOKS.1.as_nanos() as u64 <= SILENCE_NS);

/// Which file: its file system and its number there.
type Inode = (u64, u64);

/// One device of one region.
struct Watched {
    file: Arc<File>,
    /// Which file it is, and where the device's record lies in it.
    inode: Inode,
    offset: u64,
    uuid: String,
    told_ns: u64,
    told_at: u64,
}

/// All that share one device.
#[derive(Default)]
struct Shared {
    watched: Vec<Watched>,
    all: Vec<Witnessed>,
    at_ns: u64,
    worked_at: u64,
}

/// Watches for ever.
pub fn watch(places: &Places) {
    let mut devices: Vec<Shared> = Vec::new();
    let mut searched: Option<Instant> = None;
    loop {
        if searched.is_none_or(|at| at.elapsed() > SEARCH) {
            devices = search(places, devices);
            searched = Some(Instant::now());
        }
        let now = monotonic_ns();
        devices.iter_mut().for_each(|device| device.look(now));
        let busy = devices.iter().any(|device| now.saturating_sub(device.worked_at) < LATELY_NS);
        thread::sleep(if busy { LOOKS.0 } else { LOOKS.1 });
    }
}

impl Shared {
    fn look(&mut self, now: u64) {
        let passed = now.saturating_sub(self.at_ns);
        self.at_ns = now;
        let mut gone = Vec::new();
        for (at, (watched, one)) in self.watched.iter().zip(&mut self.all).enumerate() {
            let before = one.total_ns();
            match read(watched) {
                Some(total) => one.charged(total),
                None => gone.push(at),
            }
            if one.total_ns() != before {
                self.worked_at = now;
            }
        }
        for at in gone.into_iter().rev() {
            self.watched.remove(at);
            self.all.remove(at);
        }
        pass(&mut self.all, passed);
        for (watched, one) in self.watched.iter_mut().zip(&self.all) {
            if watched.told_ns != one.others_ns || now.saturating_sub(watched.told_at) > AGAIN_NS {
                watched.tell(one.others_ns, now);
            }
        }
    }
}

impl Watched {
    fn tell(&mut self, others_ns: u64, now: u64) {
        (self.told_ns, self.told_at) = (others_ns, now);
        for (field, value) in
            [(offset_of!(Device, others_ns), others_ns), (offset_of!(Device, witnessed_at), now)]
        {
            // A file that cannot be written will not be there at the next search.
            let _ = self.file.write_all_at(&value.to_le_bytes(), self.offset + field as u64);
        }
    }
}

fn read(watched: &Watched) -> Option<u64> {
    let mut bytes = [0; 8];
    let at = watched.offset + offset_of!(Device, gpu_time_ns) as u64;
    watched.file.read_exact_at(&mut bytes, at).ok().map(|()| u64::from_le_bytes(bytes))
}

/// Every device that several containers share, with what is known of those that were there before.
fn search(places: &Places, before: Vec<Shared>) -> Vec<Shared> {
    let mut known: Vec<(Watched, Witnessed)> = Vec::new();
    let mut times = Vec::new();
    for shared in before {
        let uuid = shared.watched.first().map(|watched| watched.uuid.clone());
        times.extend(uuid.map(|uuid| (uuid, shared.at_ns, shared.worked_at)));
        known.extend(shared.watched.into_iter().zip(shared.all));
    }
    let here = inode_of(c"/proc/self/ns/time");
    let mut devices: Vec<Shared> = Vec::new();
    for found in places.search().0 {
        // Of another clock nothing can be told.
        let Some((file, inode)) = writable(found.file).filter(|_| found.region.time_namespace == here) else {
            continue;
        };
        let file = known
            .iter()
            .find(|(known, _)| known.inode == inode)
            .map(|(known, _)| Arc::clone(&known.file))
            .or(file);
        let Some(file) = file else { continue };
        for device in found.region.devices {
            let same =
                |(known, _): &(Watched, Witnessed)| known.inode == inode && known.offset == device.offset;
            let (watched, one) = match known.iter().position(same) {
                Some(at) => known.swap_remove(at),
                None => {
                    let (file, uuid) = (Arc::clone(&file), device.uuid);
                    let fresh = Watched { file, inode, offset: device.offset, uuid, told_ns: 0, told_at: 0 };
                    (fresh, Witnessed::since(device.gpu_time_ns))
                }
            };
            let is_it = |shared: &&mut Shared| shared.watched.iter().any(|other| other.uuid == watched.uuid);
            let shared = match devices.iter_mut().find(is_it) {
                Some(shared) => shared,
                None => {
                    let time = times.iter().find(|(uuid, ..)| *uuid == watched.uuid);
                    let (at_ns, worked_at) =
                        time.map_or((monotonic_ns(), 0), |(_, at, worked)| (*at, *worked));
                    devices.push(Shared { at_ns, worked_at, ..Shared::default() });
                    let Some(last) = devices.last_mut() else { continue };
                    last
                }
            };
            shared.watched.push(watched);
            shared.all.push(one);
        }
    }
    // Who has a device alone waits for nobody.
    devices.retain(|shared| shared.watched.len() > 1);
    devices
}

/// The file of a region to write in, and which it is; without the former where another agent is at it. It is opened
/// anew by its descriptor, so no name leads anywhere else.
fn writable(file: OwnedFd) -> Option<(Option<Arc<File>>, Inode)> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let file = File::options().read(true).write(true).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let inode = (metadata.dev(), metadata.ino());
    let locked = Descriptor::from_raw(file.try_clone().ok()?.into_raw_fd());
    let alone = locked.try_lock(LockKind::Ofd, WITNESS_BYTE).is_ok();
    Some((alone.then(|| Arc::new(file)), inode))
}
