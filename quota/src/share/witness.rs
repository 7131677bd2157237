//! What the node's agent knows and no container can: when work of others had the device.
//!
//! A device gives contexts that have work a slice each, so while n containers are at work each has 1/n of the time. A
//! container's kernels then take longer on the clock than they would alone, and from within nobody can tell why. The
//! agent sees what each container is charged, so it knows about when each is at work: what was charged and not yet
//! served. It tells each for how much of that time others had the device, and a landing subtracts that.

/// An agent that has said nothing for so long is gone.
pub const SILENCE_NS: u64 = 50_000_000;

/// A model that was wrong for longer than this has lost its way: it begins anew.
const MOST_DEBT_NS: i64 = 100_000_000;

/// A launch that is expected to take longer than this is interrupted for others again and again: a slice or so.
const SLICES_NS: u64 = 3_000_000;

/// What a launch may take longer than expected, besides six tenths, and not have been interrupted: less than any slice.
const NOISE_NS: u64 = 400_000;

/// One container at one device, as the agent sees it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Witnessed {
    /// GPU time charged to it, when last looked.
    charged_ns: u64,
    /// Of that, what is not served yet; below 0: what was served too early.
    backlog_ns: i64,
    /// For how long others have had the device while it was at work, all in all.
    pub others_ns: u64,
}

impl Witnessed {
    /// It has been charged so much so far.
    pub fn charged(&mut self, total_ns: u64) {
        let more = total_ns.wrapping_sub(self.charged_ns) as i64;
        self.charged_ns = total_ns;
        self.backlog_ns = self.backlog_ns.saturating_add(more).max(-MOST_DEBT_NS);
    }

    /// What it has been charged so far.
    pub fn total_ns(&self) -> u64 {
        self.charged_ns
    }

    /// The first look: what was before does not count.
    pub fn since(total_ns: u64) -> Self {
        Self { charged_ns: total_ns, ..Self::default() }
    }
}

/// Lets time pass for all containers of one device.
pub fn pass(all: &mut [Witnessed], elapsed_ns: u64) {
    let mut left = elapsed_ns;
    while left > 0 {
        let at_work = all.iter().filter(|one| one.backlog_ns > 0);
        let count = at_work.clone().count() as u64;
        let Some(least) = at_work.map(|one| one.backlog_ns.unsigned_abs()).min() else { return };
        // Until the first of them is served.
        let step = least.saturating_mul(count).min(left);
        let own = step.checked_div(count).unwrap_or(0).max(1);
        for one in all.iter_mut().filter(|one| one.backlog_ns > 0) {
            one.backlog_ns = one.backlog_ns.saturating_sub_unsigned(own);
            one.others_ns = one.others_ns.saturating_add(step.saturating_sub(own));
        }
        left = left.saturating_sub(step.max(1));
    }
}

/// What a launch that took `elapsed_ns` would have taken alone, where others had `others_ns` of the `window_ns` from the
/// launch until now.
///
/// One that is shorter than a slice is seldom interrupted: others had the device before it began. If it took about as
/// long as expected it was not, and all of it is charged; if it took much longer it is charged at least what is expected.
pub fn alone(elapsed_ns: u64, expected_ns: u64, others_ns: u64, window_ns: u64) -> u64 {
    let theirs = u128::from(elapsed_ns).saturating_mul(others_ns.min(window_ns).into());
    let theirs = theirs.checked_div(window_ns.into()).unwrap_or(0);
    let alone = elapsed_ns.saturating_sub(u64::try_from(theirs).unwrap_or(0));
    if expected_ns > SLICES_NS {
        return alone;
    }
    let ordinary = expected_ns.saturating_mul(8) / 5;
    if elapsed_ns < ordinary.saturating_add(NOISE_NS) { elapsed_ns } else { alone.max(expected_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn whoever_is_at_work_alone_waits_for_nobody() {
        let mut all = [Witnessed::default(); 2];
        all[0].charged(5 * MS);
        pass(&mut all, 10 * MS);
        assert_eq!(all.map(|one| one.others_ns), [0, 0]);
    }

    #[test]
    fn two_at_work_have_half_each_until_one_is_served() {
        let mut all = [Witnessed::default(); 2];
        all[0].charged(2 * MS);
        all[1].charged(6 * MS);
        pass(&mut all, 3 * MS);
        pass(&mut all, 7 * MS);
        // Both for 4 ms of the clock, 2 ms each; then the second alone.
        assert_eq!(all.map(|one| one.others_ns), [2 * MS, 2 * MS]);
        assert_eq!(all.map(|one| one.backlog_ns), [0, 0]);
    }

    #[test]
    fn what_was_charged_too_much_is_not_work() {
        let mut all = [Witnessed::since(50 * MS); 2];
        all[0].charged(60 * MS);
        pass(&mut all, 10 * MS);
        // It took 6 ms, not 10; the next 4 ms were served already.
        all[0].charged(56 * MS);
        all[0].charged(60 * MS);
        all[1].charged(55 * MS);
        pass(&mut all, 10 * MS);
        assert_eq!(all.map(|one| one.others_ns), [0, 0]);
    }

    #[test]
    fn nobody_is_ever_charged_more_than_the_clock_says_or_less_than_nothing() {
        for elapsed in [0, 1, 100_000, MS, 20 * MS, u64::MAX] {
            for others in [0, MS, u64::MAX] {
                for (expected, window) in [(0, 0), (MS, elapsed), (20 * MS, elapsed.saturating_add(MS))] {
                    assert!(alone(elapsed, expected, others, window) <= elapsed.max(expected));
                }
            }
        }
        assert_eq!(alone(40 * MS, 20 * MS, 20 * MS, 40 * MS), 20 * MS);
        assert_eq!(alone(MS, MS, MS, 3 * MS), MS, "it waited for its slice, and then ran");
    }
}
