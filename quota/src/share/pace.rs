//! How fast containers get on beside each other.

/// The one that is behind must get on faster by this part while others wait for it; and how long it has to be seen for that.
const FASTER: u64 = 8;
const KNOWN_NS: u64 = 20_000_000;

/// All of the time, in millionths.
pub(super) const WHOLE: u64 = 1_000_000;
/// What it did in leases of its own counts half after so long.
const REMEMBERED_NS: u64 = 400_000_000;

/// Work done within a time.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Work {
    pub passed_ns: u64,
    pub charged_ns: i64,
}

impl Work {
    pub fn add(&mut self, passed_ns: u64, charged_ns: i64) {
        self.passed_ns = self.passed_ns.saturating_add(passed_ns);
        self.charged_ns = self.charged_ns.saturating_add(charged_ns);
    }

    /// Lets all of it count half, so that what comes counts more.
    pub fn halve(&mut self) {
        (self.passed_ns, self.charged_ns) = (self.passed_ns / 2, self.charged_ns / 2);
    }

    /// In millionths of the time; no device does more than there is.
    pub fn rate(self) -> u64 {
        let charged = self.charged_ns.max(0).unsigned_abs();
        let rate = charged.saturating_mul(1_000).checked_div(self.passed_ns / 1_000);
        rate.map_or(0, |rate| rate.min(WHOLE))
    }
}

/// Whether a client gets on faster if others wait for it whenever they are ahead.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Pace {
    /// What it does if they wait, and if they do not.
    helped: Work,
    alone: Work,
    /// What it does in leases of its own.
    held: Work,
}

impl Pace {
    pub fn pass(&mut self, passed_ns: u64, charged_ns: i64, others_wait: bool) {
        self.of(others_wait).add(passed_ns, charged_ns);
    }

    /// It had a lease for so long, and was charged so much meanwhile.
    pub fn hold(&mut self, passed_ns: u64, charged_ns: i64) {
        self.held.add(passed_ns, charged_ns);
        if self.held.passed_ns > REMEMBERED_NS {
            self.held.halve();
        }
    }

    /// The part of the time that it uses while it has the device, as far as that is known.
    pub fn uses_alone(&self) -> Option<u64> {
        (self.held.passed_ns >= KNOWN_NS).then(|| self.held.rate())
    }

    /// Forgets what it did, because it is seen anew.
    pub fn forget(&mut self, others_wait: bool) {
        *self.of(others_wait) = Work::default();
    }

    fn of(&mut self, others_wait: bool) -> &mut Work {
        if others_wait { &mut self.helped } else { &mut self.alone }
    }

    /// Whether it gets on faster, as far as is known.
    pub fn is_helped(&self) -> bool {
        let (helped, alone) = (self.helped, self.alone);
        let is_known = helped.passed_ns >= KNOWN_NS && alone.passed_ns >= KNOWN_NS;
        !is_known || helped.rate() > alone.rate().saturating_add(alone.rate() / FASTER)
    }
}
