//! Gives leases to containers that share a device (`quota::share::scheduler`).
//!
//! A thread of its own looks about every millisecond at what each container of a shared device wants, and writes into its
//! region when it may launch. If the agent stops, what it wrote last is old in a moment, and every container keeps its own
//! share as without one. What a tenant's file can do to that thread is in `desk`.

mod container;
mod desk;
mod device;

use crate::regions::{AllLiving, Device, Has, Index, Living, Owner};
use container::{ContainerDevice, Place, RegionWriter, Said};
use desk::{Desk, Seat, Unseated};
use device::{IDLE_LOOK_NS, SharedDevice};
use gpuquota_quota::share::client::Client;
use gpuquota_region::sys::{inode_of, monotonic_ns};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How often dead processes are looked for: nobody may be left in their container who would. And how many of these rounds
/// until new regions are looked for.
const ROUND: Duration = Duration::from_millis(500);
const SEARCH: u32 = 2;
/// How long after its start the agent looks more often.
const START: Duration = Duration::from_secs(1);
/// A container with a share that has used nothing for so many searches sleeps where more than so many do: it is on its own,
/// and gets leases again within a round after it has begun to work. All are awake again where no more than half as many sleep.
const IDLE_SEARCHES: u32 = 5;
const AWAKE: usize = 32;
/// How often it is looked whether a file holds up the thread that gives leases; and where there are none to give.
const GUARD: Duration = Duration::from_millis(3);
const IDLE_GUARD: Duration = Duration::from_millis(100);
/// Where nobody needs leases, what the search finds wakes the thread that gives them, and this time does in any case.
const NOBODY: Duration = Duration::from_secs(1);
/// Devices that are shared out; of one owner at most so many, and so many of its containers' devices.
const DEVICES: usize = 256;
const DEVICES_OF_OWNER: usize = 16;
const CLIENTS_OF_OWNER: usize = 128;

/// What the threads that give leases know, one after the other.
#[derive(Default)]
struct Table {
    devices: Vec<SharedDevice>,
    /// What the last search found, if nobody has taken it in.
    found: Option<Vec<Candidate>>,
}

/// A container that may get leases.
struct Candidate {
    owner: Owner,
    devices: Vec<(String, ContainerDevice, Client)>,
}

#[derive(Default)]
struct Leases {
    turns: bool,
    table: Mutex<Table>,
    /// The search has found containers.
    has_found: Condvar,
    desk: Desk,
}

/// Watches for ever. `turns`: containers only take turns.
pub fn watch(index: Arc<Index>, turns: bool) {
    let leases = Arc::new(Leases { turns, ..Leases::default() });
    let begin = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let thread = thread::Builder::new().name(name.to_owned());
        // Without it nobody gives leases, and each container is on its own; the next round tries again.
        thread.spawn(work).is_ok()
    };
    let searching = Arc::clone(&leases);
    begin("search", Box::new(move || searching.search(&index)));
    let mut needs_leader = true;
    loop {
        if needs_leader {
            let giving = Arc::clone(&leases);
            needs_leader = !begin("leases", Box::new(move || _ = giving.give()));
        }
        thread::sleep(if leases.table().devices.is_empty() { IDLE_GUARD } else { GUARD });
        needs_leader |= leases.desk.is_held_up(monotonic_ns());
    }
}

impl Leases {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for containers that may get leases, and settles their dead.
    fn search(&self, index: &Index) {
        let here = inode_of(c"/proc/self/ns/time");
        let mut open: HashMap<(u64, u64), Weak<RegionWriter>> = HashMap::new();
        let mut idle = Idle::default();
        let begun = Instant::now();
        index.settle();
        loop {
            open.retain(|_, writer| writer.strong_count() != 0);
            let mut living = index.living(|inode| match open.contains_key(&inode) {
                true => Has::File,
                false if idle.sleeps(inode) => Has::Asleep,
                false => Has::Nothing,
            });
            // Of another clock nothing can be told.
            living.read.retain(|one| one.region.time_namespace == here);
            let awake = idle.wake(living);
            let found = awake.into_iter().filter_map(|living| candidate(living, &mut open)).collect();
            self.table().found = Some(found);
            self.has_found.notify_one();
            // At the start, containers of an agent before are on their own.
            if begun.elapsed() < START {
                thread::sleep(ROUND / 5);
                index.settle();
                continue;
            }
            for _ in 0..SEARCH {
                thread::sleep(ROUND);
                if index.settle() {
                    break;
                }
            }
        }
    }

    /// Gives leases until a file holds this thread up.
    fn give(&self) -> Result<(), Unseated> {
        // Sleeps that end up to 50 us too late, the default, would leave devices idle.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let seat = self.desk.sit_down();
        loop {
            let now = monotonic_ns();
            match self.due(now) {
                Ok((at, places)) => self.look(&seat, at, &places, now)?,
                Err(Some(next_ns)) => {
                    thread::sleep(Duration::from_nanos(next_ns.saturating_sub(monotonic_ns())))
                }
                Err(None) => {
                    let nobody = |table: &mut Table| table.found.is_none();
                    drop(self.has_found.wait_timeout_while(self.table(), NOBODY, nobody));
                }
            }
            if !seat.is_ours() {
                return Err(Unseated);
            }
        }
    }

    /// A device that is to be looked at now, and its places; else, when one is, if there is any.
    fn due(&self, now: u64) -> Result<(usize, Vec<Option<Place>>), Option<u64>> {
        let mut table = self.table();
        if let Some(found) = table.found.take() {
            table.devices = arrange(found, std::mem::take(&mut table.devices), self.turns);
        }
        let first = table.devices.iter_mut().enumerate().min_by_key(|(_, device)| device.next_look_ns);
        let Some((at, device)) = first else { return Err(None) };
        if device.next_look_ns > now {
            return Err(Some(device.next_look_ns.min(now + IDLE_LOOK_NS)));
        }
        device.leave_out_late(now);
        Ok((at, device.places(now)))
    }

    /// Looks at one device. Nothing is held meanwhile that another thread would need.
    fn look(&self, seat: &Seat<'_>, at: usize, places: &[Option<Place>], now: u64) -> Result<(), Unseated> {
        let ask =
            |place: &Option<Place>| place.as_ref().map_or(Ok(Said::Nothing), |place| place.read(seat, now));
        let said = places.iter().map(ask).collect::<Result<Vec<_>, _>>()?;
        let words = self.table().devices.get_mut(at).map(|device| device.look(said, now));
        words.into_iter().flatten().try_for_each(|words| words.write(seat))
    }
}

/// What a container had used, for how many searches that has stayed so, and whether it sleeps.
#[derive(Clone)]
struct Rest {
    used: u64,
    searches: u32,
    sleeps: bool,
    devices: Vec<Wanted>,
}

/// One of its devices.
#[derive(Clone)]
struct Wanted {
    uuid: String,
    /// Whether it has a share there below the whole, and one that others' leases have to keep; and whether it may have more.
    has_share: bool,
    has_request: bool,
    borrows: bool,
}

impl Rest {
    /// Whether it needs no leases while it does nothing: it has a share on each device, or nobody there has one.
    fn may_sleep(&self, needed: &HashSet<String>) -> bool {
        self.devices.iter().all(|device| device.has_share || !needed.contains(&device.uuid))
    }
}

/// The containers that rest.
#[derive(Default)]
struct Idle {
    rests: HashMap<(u64, u64), Rest>,
    /// The devices for which leases are needed.
    needed: HashSet<String>,
}

impl Idle {
    fn sleeps(&self, inode: (u64, u64)) -> bool {
        self.rests.get(&inode).is_some_and(|rest| rest.sleeps)
    }

    /// Leaves out the containers that sleep, and those that have no device for which leases are needed.
    fn wake(&mut self, living: AllLiving) -> Vec<Living> {
        let mut before = std::mem::take(&mut self.rests);
        let most = if before.values().any(|rest| rest.sleeps) { AWAKE / 2 } else { AWAKE };
        for inode in living.still {
            self.rests.extend(before.remove(&inode).map(|rest| (inode, rest)));
        }
        for one in &living.read {
            let devices = &one.region.devices;
            let words =
                devices.iter().map(|device| [device.gpu_time_ns.unwrap_or(0), device.launches, device.waits]);
            let used = words.flatten().fold(0, u64::wrapping_add);
            let known = before.get(&one.inode).filter(|known| known.used == used);
            let searches = known.map_or(0, |known| known.searches.saturating_add(1));
            let devices = devices.iter().map(wanted).collect();
            self.rests.insert(one.inode, Rest { used, searches, sleeps: searches >= IDLE_SEARCHES, devices });
        }
        self.needed = needed(self.rests.values());
        for rest in self.rests.values_mut() {
            rest.sleeps &= rest.may_sleep(&self.needed);
        }
        if self.rests.values().filter(|rest| rest.sleeps).count() <= most {
            self.rests.values_mut().for_each(|rest| rest.sleeps = false);
        }
        let is_needed = |device: &Device| self.needed.contains(&device.uuid);
        let gets_leases = |one: &Living| !self.sleeps(one.inode) && one.region.devices.iter().any(is_needed);
        living.read.into_iter().filter(gets_leases).collect()
    }
}

fn wanted(device: &Device) -> Wanted {
    let (request, borrows) = container::shares_of(device);
    let has_share = device.core_limit.is_some_and(|limit| limit < 100);
    Wanted { uuid: device.uuid.clone(), has_share, has_request: request.is_some(), borrows }
}

/// The devices for which leases are needed: [`SharedDevice::needs_leases`] says so of those that are awake.
fn needed<'r>(rests: impl Iterator<Item = &'r Rest>) -> HashSet<String> {
    let mut all: HashMap<&str, (usize, bool, bool)> = HashMap::new();
    for device in rests.flat_map(|rest| &rest.devices) {
        let (count, request, borrows) = all.entry(&device.uuid).or_default();
        *count += 1;
        *request |= device.has_request;
        *borrows |= device.borrows;
    }
    let is_needed = |(count, request, borrows): (usize, bool, bool)| borrows || count > 1 && request;
    all.into_iter().filter(|(_, of)| is_needed(*of)).map(|(uuid, _)| uuid.to_owned()).collect()
}

/// Opens a container's region to write leases into it, where nobody has.
fn candidate(living: Living, open: &mut HashMap<(u64, u64), Weak<RegionWriter>>) -> Option<Candidate> {
    let writer = match open.get(&living.inode).and_then(Weak::upgrade) {
        Some(writer) => writer,
        None => {
            let writer = Arc::new(RegionWriter::of(living.file.as_ref()?, living.owner)?);
            open.insert(writer.inode, Arc::downgrade(&writer));
            writer
        }
    };
    let mut uuids = HashSet::new();
    let devices = living.region.devices.into_iter().filter(|device| uuids.insert(device.uuid.clone()));
    let devices = devices.filter_map(|device| {
        let container = ContainerDevice::new(Place::new(Arc::clone(&writer), &device)?, &device);
        Some((device.uuid, container, Client::new(device.gpu_time_ns.unwrap_or(0))))
    });
    Some(Candidate { owner: living.owner, devices: devices.collect() })
}

/// Every device that takes leases, with what is known of those that were there before.
fn arrange(found: Vec<Candidate>, mut before: Vec<SharedDevice>, turns: bool) -> Vec<SharedDevice> {
    let mut devices: Vec<SharedDevice> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut owners: HashMap<Owner, (HashSet<String>, usize)> = HashMap::new();
    for Candidate { owner, devices: its } in found {
        let (uuids, clients) = owners.entry(owner).or_default();
        for (uuid, container, client) in its {
            let is_new = !uuids.contains(&uuid);
            let full = is_new && uuids.len() >= DEVICES_OF_OWNER || *clients >= CLIENTS_OF_OWNER;
            if full {
                continue;
            }
            let at = *known.entry(uuid.clone()).or_insert(devices.len());
            if at == devices.len() {
                devices.push(SharedDevice::new(uuid.clone(), turns));
            }
            devices[at].add(container, client);
            uuids.insert(uuid);
            *clients += 1;
        }
    }
    devices.retain(SharedDevice::needs_leases);
    devices.truncate(DEVICES);
    for shared in &mut devices {
        if let Some(at) = before.iter().position(|known| known.uuid == shared.uuid) {
            shared.inherit(before.swap_remove(at));
        }
    }
    devices
}
