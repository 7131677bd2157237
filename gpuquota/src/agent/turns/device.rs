//! One device and the containers that share it.

use super::{AGAIN_NS, Home, IDLE_LOOK_NS};
use crate::regions;
use gpuquota_quota::share::client::{Client, Demand};
use gpuquota_quota::share::lease::Lease;
use gpuquota_quota::share::scheduler::Scheduler;
use gpuquota_quota::share::{Rate, clock};
use gpuquota_region::layout::{self, Device, Header, OURS, TERMS_BORROWS, TERMS_LEAVINGS};
use gpuquota_region::snapshot::{half, turns_offset, word};
use std::mem::{offset_of, size_of};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What containers without a share and a request have of the turns together at least, in percent.
const LEAST_REST: u32 = 10;

/// A device of one region.
pub struct Watched {
    home: Arc<Home>,
    /// Region index of the device, and where its record lies in the file.
    index: usize,
    record: u64,
    /// What was said last, and when.
    word: u64,
    told_at: u64,
    bell: u32,
    held_ns: u64,
}

/// What the container says of itself.
#[derive(Clone, Copy)]
struct Said {
    demand: Demand,
    /// Its percentage of the turns, if anything says so.
    request: Option<u32>,
    /// Whether it has a share, and may have more.
    borrows: bool,
}

/// All that share one device.
pub struct Shared {
    pub uuid: String,
    watched: Vec<Watched>,
    clients: Vec<Client>,
    scheduler: Scheduler,
    looks_at: u64,
}

impl Watched {
    pub fn new(home: Arc<Home>, device: &regions::Device) -> Self {
        let (index, record) = (device.index, device.offset);
        Self { home, index, record, word: 0, told_at: 0, bell: 0, held_ns: device.held_ns }
    }

    fn is(&self, other: &Self) -> bool {
        self.home.inode == other.home.inode && self.record == other.record
    }

    /// Reads what the container says.
    fn read(&self, now: u64) -> Option<Said> {
        let mut record = [0; size_of::<Device>()];
        let mut turns = [0; size_of::<layout::Turns>()];
        self.home.file.read_exact_at(&mut record, self.record).ok()?;
        self.home.file.read_exact_at(&mut turns, turns_offset(self.index)).ok()?;
        let limit = half(&record, offset_of!(Device, core_limit))?;
        let terms = half(&turns, offset_of!(layout::Turns, terms))?;
        let share = Some(limit).filter(|limit| (1..100).contains(limit) && terms & TERMS_LEAVINGS == 0);
        let virtual_time = word(&record, offset_of!(Device, virtual_time))?;
        let demand = Demand {
            weight: 0,
            total_ns: word(&record, offset_of!(Device, gpu_time_ns))?,
            asked_at_ns: word(&turns, offset_of!(layout::Turns, asked_at))?,
            until_ns: word(&record, offset_of!(Device, flight_until))?,
            in_flight_ns: word(&turns, offset_of!(layout::Turns, in_flight_ns))?,
            uncertainty_ns: word(&turns, offset_of!(layout::Turns, doubt_ns))?,
            percent: share.filter(|_| terms & TERMS_BORROWS == 0),
            budget_ns: share.and_then(Rate::new).map_or(0, |rate| clock::budget_ns(virtual_time, now, rate)),
        };
        let request = match terms & TERMS_LEAVINGS {
            0 => layout::request(terms, limit).or(share),
            // Next to nothing, so that it gets what nobody else wants.
            _ => Some(1),
        };
        Some(Said { demand, request, borrows: share.is_some() && terms & TERMS_BORROWS != 0 })
    }

    /// Says what is new, and wakes whoever waits for it.
    fn tell(&mut self, client: &Client, now: u64) {
        let word = client.lease.map_or(0, Lease::word);
        let changed = word != self.word;
        if !changed && now.saturating_sub(self.told_at) < AGAIN_NS {
            return;
        }
        (self.word, self.told_at) = (word, now);
        let of = |field: usize| turns_offset(self.index) + field as u64;
        // A file that cannot be written will not be there at the next search.
        let write = |field: usize, bytes: &[u8]| _ = self.home.file.write_all_at(bytes, of(field));
        write(offset_of!(layout::Turns, turn), &word.to_le_bytes());
        write(offset_of!(layout::Turns, told_at), &now.to_le_bytes());
        let held_ns = self.held_ns.wrapping_add(client.held_ns);
        write(offset_of!(layout::Turns, held_ns), &held_ns.to_le_bytes());
        if changed {
            self.bell = self.bell.wrapping_add(1);
            let bell = offset_of!(layout::Turns, bell);
            write(bell, &self.bell.to_le_bytes());
            self.home.bells.ring(of(bell) as usize - OURS);
        }
    }
}

impl Shared {
    pub fn new(uuid: String, watched: Watched, client: Client) -> Self {
        Self {
            uuid,
            watched: vec![watched],
            clients: vec![client],
            scheduler: Scheduler::default(),
            looks_at: 0,
        }
    }

    pub fn add(&mut self, watched: Watched, client: Client) {
        self.watched.push(watched);
        self.clients.push(client);
    }

    pub fn homes(&self) -> impl Iterator<Item = &Arc<Home>> {
        self.watched.iter().map(|watched| &watched.home)
    }

    /// Whether there is anything to be said: several containers share it, one of them by a share; or one has it alone,
    /// and may have all of it.
    pub fn needs_turns(&self) -> bool {
        let is =
            |what: fn(&Said) -> bool| move |watched: &Watched| watched.read(0).as_ref().is_some_and(what);
        match self.watched.as_slice() {
            [alone] => is(|said| said.borrows)(alone),
            all => all.iter().any(is(|said| said.request.is_some())),
        }
    }

    /// Goes on with what was known before.
    pub fn inherit(&mut self, before: Self) {
        let same = before.watched.len() == self.watched.len()
            && before.watched.iter().zip(&self.watched).all(|(before, now)| before.is(now));
        if same {
            *self = before;
            return;
        }
        for (before, client) in before.watched.into_iter().zip(before.clients) {
            let mut places = self.watched.iter_mut().zip(&mut self.clients);
            if let Some((watched, known)) = places.find(|(watched, _)| watched.is(&before)) {
                (*watched, *known) = (before, client);
            }
        }
    }

    /// Lets every launch on it look for its turn.
    pub fn prepare(&self) {
        for watched in &self.watched {
            let mut shares = [0; 4];
            let at = (OURS + offset_of!(Header, shares)) as u64;
            if watched.home.file.read_exact_at(&mut shares, at).is_ok() && shares == [0; 4] {
                let _ = watched.home.file.write_all_at(&1u32.to_le_bytes(), at);
            }
        }
    }

    /// Files that cannot be read any more are nobody's.
    fn drop_unreadable(&mut self) {
        let all = self.watched.drain(..).zip(self.clients.drain(..));
        let (watched, clients) = all.filter(|(watched, _)| watched.read(0).is_some()).unzip();
        (self.watched, self.clients, self.scheduler) = (watched, clients, Scheduler::default());
    }

    /// Looks, if it is time, and says when to look again.
    pub fn look(&mut self, now: u64) -> u64 {
        if now < self.looks_at {
            return self.looks_at;
        }
        let said: Option<Vec<_>> = self.watched.iter().map(|watched| watched.read(now)).collect();
        let Some(said) = said else {
            self.drop_unreadable();
            return now;
        };
        let requests: u32 = said.iter().filter_map(|said| said.request).sum();
        let others = said.iter().filter(|said| said.request.is_none()).count().max(1) as u32;
        let rest = 100u32.saturating_sub(requests).max(LEAST_REST) / others;
        for (client, said) in self.clients.iter_mut().zip(&said) {
            client.see(Demand { weight: said.request.unwrap_or(rest), ..said.demand }, now);
        }
        self.looks_at = self.scheduler.look(&mut self.clients, now);
        if self.clients.len() == 1 || self.clients.iter().all(|client| client.is_away(now)) {
            self.looks_at = now + IDLE_LOOK_NS;
        }
        for (watched, client) in self.watched.iter_mut().zip(&self.clients) {
            watched.tell(client, now);
        }
        self.looks_at
    }
}
