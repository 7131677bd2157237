//! Handles: what callers hold is a checked number, never an address, so that a null, wrong or destroyed
//! handle is told and not followed.

use std::marker::PhantomData;

use crate::ffi::Outcome;
use crate::status::{INVALID_HANDLE, Status};

const INDEX_BITS: u32 = 24;
const GENERATION_BITS: u32 = 14;

/// A handle of some `T` as it crosses the border; 0 is null.
#[repr(transparent)]
pub struct Handle<T>(u64, PhantomData<fn() -> T>);

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Handle<T> {}
impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Handle<T> {}
impl<T> std::hash::Hash for Handle<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<T> PartialOrd for Handle<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Handle<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<T> Handle<T> {
    /// No object.
    pub const NULL: Handle<T> = Handle(0, PhantomData);

    /// The handle with this number.
    pub const fn of(raw: u64) -> Handle<T> {
        Handle(raw, PhantomData)
    }

    /// The number.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Whether it names no object.
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
}

impl<T: Kind> Handle<T> {
    /// The kind's own error for null.
    pub fn given(self) -> Outcome {
        if self.is_null() { Err(T::WRONG) } else { Ok(()) }
    }
}

/// What sets the handles of one kind of object apart from all others.
pub trait Kind {
    /// A small number of its own, at least 1 and below 32.
    const TAG: u64;
    /// The error for a handle that names no such object.
    const WRONG: Status = INVALID_HANDLE;
}

struct Place<T> {
    generation: u64,
    item: Option<T>,
}

/// The live objects of one kind.
pub struct Table<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T: Kind> Table<T> {
    /// An empty table.
    pub const fn new() -> Table<T> {
        Table { places: Vec::new(), free: Vec::new() }
    }

    /// Adds an object.
    pub fn add(&mut self, item: T) -> Handle<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, item: None });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.item = Some(item);
        Self::handle(index as usize, place.generation)
    }

    fn handle(index: usize, generation: u64) -> Handle<T> {
        // The low four bits stay zero: callers take handles for pointers, and 1 and 2 are streams.
        let number = (T::TAG << GENERATION_BITS | generation) << INDEX_BITS | index as u64;
        Handle::of(number << 4)
    }

    #[inline]
    fn index(&self, handle: Handle<T>) -> Option<usize> {
        let index = (handle.0 >> 4) as usize & ((1 << INDEX_BITS) - 1);
        let place = self.places.get(index)?;
        (place.item.is_some() && Self::handle(index, place.generation) == handle).then_some(index)
    }

    /// The object.
    #[inline]
    pub fn get(&self, handle: Handle<T>) -> Outcome<&T> {
        self.index(handle).and_then(|index| self.places[index].item.as_ref()).ok_or(T::WRONG)
    }

    /// The object, to change.
    #[inline]
    pub fn get_mut(&mut self, handle: Handle<T>) -> Outcome<&mut T> {
        self.index(handle).and_then(|index| self.places[index].item.as_mut()).ok_or(T::WRONG)
    }

    /// Takes the object out; its handle means nothing from now on.
    pub fn remove(&mut self, handle: Handle<T>) -> Outcome<T> {
        let index = self.index(handle).ok_or(T::WRONG)?;
        let place = &mut self.places[index];
        place.generation = (place.generation + 1) & ((1 << GENERATION_BITS) - 1);
        self.free.push(index as u32);
        place.item.take().ok_or(T::WRONG)
    }

    /// Whether there is no object.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }

    /// All objects with their handles.
    pub fn iter(&self) -> impl Iterator<Item = (Handle<T>, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            place.item.as_ref().map(|item| (Self::handle(index, place.generation), item))
        })
    }

    /// The handles of all objects that `wanted` picks.
    pub fn select(&self, wanted: impl Fn(&T) -> bool) -> Vec<Handle<T>> {
        self.iter().filter(|(_, item)| wanted(item)).map(|(handle, _)| handle).collect()
    }
}
