//! A lease: when a container may launch beside others, as the node's agent decides.
//!
//! A driver gives each context that has work a time slice, whatever their shares are, and the time on the clock that a
//! kernel takes then contains slices of others. So the agent leases a contended device to one container at a time
//! (`share::scheduler`). Within its lease a container is alone, and its kernels take what the clock says.

use crate::sync::{AtomicU64, Ordering};

/// If the agent has not renewed a lease for so long, it is gone, and every container keeps its own share again.
pub const AGENT_TIMEOUT_NS: u64 = 50_000_000;

/// The quantum: the longest lease while others wait, unless a single launch takes longer. Long enough that handing over
/// costs little, short enough that of four containers none waits longer than a blink.
pub const QUANTUM_NS: u64 = 10_000_000;

/// The most time that launches take which were submitted and are not yet covered by a measured one.
const UNSAMPLED_NS: u64 = 1_000_000;

/// From when until when launches may be submitted, CLOCK_MONOTONIC nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The first instant.
    pub from_ns: u64,
    /// The first instant after it.
    pub until_ns: u64,
}

const LENGTH_BITS: u32 = 16;
const LENGTH_MASK: u64 = (1 << LENGTH_BITS) - 1;
/// Grain of the start, nanoseconds.
const GRAIN_NS: u64 = 1_000;
/// Grain of the length, as a shift: 16 us, so that the longest lease lasts a second.
const LENGTH_GRAIN: u32 = 14;

impl Lease {
    /// No lease is granted; a launch that waits for one sets `asked_at`.
    pub const NONE: Self = Self { from_ns: GRAIN_NS, until_ns: GRAIN_NS };
    /// A lease without an end.
    pub const ENDLESS: Self = Self { from_ns: GRAIN_NS, until_ns: u64::MAX };
    /// The same beside other containers, whose kernels lie between the events of a launch: launches of known length are
    /// charged what they take alone.
    pub const BESIDE: Self = Self { from_ns: 2 * GRAIN_NS, until_ns: u64::MAX };

    /// The lease as a word of the region; never 0, which means that no agent grants leases.
    #[must_use]
    pub fn word(self) -> u64 {
        let from = (self.from_ns / GRAIN_NS).max(1) << LENGTH_BITS;
        let length = self.until_ns.saturating_sub(self.from_ns) >> LENGTH_GRAIN;
        from | if self.until_ns == u64::MAX { LENGTH_MASK } else { length.min(LENGTH_MASK - 1) }
    }

    /// The lease that a word holds; `None` where no agent grants leases.
    #[inline]
    #[must_use]
    pub fn read(word: u64) -> Option<Self> {
        let from_ns = (word >> LENGTH_BITS).saturating_mul(GRAIN_NS);
        let length = word & LENGTH_MASK;
        let until_ns = match length {
            LENGTH_MASK => u64::MAX,
            length => from_ns.saturating_add(length << LENGTH_GRAIN),
        };
        (word != 0).then_some(Self { from_ns, until_ns })
    }

    /// Whether a launch may be submitted now whose kernel would begin at `begins_ns`.
    #[inline]
    #[must_use]
    pub fn admits(self, now_ns: u64, begins_ns: u64) -> bool {
        (self.from_ns..self.until_ns).contains(&now_ns) && begins_ns < self.until_ns
    }
}

/// The words of one device through which a container and the node's agent communicate.
#[derive(Clone, Copy)]
pub struct AgentWords<'a> {
    /// The container's lease, where an agent grants leases.
    pub lease: Option<Lease>,
    /// Whether the agent also enforces the container's share. It does not where a limits file sets the share, because the
    /// file outranks the region.
    pub enforces_share: bool,
    /// When a launch last waited for a lease.
    pub asked_at: &'a AtomicU64,
    /// Predicted time of the measured launches in flight, of all processes.
    pub in_flight_ns: &'a AtomicU64,
    /// The uncertainty of that prediction.
    pub uncertainty_ns: &'a AtomicU64,
}

/// When the work in flight should be over: at `until_ns` if it runs one after the other, and earlier if it overlaps,
/// because measured launches of `in_flight_ns` have not completed.
#[inline]
#[must_use]
pub fn drains_at(now_ns: u64, until_ns: u64, in_flight_ns: u64) -> u64 {
    until_ns.min(now_ns.saturating_add(in_flight_ns).saturating_add(UNSAMPLED_NS))
}

impl AgentWords<'_> {
    /// Whether others may be at work on the device.
    #[inline]
    pub(super) fn is_beside(&self) -> bool {
        self.lease == Some(Lease::BESIDE)
    }

    /// Whether a launch may be submitted now under this lease; if not, notes that a launch waits.
    #[inline]
    pub fn admits(&self, lease: Lease, now_ns: u64, in_flight_until_ns: u64) -> bool {
        let begins = drains_at(now_ns, in_flight_until_ns, self.in_flight_ns.load(Ordering::Relaxed));
        let open = lease.admits(now_ns, begins.max(now_ns));
        if !open {
            self.asked_at.store(now_ns, Ordering::Relaxed);
        }
        open
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_word_holds_the_lease() {
        let from_ns = 400 * 24 * 3_600 * 1_000 * MS;
        let lease = Lease { from_ns, until_ns: from_ns + (500 << LENGTH_GRAIN) };
        for lease in [lease, Lease::NONE, Lease::ENDLESS, Lease::BESIDE] {
            assert_eq!(Lease::read(lease.word()), Some(lease));
        }
        assert_eq!(Lease::read(0), None);
        let long = Lease { from_ns, until_ns: from_ns + 5_000 * MS };
        assert!(Lease::read(long.word()).is_some_and(|lease| lease.until_ns - from_ns > 1_000 * MS));
    }

    #[test]
    fn a_lease_admits_a_launch_that_begins_within_it() {
        let lease = Lease { from_ns: 10 * MS, until_ns: 18 * MS };
        assert!(lease.admits(10 * MS, 17 * MS));
        assert!(!lease.admits(9 * MS, 9 * MS), "before");
        assert!(!lease.admits(18 * MS, 18 * MS), "after");
        assert!(!lease.admits(16 * MS, 19 * MS), "the work in flight takes all of it");
        assert!(!Lease::NONE.admits(20 * MS, 20 * MS));
    }

    #[test]
    fn overlapping_work_is_over_earlier() {
        assert_eq!(drains_at(10 * MS, 12 * MS, 4 * MS), 12 * MS);
        assert_eq!(drains_at(10 * MS, 90 * MS, 4 * MS), 15 * MS);
    }
}
