//! The limits as values: by device, by source.

use super::knob::Source;
use super::problem::Reason;
use crate::text::{Fixed, split_once};

/// A look-up in the environment: a name in, the value's bytes out.
pub type Env<'e, 'v> = &'e dyn Fn(&str) -> Option<&'v [u8]>;

/// A device's UUID as NVIDIA prints it, at most 47 bytes.
pub type Uuid = Fixed<48>;

/// How many values one [`Table`] holds.
const VALUES: usize = 64;

/// How limits are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Limits are enforced.
    #[default]
    Enforce,
    /// The library counts the requests that it would refuse or delay, and lets them pass.
    Observe,
    /// There is no quota.
    Off,
}

/// The policy for a limit that cannot be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The container has no GPU.
    #[default]
    Closed,
    /// The value counts as not given.
    Open,
}

/// When the share of GPU time binds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CorePolicy {
    /// Unless the node's agent or HAMi's monitor lends what is idle. HAMi's `default`.
    #[default]
    BurstShare,
    /// Always. HAMi's `force`.
    FixedShare,
    /// Never. HAMi's `disable`.
    BestEffort,
}

/// The device that a value is for.
#[derive(Clone, Copy, Debug)]
pub enum Selector {
    /// Every device.
    All,
    /// The device of this index in the container, 0..=31.
    Index(u8),
    /// The device or MIG instance of this UUID.
    Uuid(Uuid),
}

impl Selector {
    /// How specific it is for a device, from 0; `None` if it is for another one.
    pub fn matches(&self, index: u32, uuid: &[u8]) -> Option<u8> {
        match self {
            Self::All => Some(0),
            Self::Index(own) => (u32::from(*own) == index).then_some(1),
            Self::Uuid(own) => same_uuid(own.as_bytes(), uuid).then_some(2),
        }
    }
}

/// Whether two texts name one device. CUDA does not tell whether a device is a MIG instance, so the part before the first
/// hyphen, `GPU` or `MIG`, does not count.
fn same_uuid(one: &[u8], other: &[u8]) -> bool {
    match (split_once(one, b'-'), split_once(other, b'-')) {
        (Some((_, one)), Some((_, other))) => one.eq_ignore_ascii_case(other),
        _ => false,
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All) => true,
            (Self::Index(one), Self::Index(two)) => one == two,
            (Self::Uuid(one), Self::Uuid(two)) => same_uuid(one.as_bytes(), two.as_bytes()),
            _ => false,
        }
    }
}

impl Eq for Selector {}

/// One value, the device that it is for, and its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// Where it comes from.
    pub source: Source,
    /// The device that it is for.
    pub selector: Selector,
    /// Bytes of memory, or percent of time.
    pub value: T,
}

/// The values of one key, at most 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<T> {
    entries: [Option<Entry<T>>; VALUES],
}

impl<T: Copy> Default for Table<T> {
    fn default() -> Self {
        Self { entries: [None; VALUES] }
    }
}

impl<T: Copy> Table<T> {
    /// All values, in the order in which they were read.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.entries.iter().flatten()
    }

    /// The values for a device, and how special each is.
    fn matching(&self, index: u32, uuid: &[u8]) -> impl Iterator<Item = (&Entry<T>, u8)> {
        self.iter().filter_map(move |entry| Some((entry, entry.selector.matches(index, uuid)?)))
    }

    /// The value that holds for a device, by the rules of this module.
    pub fn lookup(&self, index: u32, uuid: &[u8]) -> Option<&Entry<T>> {
        self.matching(index, uuid)
            .min_by_key(|(entry, specific)| (entry.source, core::cmp::Reverse(*specific)))
            .map(|(entry, _)| entry)
    }

    /// The value of one source for a device.
    pub fn lookup_of(&self, source: Source, index: u32, uuid: &[u8]) -> Option<&Entry<T>> {
        self.matching(index, uuid)
            .filter(|(entry, _)| entry.source == source)
            .max_by_key(|(_, specific)| *specific)
            .map(|(entry, _)| entry)
    }

    pub(super) fn add(&mut self, source: Source, selector: Selector, value: T) -> Result<(), Reason> {
        if self.iter().any(|entry| entry.source == source && entry.selector == selector) {
            return Err(Reason::GivenTwice);
        }
        let free = self.entries.iter_mut().find(|entry| entry.is_none()).ok_or(Reason::TooMany)?;
        *free = Some(Entry { source, selector, value });
        Ok(())
    }

    /// The value of one source for this selector itself.
    pub(super) fn own(&mut self, source: Source, selector: Selector) -> Option<&mut T> {
        let same = |entry: &&mut Entry<T>| entry.source == source && entry.selector == selector;
        self.entries.iter_mut().flatten().find(same).map(|entry| &mut entry.value)
    }

    /// Whether a higher source than this one sets every device.
    pub(super) fn is_outranked(&self, source: Source) -> bool {
        self.iter().any(|entry| entry.source < source && entry.selector == Selector::All)
    }
}

/// All limits that the operator set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How limits are applied.
    pub mode: Mode,
    /// The policy for a limit that cannot be understood.
    pub on_error: OnError,
    /// When the share of GPU time binds.
    pub policy: CorePolicy,
    /// Device memory, in bytes.
    pub memory: Table<u64>,
    /// The part of it that may lie on the device, in bytes.
    pub physical: Table<u64>,
    /// GPU time, in percent from 1 to 100; 100 is no limit.
    pub cores: Table<u8>,
    /// The part of it that is guaranteed beside other containers, in percent.
    pub requests: Table<u8>,
    /// The task's priority, 0 is the highest.
    pub priority: i32,
    /// Whether memory comes from the host when the device itself is full.
    pub oversubscribe: bool,
    /// How long a request over the cap waits for bytes of other processes, milliseconds.
    pub memory_wait_ms: u32,
    /// Whether a request over the cap may end a process of lower priority.
    pub oom_kill: bool,
    /// Whether the library writes nothing to standard error.
    pub quiet: bool,
    /// Whether our own variables may ask for less than the limits file, as `gpuquota run` does for a user of `limits.d`.
    pub composes: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            on_error: OnError::default(),
            policy: CorePolicy::default(),
            memory: Table::default(),
            physical: Table::default(),
            cores: Table::default(),
            requests: Table::default(),
            priority: 1,
            oversubscribe: false,
            memory_wait_ms: 0,
            oom_kill: false,
            quiet: false,
            composes: false,
        }
    }
}

impl Limits {
    /// The memory cap of a device in bytes, `None` where there is none. `index` counts the container's
    /// devices; `uuid` is NVIDIA's text without a NUL, empty if unknown.
    pub fn memory_for(&self, index: u32, uuid: &[u8]) -> Option<u64> {
        self.memory.lookup(index, uuid).map(|entry| entry.value)
    }

    /// How much of it may lie on the device, in bytes, `None` where all of it may.
    pub fn physical_for(&self, index: u32, uuid: &[u8]) -> Option<u64> {
        self.physical.lookup(index, uuid).map(|entry| entry.value)
    }

    /// Whether allocations may come from the host's memory.
    pub fn spills(&self) -> bool {
        self.mode == Mode::Enforce && (self.oversubscribe || self.physical.iter().next().is_some())
    }

    /// The share of GPU time of a device in percent (1..=100), `None` where there is no limit or where the policy never
    /// enforces it.
    pub fn cores_for(&self, index: u32, uuid: &[u8]) -> Option<u8> {
        let binds = self.policy != CorePolicy::BestEffort;
        self.cores.lookup(index, uuid).filter(|_| binds).map(|entry| entry.value)
    }

    /// The part of a device's time that is guaranteed beside other containers, in percent, never more than the share; `None`
    /// where the share alone decides.
    pub fn request_for(&self, index: u32, uuid: &[u8]) -> Option<u8> {
        let most = self.cores_for(index, uuid).unwrap_or(100);
        self.requests.lookup(index, uuid).map(|entry| entry.value.min(most))
    }

    /// Whether any limit depends on a device's index.
    pub fn go_by_index(&self) -> bool {
        let by_index = |selector: Selector| matches!(selector, Selector::Index(_));
        self.memory.iter().chain(self.physical.iter()).any(|entry| by_index(entry.selector))
            || self.cores.iter().chain(self.requests.iter()).any(|entry| by_index(entry.selector))
    }
}
