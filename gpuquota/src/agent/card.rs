//! The card: NVML's own figures, held against the books.
//!
//! A thread looks at who is at each device, four times a second, and lays card and books side by side when that has changed
//! and every other second, on a node of very many containers every few. A process of a container with limits that no region
//! counts is reported within a second.
//!
//! - [`nvml`]: the figures; [`process`]: who a process is; [`books`]: the regions;
//! - [`mod@compare`]: both side by side; [`mod@guard`]: what is done about a process past its limits;
//! - [`contexts`]: what a context takes; [`events`]: what is told.

mod books;
mod compare;
mod contexts;
mod events;
mod guard;
mod nvml;
mod process;

pub use compare::{Seated, Standing};
pub use events::{Event, EventKind, container};
pub use guard::Policy;
pub use nvml::{Card, Errors, throttle_reasons};

use crate::agent::identity::{Identity, Naming};
use crate::regions::Found;
use books::Book;
use compare::{Difference, compare, stand};
use contexts::Costs;
pub use nvml::CardDevice;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often the lists of processes are read.
const LOOK: Duration = Duration::from_millis(250);
/// How often card and books are compared where nothing has changed; less often where that would take more than so small a part
/// of the time, and at least so often.
const COMPARE: Duration = Duration::from_secs(2);
const COST: u32 = 500;
const LONGEST: Duration = Duration::from_secs(10);
/// How often NVML is tried where there was none.
const RETRY: Duration = Duration::from_secs(30);
/// Events that are kept.
const EVENTS: usize = 256;

/// What the card says of one container.
#[derive(Clone, Debug)]
pub struct OnCard {
    /// Its region.
    pub path: PathBuf,
    /// Processes that use a device and are not counted, by its UUID; `None` for a container without limits.
    pub unprotected: Option<BTreeMap<String, u64>>,
    /// Memory of its processes, by device.
    pub bytes: BTreeMap<String, u64>,
}

/// What the last look has shown.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The driver's version; `None` where NVML does not answer.
    pub driver: Option<String>,
    /// The devices.
    pub devices: Vec<CardDevice>,
    /// Every process at them.
    pub seated: Vec<Seated>,
    /// The containers.
    pub containers: Vec<OnCard>,
    /// What a context takes, by device.
    pub context_bytes: BTreeMap<String, u64>,
    /// How often a device has told which error, and the last one.
    pub xids: BTreeMap<String, Xids>,
}

/// The errors of a device.
#[derive(Clone, Debug, Default)]
pub struct Xids {
    /// How often it has told each.
    pub counts: BTreeMap<u64, u64>,
    /// The last one.
    pub last: u64,
}

/// What the agent knows of the node's cards.
#[derive(Debug, Default)]
pub struct Cards {
    view: Mutex<Arc<View>>,
    events: Mutex<VecDeque<Event>>,
    xids: Mutex<BTreeMap<String, Xids>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cards {
    /// The last look.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&locked(&self.view))
    }

    /// What has happened since this was asked before, the oldest first.
    pub fn take_events(&self) -> VecDeque<Event> {
        std::mem::take(&mut locked(&self.events))
    }

    fn show(&self, view: View) {
        *locked(&self.view) = Arc::new(view);
    }

    fn tell(&self, event: Event) {
        match event.kind {
            EventKind::Agreement => tracing::info!("{event}"),
            _ => tracing::warn!("{event}"),
        }
        let mut events = locked(&self.events);
        if events.len() >= EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Tells the errors of devices, until it is over.
    fn listen(&self, card: &Card, is_over: &AtomicBool) {
        let errors = card.errors();
        while !errors.is_empty() && !is_over.load(Relaxed) {
            let begun = Instant::now();
            for (uuid, xid) in errors.next() {
                let mut xids = locked(&self.xids);
                let of_device = xids.entry(uuid.clone()).or_default();
                *of_device.counts.entry(xid).or_default() += 1;
                of_device.last = xid;
                drop(xids);
                self.tell(Event::of_device(&uuid, EventKind::Xid { xid }));
            }
            // A driver that answers at once, with an error, is not asked all the time.
            thread::sleep(LOOK.saturating_sub(begun.elapsed()));
        }
    }

    /// Watches for ever. `regions` reads those of the node.
    pub fn watch(&self, names: &Naming, regions: impl Fn() -> Vec<Found>, policy: Policy) {
        let mut is_said = false;
        loop {
            match Card::open() {
                Ok(card) => {
                    let is_over = AtomicBool::new(false);
                    thread::scope(|scope| {
                        scope.spawn(|| self.listen(&card, &is_over));
                        Watch::new(self, names, &regions, policy).follow(&card);
                        is_over.store(true, Relaxed);
                    });
                }
                Err(error) if !is_said => {
                    is_said = true;
                    tracing::info!("the card's own figures are not to be had: {error}");
                }
                Err(_) => {}
            }
            self.show(View::default());
            thread::sleep(RETRY);
        }
    }
}

/// Everything at this moment, for one question.
pub fn look(names: &Naming, regions: Vec<Found>) -> Result<View, String> {
    Ok(see(&Card::open()?, &[], names, regions))
}

/// The same by an open card; `known` are the devices of the look before.
pub fn see(card: &Card, known: &[CardDevice], names: &Naming, regions: Vec<Found>) -> View {
    let books: Vec<Book> = regions.into_iter().map(|found| Book::of(found, names)).collect();
    let devices = card.devices(known);
    let (seated, _) = compare(&devices, &books, names);
    let containers = on_card(&books, &seated);
    View { driver: Some(card.driver()), devices, seated, containers, ..View::default() }
}

/// What the card says of each container.
fn on_card(books: &[Book], seated: &[Seated]) -> Vec<OnCard> {
    let of = |at: usize, book: &Book| {
        let uuids = book.region.devices.iter().map(|device| device.uuid.clone());
        let none: BTreeMap<String, u64> = uuids.map(|uuid| (uuid, 0)).collect();
        let (mut unprotected, mut bytes) = (none, BTreeMap::new());
        for process in seated.iter().filter(|process| process.book == Some(at)) {
            if process.standing == Standing::Unprotected {
                *unprotected.entry(process.uuid.clone()).or_default() += 1;
            }
            if let Some(more) = process.card_bytes {
                let sum: &mut u64 = bytes.entry(process.uuid.clone()).or_default();
                *sum = sum.saturating_add(more);
            }
        }
        OnCard { path: book.path.clone(), unprotected: book.is_limited().then_some(unprotected), bytes }
    };
    books.iter().enumerate().map(|(at, book)| of(at, book)).collect()
}

struct Watch<'w, R> {
    cards: &'w Cards,
    names: &'w Naming,
    regions: R,
    policy: Policy,
    costs: Costs,
    /// Processes, each with its start time and device, that were not counted at the last look, and those that were reported.
    suspected: HashSet<(u32, u64, String)>,
    reported: HashSet<(u32, u64, String)>,
    /// How often in a row a container's figures were apart.
    apart: HashMap<(Identity, String), u32>,
}

impl<'w, R: Fn() -> Vec<Found>> Watch<'w, R> {
    fn new(cards: &'w Cards, names: &'w Naming, regions: R, policy: Policy) -> Self {
        let (suspected, reported) = (HashSet::new(), HashSet::new());
        Self {
            cards,
            names,
            regions,
            policy,
            costs: Costs::default(),
            suspected,
            reported,
            apart: HashMap::new(),
        }
    }

    fn books(&self) -> Vec<Book> {
        (self.regions)().into_iter().map(|found| Book::of(found, self.names)).collect()
    }

    /// Looks until NVML does not answer any more.
    fn follow(mut self, card: &Card) {
        let driver = card.driver();
        let mut devices = card.devices(&[]);
        let mut due = Instant::now();
        let mut last = Vec::new();
        loop {
            let begun = Instant::now();
            let now: Vec<_> = devices.iter().map(|device| card.processes(device.index)).collect();
            if begun >= due || now != last || !self.suspected.is_empty() {
                let before = devices;
                devices = card.devices(&before);
                if devices.is_empty() && !before.is_empty() {
                    return;
                }
                for device in devices.iter().filter(|device| device.is_lost) {
                    if before.iter().any(|before| before.uuid == device.uuid && !before.is_lost) {
                        self.cards.tell(Event::of_device(&device.uuid, EventKind::Lost));
                    }
                }
                self.compare(card, &driver, &devices);
                due = Instant::now() + (begun.elapsed() * COST).clamp(COMPARE, LONGEST);
            }
            last = now;
            thread::sleep(LOOK.saturating_sub(begun.elapsed()).max(LOOK / 5));
        }
    }

    fn compare(&mut self, card: &Card, driver: &str, devices: &[CardDevice]) {
        let books = self.books();
        let (seated, differences) = compare(devices, &books, self.names);
        self.costs.learn(&seated, &books);
        self.costs.hand_over(&books);
        self.report(card, &seated);
        self.name(&differences);
        self.cards.show(View {
            driver: Some(driver.to_owned()),
            devices: devices.to_vec(),
            containers: on_card(&books, &seated),
            seated,
            context_bytes: self.costs.known(),
            xids: locked(&self.cards.xids).clone(),
        });
    }

    /// Reports each process that is not counted at the second look: between the two it may have taken its slot.
    fn report(&mut self, card: &Card, seated: &[Seated]) {
        let mut suspected = HashSet::new();
        for process in seated.iter().filter(|process| process.standing == Standing::Unprotected) {
            let Some(subject) = &process.subject else { continue };
            let key = (process.pid, subject.start_time, process.uuid.clone());
            if self.suspected.contains(&key) || self.reported.contains(&key) {
                let is_still = || self.is_still(card, process);
                let action = self.policy.act(subject, is_still);
                if self.reported.insert(key.clone()) {
                    let action = match action {
                        Ok(None) => "reported".to_owned(),
                        Ok(Some(done)) => done.to_owned(),
                        Err(why) => format!("left alone: {why}"),
                    };
                    self.cards.tell(Event::unprotected(process, action));
                }
            } else {
                suspected.insert(key);
            }
        }
        let here = |(pid, start, uuid): &(u32, u64, String)| {
            let is = |seated: &&Seated| seated.pid == *pid && seated.uuid == *uuid;
            seated
                .iter()
                .find(is)
                .and_then(|seated| seated.subject.as_ref())
                .is_some_and(|subject| subject.start_time == *start)
        };
        self.reported.retain(here);
        self.suspected = suspected;
    }

    /// Whether card and books, read anew, say the same of a process.
    fn is_still(&self, card: &Card, process: &Seated) -> bool {
        let Some(subject) = &process.subject else { return false };
        let at_card = card.devices(&[]).into_iter().find(|device| device.uuid == process.uuid);
        let is_there =
            at_card.is_some_and(|device| device.processes.iter().any(|there| there.pid == process.pid));
        let identity = self.names.of_process(&subject.cgroup);
        is_there && stand(subject, &identity, &self.books(), self.names).0 == Standing::Unprotected
    }

    /// Naming a difference that is there at three looks in a row, once, and its end.
    fn name(&mut self, differences: &[Difference]) {
        const LASTING: u32 = 3;
        let mut apart = HashMap::new();
        for difference in differences {
            let key = (difference.identity.clone(), difference.uuid.clone());
            let before = self.apart.get(&key).copied().unwrap_or(0);
            match difference.is_large {
                true if before + 1 == LASTING => self.cards.tell(Event::difference(difference)),
                false if before >= LASTING => self.cards.tell(Event::difference(difference)),
                _ => {}
            }
            if difference.is_large {
                apart.insert(key, before.saturating_add(1));
            }
        }
        self.apart = apart;
    }
}
