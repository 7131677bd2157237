//! What a context takes, learned from the card and handed to containers that cannot ask.
//!
//! Before driver 570 a process in a PID namespace of its own gets no figure of itself, and its contexts go uncharged unless
//! its region says what one takes (`Device::context_bytes`). The node sees the figures of all: what a process has beyond all
//! else that its books hold is its context. A tenant's books may lie, so the figure of a device is the median of those of its
//! containers.

use super::books::Book;
use super::compare::{Seated, Standing};
use crate::agent::identity::open_region;
use gpuquota_region::layout::Device;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// No context takes less, or more.
const PLAUSIBLE: std::ops::RangeInclusive<u64> = 1 << 20..=8 << 30;
/// Containers whose figures are remembered for each device.
const REMEMBERED: usize = 64;
/// Regions that are being written at a time. A tenant that holds up the writing of its file has one of these.
const WRITERS: usize = 16;
/// The first version of the region with the field.
const SINCE: [u32; 2] = [1, 3];

/// What was learned.
#[derive(Default)]
pub struct Costs {
    /// By device, by region: the least that a context of it has taken.
    learned: BTreeMap<String, HashMap<PathBuf, u64>>,
    /// What was seen of each process the last time: a figure counts once it stands still.
    before: HashMap<(u32, String), (u64, u64)>,
    writing: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Costs {
    /// Learns from one look at card and books.
    pub fn learn(&mut self, seated: &[Seated], books: &[Book]) {
        let mut seen = HashMap::new();
        for process in seated.iter().filter(|process| process.standing == Standing::Counted) {
            let (Some(bytes), Some(book)) = (process.card_bytes, process.book.and_then(|at| books.get(at)))
            else {
                continue;
            };
            let Some(other) = beside_contexts(book, process) else { continue };
            let key = (process.pid, process.uuid.clone());
            let stands = self.before.get(&key) == Some(&(bytes, other));
            seen.insert(key, (bytes, other));
            let cost = bytes.saturating_sub(other);
            if stands && PLAUSIBLE.contains(&cost) {
                let of_device = self.learned.entry(process.uuid.clone()).or_default();
                if of_device.len() < REMEMBERED || of_device.contains_key(&book.path) {
                    let least = of_device.entry(book.path.clone()).or_insert(cost);
                    *least = (*least).min(cost);
                }
            }
        }
        self.before = seen;
    }

    /// What a context takes on each device, as far as is known.
    pub fn known(&self) -> BTreeMap<String, u64> {
        let median = |figures: &HashMap<PathBuf, u64>| {
            let mut figures: Vec<u64> = figures.values().copied().collect();
            figures.sort_unstable();
            figures.get(figures.len() / 2).copied()
        };
        self.learned.iter().filter_map(|(uuid, figures)| Some((uuid.clone(), median(figures)?))).collect()
    }

    /// Tells it to the regions that do not know it, each in a thread of its own: writing a tenant's file may take as long as
    /// the tenant likes.
    pub fn hand_over(&self, books: &[Book]) {
        let known = self.known();
        for book in books.iter().filter(|book| book.region.abi >= SINCE) {
            let missing = book.region.devices.iter().filter(|device| device.context_bytes == 0);
            let told = missing.filter_map(|device| Some((device.offset, *known.get(&device.uuid)?)));
            let told: Vec<(u64, u64)> = told.collect();
            if !told.is_empty()
                && let Some(file) = open_region(&book.path)
            {
                self.write(&book.path, file.as_raw_fd(), told);
            }
        }
    }

    fn write(&self, path: &Path, fd: i32, told: Vec<(u64, u64)>) {
        let lock = |writing: &Mutex<HashSet<PathBuf>>| {
            let mut writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
            writing.len() < WRITERS && writing.insert(path.to_path_buf())
        };
        if !lock(&self.writing) {
            return;
        }
        let (writing, path) = (Arc::clone(&self.writing), path.to_path_buf());
        // Opened by its descriptor, so no name leads anywhere else, and without waiting for a lease on it.
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(format!("/proc/self/fd/{fd}"));
        let write = move || {
            if let Ok(file) = file {
                for (record, bytes) in told {
                    let at = record + offset_of!(Device, context_bytes) as u64;
                    // A file that cannot be written will not be there at the next look.
                    let _ = file.write_all_at(&bytes.to_le_bytes(), at);
                }
            }
            writing.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
        };
        let _ = thread::Builder::new().name("contexts".to_owned()).spawn(write);
    }
}

/// What a process has of a device beside its contexts, by the books; `None` where they cannot tell.
fn beside_contexts(book: &Book, process: &Seated) -> Option<u64> {
    let device = book.region.devices.iter().find(|device| device.uuid == process.uuid)?;
    // What lies on the host is in the books and not on the card.
    if device.spilled != 0 {
        return None;
    }
    let own = book.region.alive().find(|own| own.host_pid == Some(process.pid))?;
    let kinds = own.devices.iter().filter(|share| share.device == device.index).map(|share| &share.kinds);
    let beside =
        kinds.map(|kinds| kinds.named().filter(|(name, _)| *name != "contexts").map(|(_, bytes)| bytes));
    Some(beside.flatten().fold(0, u64::saturating_add))
}
