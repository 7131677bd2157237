//! Contexts and pools that are about to be destroyed. A driver may give a handle out again before its call that destroyed
//! the old object has returned. So what belongs to the object gets another owner before the call, which no later object has:
//! a tag. After the call it is given back, or gets its owner again if the object lives on.

use super::holdings::{Holding, Key, Kind};
use super::reserve::Memory;
use crate::container::DeviceRef;
use crate::driver::cuda::arenas::Arena;
use crate::driver::cuda::managed;

/// No handle has this bit.
const TAG: u64 = 1 << 63;
/// The kinds of memory that a context owns.
const OWNED: [Kind; 6] =
    [Kind::Memory, Kind::Array, Kind::SmallArray, Kind::External, Kind::Spilled, Kind::OnHost];

/// A context during the call that may destroy it.
#[derive(Clone, Copy)]
pub struct Departure {
    /// Its handle.
    pub context: u64,
    /// The owner of its memory meanwhile.
    pub tag: u64,
    /// Its device, if the library knew it.
    pub device: Option<DeviceRef>,
}

/// The same for a pool.
pub struct PoolDeparture {
    pool: u64,
    tag: u64,
    /// Its device, and the charge that it keeps meanwhile.
    aside: Option<(DeviceRef, u64)>,
    /// What was opened of it, if it is another process's.
    borrowed: Option<Holding>,
}

/// The kinds that a pool owns.
const OF_POOL: [Kind; 2] = [Kind::Pooled, Kind::Kept];

impl Memory<'_> {
    fn new_tag(self) -> u64 {
        TAG | self.books().accounts.holdings.next_number()
    }

    /// A context may be destroyed by the call that follows.
    #[cold]
    pub fn context_departs(self, context: u64) -> Departure {
        let tag = self.new_tag();
        let device = self.scope.devices.forget_context(&self.scope.container, context);
        self.books().accounts.holdings.change_owner(&OWNED, context, tag);
        self.state.overhead.rename_context(context, tag);
        Departure { context, tag, device }
    }

    /// The context lives on.
    #[cold]
    pub fn context_stays(self, departure: Departure) {
        let Departure { context, tag, device } = departure;
        if let Some(device) = device {
            self.scope.devices.remember_context(context, device);
        }
        self.books().accounts.holdings.change_owner(&OWNED, tag, context);
        self.state.overhead.rename_context(tag, context);
    }

    /// A context was destroyed, and all its memory was freed. `owner`: its handle, or its tag.
    #[cold]
    pub fn context_was_destroyed(self, owner: u64) {
        self.scope.devices.forget_context(&self.scope.container, owner);
        let holdings = &self.books().accounts.holdings;
        holdings.remove_owned(&OWNED, owner, |key, holding| self.books().release(key, holding));
        self.after_destruction(owner);
    }

    /// A green context was destroyed. Its memory may belong to the device's primary context, and live on: the driver says so.
    #[cold]
    pub fn green_context_was_destroyed(self, tag: u64, primary: u64) {
        let holdings = &self.books().accounts.holdings;
        holdings.remove_owned(&OWNED, tag, |key, holding| {
            let lives = key.is(Kind::Memory) && managed::is_allocated(key.value());
            let holding = Holding { owner: primary, ..holding };
            // Memory at an address that has another holding by now was freed before.
            if !lives || !holdings.insert_unless_held(key, holding) {
                self.books().release(key, holding);
            }
        });
        self.after_destruction(tag);
    }

    fn after_destruction(self, owner: u64) {
        self.state.arenas.mark_stale();
        self.state.arenas.update_stale(self.books());
        self.state.overhead.forget_context(self.charges(), owner);
    }

    /// A pool may be destroyed by the call that follows.
    pub fn pool_departs(self, pool: u64) -> PoolDeparture {
        let tag = self.new_tag();
        let aside = self.state.arenas.set_aside(self.books(), Arena::Pool(pool));
        let holdings = &self.books().accounts.holdings;
        let borrowed = Key::new(Kind::Borrowed, pool).and_then(|key| holdings.remove(key));
        holdings.change_owner(&OF_POOL, pool, tag);
        PoolDeparture { pool, tag, aside, borrowed }
    }

    /// The pool lives on.
    pub fn pool_stays(self, departure: &PoolDeparture) {
        let PoolDeparture { pool, tag, aside, borrowed } = departure;
        self.books().accounts.holdings.change_owner(&OF_POOL, *tag, *pool);
        if let Some(borrowed) = borrowed {
            self.books().record_holding(Key::new(Kind::Borrowed, *pool), *borrowed);
        }
        if let Some((device, charge)) = aside {
            // Where its place in the table is taken by now the charge stays.
            if self.state.arenas.register(Arena::Pool(*pool), device.index) {
                self.state.arenas.update_charge(self.books(), Arena::Pool(*pool));
                self.state.arenas.forget_aside(self.books(), *device, *charge);
            }
        }
    }

    /// The pool was destroyed: its living allocations get charges of their own.
    pub fn pool_was_destroyed(self, departure: &PoolDeparture) {
        let holdings = &self.books().accounts.holdings;
        holdings
            .remove_owned(&[Kind::Kept], departure.tag, |key, holding| self.books().release(key, holding));
        let Some((device, charge)) = departure.aside else { return };
        self.books().accounts.holdings.remove_owned(&[Kind::Pooled], departure.tag, |key, holding| {
            self.adopt(device, key.value(), holding.bytes);
        });
        self.state.arenas.forget_aside(self.books(), device, charge);
    }
}
