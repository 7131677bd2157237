//! The copies of one of NVIDIA's libraries that a process has loaded, and what each is for.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// So many copies are told apart; further ones are taken for objects of others.
const MOST: usize = 64;

/// What a copy is for.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// The slots hold its functions.
    Source = 1,
    /// A further copy that the program opened: its names lead to the source's functions, so that both are one driver.
    Alias = 2,
    /// A library that the source itself opened or was linked to, to call its functions.
    Inside = 3,
}

struct Place {
    start: AtomicUsize,
    end: AtomicUsize,
    role: AtomicU32,
}

impl Place {
    const fn nowhere() -> Self {
        Self { start: AtomicUsize::new(0), end: AtomicUsize::new(0), role: AtomicU32::new(0) }
    }
}

/// From where to where each copy lies. None of them is ever unloaded.
pub struct Copies {
    count: AtomicUsize,
    places: [Place; MOST],
}

impl Copies {
    /// None.
    pub const fn new() -> Self {
        Self { count: AtomicUsize::new(0), places: [const { Place::nowhere() }; MOST] }
    }

    fn known(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().take(self.count.load(Acquire))
    }

    /// What the copy is for that holds an address.
    pub fn role_at(&self, address: usize) -> Option<Role> {
        let holds = |place: &&Place| (place.start.load(Relaxed)..place.end.load(Relaxed)).contains(&address);
        match self.known().find(holds)?.role.load(Relaxed) {
            1 => Some(Role::Source),
            2 => Some(Role::Alias),
            _ => Some(Role::Inside),
        }
    }

    /// Whether there is more than the source.
    pub fn are_several(&self) -> bool {
        self.count.load(Relaxed) > 1
    }

    /// Whether another one can be added.
    pub fn have_room(&self) -> bool {
        self.count.load(Relaxed) < MOST
    }

    /// Adds a copy. One thread at a time.
    pub fn add(&self, (start, end): (usize, usize), role: Role) {
        let count = self.count.load(Relaxed);
        if let Some(place) = self.places.get(count) {
            place.start.store(start, Relaxed);
            place.end.store(end, Relaxed);
            place.role.store(role as u32, Relaxed);
            self.count.store(count.wrapping_add(1), Release);
        }
    }

    /// Makes the source an alias, because another copy takes its place.
    pub fn demote_source(&self) {
        for place in self.known().filter(|place| place.role.load(Relaxed) == Role::Source as u32) {
            place.role.store(Role::Alias as u32, Relaxed);
        }
    }
}
