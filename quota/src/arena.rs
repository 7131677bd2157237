//! How much is charged for an arena: memory that the driver keeps for later, as in a stream-ordered pool?
//!
//! An arena holds more than its allocations use, and gives it back when it likes. So its charge is what the driver says that it
//! holds. An allocation is admitted by a *reservation* of all its bytes. Where they do not fit it *claims* what the arena holds
//! unused and reserves the rest.
//!
//! The driver's figures come late: the thread that asked was stopped, others made the arena grow meanwhile, or a trim has taken
//! what a call claims. The book of an arena therefore promises, whoever runs when: the charge and the reservations of calls
//! under way cover what the arena holds, and what it will hold once the driver has served these calls from unused memory first.
//!
//! - The book counts how often its charge was set. An answer to a question that is older than the last setting is thrown away, and
//!   the driver asked again.
//! - A new charge never lies below what allocations use and calls under way have claimed, as far as this was charged before.
//!   So a claim holds although the arena is trimmed.
//! - While a call is under way nobody else raises the charge.
//! - A call gives its reservation back after the charge contains what the arena has grown. Where the driver gives no figure
//!   all by which the arena may have grown becomes charge, until a later figure settles it.
//!
//! An arena that cannot use what it holds grows beyond what its calls have reserved. Then the call reserves this excess too if it
//! fits at once, or undoes the allocation; the caller may begin again with all of it reserved ([`Call::begin_whole`]).

use crate::sync::{AtomicU64, Ordering};

/// An update that others overtake asks the driver so often.
const ATTEMPTS: u32 = if cfg!(loom) { 3 } else { 64 };

/// A driver that gives no figure is asked so often.
const QUESTIONS: usize = 3;

/// The bytes of an arena, by the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// All bytes that it holds.
    pub held: u64,
    /// The part of them that its allocations use. The driver is asked for it after `held`.
    pub used: u64,
}

impl Usage {
    /// The bytes by which the arena may grow for an allocation of `bytes`, which uses the unused bytes first.
    pub fn growth(self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.held.saturating_sub(self.used))
    }
}

/// The book of one arena. All-zero bytes: nothing is charged.
#[derive(Debug)]
pub struct Book {
    charged: AtomicU64,
    /// How often the charge was set.
    settings: AtomicU64,
    /// Unused bytes on which calls under way count.
    claimed: AtomicU64,
    /// What calls under way have reserved.
    reserved: AtomicU64,
}

/// What the book says to a figure after a call.
enum Verdict {
    /// The charge contains it.
    Settled,
    /// The charge was set since the question.
    Stale,
    /// By so much the arena is above its charge and all reservations.
    Excess(u64),
}

/// What a call under way has of the book.
#[derive(Clone, Copy, Default)]
struct Stake {
    claimed: u64,
    reserved: u64,
}

fn subtract(word: &AtomicU64, bytes: u64) {
    word.store(word.load(Ordering::Relaxed).saturating_sub(bytes), Ordering::Relaxed);
}

impl Book {
    /// The bytes that the arena is charged.
    pub fn charged(&self) -> u64 {
        self.charged.load(Ordering::Acquire)
    }

    /// The number of settings where the charge is `held` and no call is under way.
    pub fn exact(&self, held: u64) -> Option<u64> {
        let settings = self.settings.load(Ordering::Acquire);
        let [claimed, reserved] = [&self.claimed, &self.reserved].map(|word| word.load(Ordering::Acquire));
        (self.charged() == held && claimed == 0 && reserved == 0).then_some(settings)
    }

    /// The arena begins anew. Whoever calls this and all below holds the arena's lock.
    pub fn clear(&self) {
        self.claimed.store(0, Ordering::Relaxed);
        self.reserved.store(0, Ordering::Relaxed);
        self.set(0);
    }

    fn set(&self, charged: u64) {
        self.charged.store(charged, Ordering::Release);
        // Whoever reads the old number after this has been overtaken.
        self.settings.store(self.settings.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Claims what is unused of the charge, up to `bytes`. Answers how much that was; `None` if the figure is stale.
    fn claim(&self, asked: u64, usage: Usage, bytes: u64) -> Option<u64> {
        let claimed = self.claimed.load(Ordering::Relaxed);
        let unused = self.charged().saturating_sub(usage.used).saturating_sub(claimed).min(bytes);
        if self.settings.load(Ordering::Acquire) != asked {
            return None;
        }
        self.claimed.store(claimed.saturating_add(unused), Ordering::Relaxed);
        Some(unused)
    }

    /// Ends a call by the driver's figure, unless this is stale, or shows an excess of more than `allowed` bytes.
    fn settle(&self, asked: u64, usage: Usage, stake: Stake, allowed: u64) -> Verdict {
        if self.settings.load(Ordering::Acquire) != asked {
            return Verdict::Stale;
        }
        let charged = self.charged();
        let covered = charged.saturating_add(self.reserved.load(Ordering::Relaxed));
        let excess = usage.held.saturating_sub(covered);
        if excess > allowed {
            return Verdict::Excess(excess);
        }
        self.release(stake);
        let claimed = self.claimed.load(Ordering::Relaxed);
        let needed = usage.used.saturating_add(claimed);
        let charge = usage.held.max(needed.min(charged.saturating_add(stake.reserved)));
        // Growth is for the calls under way to charge, or else they would not see that it is more than fits.
        let others = claimed != 0 || self.reserved.load(Ordering::Relaxed) != 0;
        let is_update = stake.claimed == 0 && stake.reserved == 0;
        self.set(if is_update && others { charge.min(charged) } else { charge });
        Verdict::Settled
    }

    /// Ends a call without a figure: the arena may have grown by `bytes`.
    fn settle_unseen(&self, stake: Stake, bytes: u64) {
        self.release(stake);
        self.set(self.charged().saturating_add(bytes));
    }

    fn release(&self, Stake { claimed, reserved }: Stake) {
        subtract(&self.claimed, claimed);
        subtract(&self.reserved, reserved);
    }

    fn add_reserved(&self, bytes: u64) {
        let reserved = self.reserved.load(Ordering::Relaxed);
        self.reserved.store(reserved.saturating_add(bytes), Ordering::Relaxed);
    }
}

/// An arena, with its book and its driver.
pub trait Charged {
    /// Its book.
    fn book(&self) -> &Book;

    /// Asks the driver.
    fn usage(&self) -> Option<Usage>;

    /// Changes the book under the arena's lock, and charges what it says then to the ledger. `None`: the lock cannot be had.
    fn locked<T>(&self, change: impl FnOnce(&Book) -> T) -> Option<T>;
}

/// The same with the ledger from which it takes.
pub trait Arena: Charged {
    /// Bytes of the ledger for the time of a call.
    type Reservation;

    /// Reserves bytes if they fit at once.
    fn reserve_at_once(&self, bytes: u64) -> Option<Self::Reservation>;

    /// Reserves bytes, also where this takes a while, as by trims.
    fn reserve(&self, bytes: u64) -> Option<Self::Reservation>;

    /// The bytes of a reservation.
    fn bytes(reservation: &Self::Reservation) -> u64;

    /// Gives a reservation back.
    fn give_back(&self, reservation: Self::Reservation);

    /// A reservation stays for good, because the book cannot be changed.
    fn keep(&self, reservation: Self::Reservation);
}

/// A call that takes memory from an arena. It ends by [`Call::end`].
#[must_use = "a call that does not end keeps what it has reserved"]
pub struct Call<R> {
    stake: Stake,
    /// What was reserved before the call, and for its excess.
    reservations: [Option<R>; 2],
}

/// How a call has ended.
pub struct End {
    /// What the arena held then; `None` where the driver did not say.
    pub held: Option<u64>,
    /// The allocation was undone, because this excess did not fit.
    pub undone: Option<u64>,
}

/// What came of the driver's call.
pub struct Taken<'u> {
    /// It has succeeded.
    pub is_success: bool,
    /// The excess that need not be reserved.
    pub allowed: u64,
    /// The most by which such a call makes an arena grow, as far as is known.
    pub expected: u64,
    /// Undoes it.
    pub undo: Option<&'u dyn Fn()>,
}

impl<R> Call<R> {
    /// Admits a call that takes `bytes`. `most`: with what arenas grow beyond, where it fits. `None`: no room.
    pub fn begin<A: Arena<Reservation = R>>(arena: &A, bytes: u64, most: u64) -> Option<Self> {
        let mut call = Self { stake: Stake::default(), reservations: [None, None] };
        // Where it fits, all is reserved: the driver may not be able to use what the arena holds unused.
        if let Some(reservation) = arena.reserve_at_once(most) {
            call.add(arena, 0, reservation);
            return Some(call);
        }
        call.stake.claimed = claim(arena, bytes);
        let rest = bytes.saturating_sub(call.stake.claimed);
        if rest == 0 {
            return Some(call);
        }
        let Some(reservation) = arena.reserve(rest) else {
            arena.locked(|book| book.release(call.stake));
            return None;
        };
        call.add(arena, 0, reservation);
        Some(call)
    }

    /// The same with a reservation of all `bytes`, however much the arena holds unused.
    pub fn begin_whole<A: Arena<Reservation = R>>(arena: &A, bytes: u64) -> Option<Self> {
        let mut call = Self { stake: Stake::default(), reservations: [None, None] };
        call.add(arena, 0, arena.reserve(bytes)?);
        Some(call)
    }

    /// The call is not made.
    pub fn abandon<A: Arena<Reservation = R>>(self, arena: &A) {
        arena.locked(|book| book.release(self.stake));
        self.give_back(arena);
    }

    /// The bytes that the call has reserved.
    pub fn reserved(&self) -> u64 {
        self.stake.reserved
    }

    fn add<A: Arena<Reservation = R>>(&mut self, arena: &A, place: usize, reservation: R) {
        let bytes = A::bytes(&reservation);
        // Without the lock the book does not know of it, and so finds more excess than there is.
        if arena.locked(|book| book.add_reserved(bytes)).is_some() {
            self.stake.reserved = self.stake.reserved.saturating_add(bytes);
        }
        if let Some(place) = self.reservations.get_mut(place) {
            *place = Some(reservation);
        }
    }

    /// The driver has answered the call: charges what the arena has grown, or undoes the allocation.
    pub fn end<A: Arena<Reservation = R>>(mut self, arena: &A, taken: &Taken<'_>) -> End {
        let mut allowed = if taken.is_success { taken.allowed } else { u64::MAX };
        let mut end = End { held: None, undone: None };
        for _ in 0..ATTEMPTS {
            let asked = asked(arena);
            let Some(usage) = figure(arena) else { break };
            match arena.locked(|book| book.settle(asked, usage, self.stake, allowed)) {
                None => break,
                Some(Verdict::Stale) => {}
                Some(Verdict::Settled) => {
                    end.held = Some(usage.held);
                    self.give_back(arena);
                    return end;
                }
                Some(Verdict::Excess(more)) => {
                    let extra = self.reservations[1].is_none().then(|| arena.reserve_at_once(more)).flatten();
                    if let Some(extra) = extra {
                        self.add(arena, 1, extra);
                        continue;
                    }
                    allowed = u64::MAX;
                    if let Some(undo) = taken.undo {
                        undo();
                        end.undone = Some(more);
                    }
                }
            }
        }
        let unseen = taken.expected.saturating_sub(self.bytes::<A>());
        if taken.is_success && end.undone.is_none() && unseen != 0 {
            let extra = self.reservations[1].is_none().then(|| arena.reserve_at_once(unseen)).flatten();
            match extra {
                Some(extra) => self.add(arena, 1, extra),
                None => end.undone = taken.undo.map(|undo| (undo(), unseen).1),
            }
        }
        let grown = if taken.is_success { self.bytes::<A>() } else { 0 };
        if arena.locked(|book| book.settle_unseen(self.stake, grown)).is_some() {
            self.give_back(arena);
        } else {
            self.reservations.into_iter().flatten().for_each(|reservation| arena.keep(reservation));
        }
        end
    }

    /// All that was reserved.
    fn bytes<A: Arena<Reservation = R>>(&self) -> u64 {
        self.reservations.iter().flatten().map(A::bytes).fold(0, u64::saturating_add)
    }

    fn give_back<A: Arena<Reservation = R>>(self, arena: &A) {
        self.reservations.into_iter().flatten().for_each(|reservation| arena.give_back(reservation));
    }
}

/// The driver's figure, at the second or third question too.
pub fn figure(arena: &impl Charged) -> Option<Usage> {
    core::iter::repeat_with(|| arena.usage()).take(QUESTIONS).flatten().next()
}

fn asked(arena: &impl Charged) -> u64 {
    arena.book().settings.load(Ordering::Acquire)
}

/// Claims what an arena holds unused, up to `bytes`. Answers how much that was.
fn claim(arena: &impl Charged, bytes: u64) -> u64 {
    for _ in 0..ATTEMPTS {
        let asked = asked(arena);
        let Some(usage) = figure(arena) else { break };
        match arena.locked(|book| book.claim(asked, usage, bytes)) {
            Some(None) => {}
            Some(Some(claimed)) => return claimed,
            None => break,
        }
    }
    0
}

/// Sets the charge to the driver's figure. False where the driver gives none, or others have overtaken this again and again.
pub fn update(arena: &impl Charged) -> bool {
    for _ in 0..ATTEMPTS {
        let asked = asked(arena);
        let Some(usage) = figure(arena) else { return false };
        match arena.locked(|book| book.settle(asked, usage, Stake::default(), u64::MAX)) {
            Some(Verdict::Settled) => return true,
            Some(_) => {}
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests;
