//! Tables: the objects of one kind by their handles.

use crate::model::objects::handle::{Handle, Kind};
use crate::tools::status::Outcome;

const INDEX_BITS: u32 = 24;
const GENERATION_BITS: u32 = 14;

/// An object that callers know by a handle.
pub trait Item {
    /// The kind of its handles.
    type Kind: Kind;
}

struct Place<T> {
    generation: u64,
    item: Option<T>,
}

/// The live objects of one kind.
pub struct Table<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    /// Whether the next object gets the handle of the last one that went, as from a driver whose handles are addresses.
    reuse: bool,
}

impl<T: Item> Table<T> {
    /// An empty table.
    pub const fn new(reuse: bool) -> Table<T> {
        Table { places: Vec::new(), free: Vec::new(), reuse }
    }

    /// Adds an object.
    pub fn add(&mut self, item: T) -> Handle<T::Kind> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, item: None });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.item = Some(item);
        Self::handle(index as usize, place.generation)
    }

    fn handle(index: usize, generation: u64) -> Handle<T::Kind> {
        // The low four bits stay zero: callers take handles for pointers, and 1 and 2 are streams.
        let number = (T::Kind::TAG << GENERATION_BITS | generation) << INDEX_BITS | index as u64;
        Handle::of(number << 4)
    }

    #[inline]
    fn index(&self, handle: Handle<T::Kind>) -> Option<usize> {
        let index = (handle.raw() >> 4) as usize & ((1 << INDEX_BITS) - 1);
        let place = self.places.get(index)?;
        (place.item.is_some() && Self::handle(index, place.generation) == handle).then_some(index)
    }

    /// The object.
    #[inline]
    pub fn get(&self, handle: Handle<T::Kind>) -> Outcome<&T> {
        self.index(handle).and_then(|index| self.places[index].item.as_ref()).ok_or(T::Kind::WRONG)
    }

    /// The object, to change.
    #[inline]
    pub fn get_mut(&mut self, handle: Handle<T::Kind>) -> Outcome<&mut T> {
        self.index(handle).and_then(|index| self.places[index].item.as_mut()).ok_or(T::Kind::WRONG)
    }

    /// Takes the object out; its handle means nothing from now on.
    pub fn remove(&mut self, handle: Handle<T::Kind>) -> Outcome<T> {
        let index = self.index(handle).ok_or(T::Kind::WRONG)?;
        let place = &mut self.places[index];
        if !self.reuse {
            place.generation = (place.generation + 1) & ((1 << GENERATION_BITS) - 1);
        }
        self.free.push(index as u32);
        place.item.take().ok_or(T::Kind::WRONG)
    }

    /// Whether there is no object.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }

    /// All objects with their handles.
    pub fn iter(&self) -> impl Iterator<Item = (Handle<T::Kind>, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            place.item.as_ref().map(|item| (Self::handle(index, place.generation), item))
        })
    }

    /// The handles of all objects that `wanted` picks.
    pub fn select(&self, wanted: impl Fn(&T) -> bool) -> Vec<Handle<T::Kind>> {
        self.iter().filter(|(_, item)| wanted(item)).map(|(handle, _)| handle).collect()
    }
}
