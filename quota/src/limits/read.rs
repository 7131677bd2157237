//! From texts to [`Limits`]: the file first, then the knobs in order of rank; problems are collected.

use super::knob::{DEVICE_MAP, FRACTION_REQUEST, KNOBS, Key, Knob, Source};
use super::path::{self, Path};
use super::problem::{Consequence, Origin, Problem, Problems, Reason};
use super::types::{CorePolicy, Env, Limits, Mode, OnError, Selector, Table, Uuid};
use super::value;
use crate::text::{Fixed, Line, split_once};

/// The limits, and the problems in their texts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// The values that were understood.
    pub limits: Limits,
    /// Those that were not.
    pub problems: Problems,
    /// The region that the limits file names. It outranks every variable.
    pub region: Option<Path>,
}

impl Reading {
    /// Whether there must be no GPU: a limit could not be understood, limits bind, and the policy is closed.
    pub fn closed(&self) -> bool {
        self.problems.errors() > 0
            && self.limits.mode == Mode::Enforce
            && self.limits.on_error == OnError::Closed
    }

    /// The consequence of the errors.
    pub fn consequence(&self) -> Consequence {
        if self.closed() { Consequence::NoGpu } else { Consequence::Ignored }
    }
}

/// HAMi's indexed variables end here.
const INDEXED: u8 = 15;

/// Reads what the operator asked, from the environment and from the limits file's text.
///
/// Never fails: [`Reading::problems`] holds the values that could not be understood, and [`Reading::closed`] tells whether
/// they close the GPU. Where a limits file is given, mode, policy and the policy for errors come from it alone:
/// the environment is the tenant's, and must not switch off what the file sets.
pub fn read(env: Env<'_, '_>, file: Option<&[u8]>) -> Reading {
    let mut reading = Reading::default();
    read_into(&mut reading, env, file);
    reading
}

/// As [`read`], into a default [`Reading`] in its final place: it is ten kilobytes large, and the stack may belong to a host
/// application.
pub fn read_into(reading: &mut Reading, env: Env<'_, '_>, file: Option<&[u8]>) {
    let mut reader = Reader {
        limits: &mut reading.limits,
        problems: &mut reading.problems,
        region: &mut reading.region,
        decided: 0,
        line: 0,
    };
    if let Some(text) = file {
        for key in [Key::Mode, Key::Off, Key::OnError, Key::Policy] {
            reader.decide(key);
        }
        reader.file(text);
    }
    for knob in &KNOBS {
        reader.variable(env, knob);
    }
    reader.requests();
}

struct Reader<'r> {
    limits: &'r mut Limits,
    problems: &'r mut Problems,
    region: &'r mut Option<Path>,
    /// Keys that were decided by a higher source, as bits by discriminant.
    decided: u32,
    /// The line of the file that sets requests.
    line: u32,
}

impl Reader<'_> {
    fn decide(&mut self, key: Key) {
        self.decided |= bit(key);
    }

    fn file(&mut self, text: &[u8]) {
        let mut seen = 0_u32;
        for (number, line) in (1_u32..).zip(text.split(|byte| *byte == b'\n')) {
            let line = split_once(line, b'#').map_or(line, |(before, _comment)| before).trim_ascii();
            if line.is_empty() {
                continue;
            }
            let origin = Origin::File(number);
            let Some((name, text)) = split_once(line, b'=') else {
                self.wrong_line(origin, line, Reason::NotKeyValue);
                continue;
            };
            let name = name.trim_ascii();
            let same = |knob: &&Knob| knob.key.file_name().is_some_and(|known| known.as_bytes() == name);
            match KNOBS.iter().find(same) {
                None => self.wrong_line(origin, name, Reason::UnknownKey),
                Some(knob) if seen & bit(knob.key) != 0 => self.wrong_line(origin, name, Reason::KeyTwice),
                Some(knob) => {
                    seen |= bit(knob.key);
                    self.line = if knob.key == Key::Request { number } else { self.line };
                    self.value(knob, origin, Source::File, text.trim_ascii(), Selector::All);
                }
            }
        }
    }

    /// Checks that no request is larger than the share.
    fn requests(&mut self) {
        let Some(knob) = KNOBS.iter().find(|knob| knob.key == Key::Request) else { return };
        for entry in self.limits.requests.iter() {
            let (index, uuid) = match &entry.selector {
                Selector::All => (u32::MAX, &[][..]),
                Selector::Index(index) => (u32::from(*index), &[][..]),
                Selector::Uuid(uuid) => (u32::MAX, uuid.as_bytes()),
            };
            if self.limits.cores_for(index, uuid).is_none_or(|share| entry.value <= share) {
                continue;
            }
            let origin = match entry.source {
                Source::File => Origin::File(self.line),
                _ => Origin::Env(Fixed::copy_of(knob.name.as_bytes()).unwrap_or_default()),
            };
            let mut value = Line::<8>::new();
            value.push_u64(entry.value.into()).push_str("%");
            self.problems.add(Problem::of(knob, origin, value.as_str().as_bytes(), Reason::AboveTheShare));
        }
    }

    fn wrong_line(&mut self, origin: Origin, value: &[u8], reason: Reason) {
        let instead = "each of memory, memory_physical, oversubscribe, region, cores, cores_request, mode, on_error, policy, memory_wait and oom_kill at most once, as 'key = value'";
        self.problems.add(Problem::new(origin, value, reason, instead));
    }

    fn variable(&mut self, env: Env<'_, '_>, knob: &'static Knob) {
        if let Some(text) = env(knob.name) {
            self.named(knob, knob.name, text, Selector::All);
        }
        for index in (0..=INDEXED).filter(|_| knob.indexed) {
            let mut name = Line::<64>::new();
            name.push_str(knob.name).push_str("_").push_u64(u64::from(index));
            if let Some(text) = env(name.as_str()) {
                self.named(knob, name.as_str(), text, device(env, knob.source, index));
            }
        }
    }

    fn named(&mut self, knob: &'static Knob, name: &str, text: &[u8], selector: Selector) {
        // A value that could have no effect need not be right either.
        // vgpu-manager sets all of its variables, empty where one does not apply.
        let says_nothing = matches!(knob.key, Key::SoftCores | Key::Ratio) && text.is_empty();
        if !says_nothing && !self.is_decided(knob) {
            let origin = Origin::Env(Fixed::copy_of(name.as_bytes()).unwrap_or_default());
            self.value(knob, origin, knob.source, text, selector);
        }
    }

    /// Whether a higher source has decided the key, or its value for every device.
    fn is_decided(&self, knob: &Knob) -> bool {
        match knob.key {
            Key::Memory | Key::Cores if self.limits.composes && knob.source == Source::Own => false,
            Key::Memory => self.limits.memory.is_outranked(knob.source),
            Key::Physical | Key::Ratio => self.limits.physical.is_outranked(knob.source),
            Key::Cores | Key::SoftCores => self.limits.cores.is_outranked(knob.source),
            Key::Request => self.limits.requests.is_outranked(knob.source),
            key => self.decided & bit(key) != 0,
        }
    }

    fn value(
        &mut self,
        knob: &'static Knob,
        origin: Origin,
        source: Source,
        text: &[u8],
        selector: Selector,
    ) {
        let mut wrong = |part: &[u8], reason| self.problems.add(Problem::of(knob, origin, part, reason));
        let Limits { memory, physical, cores, requests, .. } = &mut *self.limits;
        let outcome = match (knob.key, source) {
            (Key::Memory, Source::File | Source::Own) => {
                return list(text, source, memory, value::own_size, wrong);
            }
            (Key::Physical, _) => return list(text, source, physical, value::own_size, wrong),
            (Key::Cores, Source::File | Source::Own) => {
                return list(text, source, cores, value::own_percent, wrong);
            }
            (Key::Request, _) => return list(text, source, requests, value::own_percent, wrong),
            (Key::Memory, Source::Fractioning) => value::mebibytes(text).and_then(|bytes| {
                // The request is the limit where no limit is given.
                if knob.name == FRACTION_REQUEST && memory.own(source, selector).is_some() {
                    return Ok(());
                }
                memory.add(source, selector, bytes)
            }),
            (Key::SoftCores, _) => value::hami_percent(text).and_then(|soft| {
                match cores.own(source, selector) {
                    Some(hard) if *hard > soft => Err(Reason::BelowTheGuarantee),
                    Some(hard) => {
                        let guaranteed = core::mem::replace(hard, soft);
                        requests.add(source, selector, guaranteed)
                    }
                    // Without a share nothing is guaranteed, and nothing is limited.
                    None => Ok(()),
                }
            }),
            (Key::Ratio, _) => value::ratio(text).and_then(|ratio| match memory.own(source, selector) {
                Some(bytes) if ratio > 100 => {
                    let part = bytes.saturating_mul(100).checked_div(ratio).unwrap_or(*bytes);
                    physical.add(source, selector, part.max(1))
                }
                _ => Ok(()),
            }),
            (Key::Memory, _) => {
                value::hami_size(text).and_then(|bytes| self.limits.memory.add(source, selector, bytes))
            }
            (Key::Cores, _) => {
                value::hami_percent(text).and_then(|share| self.limits.cores.add(source, selector, share))
            }
            (Key::Mode, _) => mode(text).map(|mode| self.limits.mode = mode),
            (Key::OnError, _) => on_error(text).map(|on_error| self.limits.on_error = on_error),
            (Key::Policy, _) => policy(text, source).map(|policy| self.limits.policy = policy),
            (Key::Priority, _) => value::priority(text).map(|priority| self.limits.priority = priority),
            (Key::Oversubscribe, _) => value::boolean(text).map(|on| self.limits.oversubscribe = on),
            (Key::MemoryWait, _) => value::wait_ms(text).map(|wait| self.limits.memory_wait_ms = wait),
            (Key::OomKill, _) => value::boolean(text).map(|kill| self.limits.oom_kill = kill),
            (Key::Log, _) => log(text).map(|quiet| self.limits.quiet = quiet),
            (Key::Off, _) => value::boolean(text).map(|off| {
                if off {
                    self.limits.mode = Mode::Off;
                }
            }),
            (Key::Region, Source::File) => path::checked(text).map(|path| *self.region = Some(path)),
            (Key::Region | Key::DeviceMap, _) => Ok(()),
        };
        match outcome {
            // A value for the mode also overrides the other engines' switches.
            Ok(()) if knob.key == Key::Mode => self.decide(Key::Off),
            // The first source that gives a value is obeyed.
            Ok(())
                if matches!(knob.key, Key::Policy | Key::OomKill | Key::MemoryWait | Key::Oversubscribe) =>
            {
                self.decide(knob.key)
            }
            Ok(()) => {}
            Err(reason) => wrong(text, reason),
        }
    }
}

/// Our lists: `SIZE`, `DEVICE=SIZE` or both, separated by commas.
fn list<T: Copy>(
    text: &[u8],
    source: Source,
    table: &mut Table<T>,
    value: fn(&[u8]) -> Result<T, Reason>,
    mut wrong: impl FnMut(&[u8], Reason),
) {
    for part in text.split(|byte| *byte == b',') {
        let part = part.trim_ascii();
        let entry = match split_once(part, b'=') {
            None => value(part).map(|value| (Selector::All, value)),
            Some((device, text)) => value::selector(device.trim_ascii())
                .and_then(|selector| value(text).map(|value| (selector, value))),
        };
        if let Err(reason) = entry.and_then(|(selector, value)| table.add(source, selector, value)) {
            wrong(part, reason);
        }
    }
}

/// The device behind an indexed variable: HAMi counts the container's devices, vgpu-manager the host's. A word of the map that is
/// no UUID names no device, and a limit that names none would hold for none: the index stands.
fn device(env: Env<'_, '_>, source: Source, index: u8) -> Selector {
    let host = (source == Source::VgpuManager).then(|| env(DEVICE_MAP)).flatten();
    host.and_then(|uuids| uuids.split(|byte| *byte == b',').nth(usize::from(index)))
        .and_then(|uuid| Uuid::copy_of(uuid.trim_ascii()).filter(|uuid| uuid.as_bytes().contains(&b'-')))
        .map_or(Selector::Index(index), Selector::Uuid)
}

fn mode(text: &[u8]) -> Result<Mode, Reason> {
    word(text, &[("enforce", Mode::Enforce), ("observe", Mode::Observe), ("off", Mode::Off)])
}

fn log(text: &[u8]) -> Result<bool, Reason> {
    word(text, &[("warn", false), ("off", true)])
}

fn on_error(text: &[u8]) -> Result<OnError, Reason> {
    word(text, &[("closed", OnError::Closed), ("open", OnError::Open)])
}

fn policy(text: &[u8], source: Source) -> Result<CorePolicy, Reason> {
    let known = [
        ("burst-share", CorePolicy::BurstShare),
        ("fixed-share", CorePolicy::FixedShare),
        ("best-effort", CorePolicy::BestEffort),
        // HAMi's names of the same.
        ("default", CorePolicy::BurstShare),
        ("force", CorePolicy::FixedShare),
        ("disable", CorePolicy::BestEffort),
    ];
    word(text, &known).map_err(|reason| if source == Source::Hami { Reason::PolicyUnknown } else { reason })
}

fn word<T: Copy>(text: &[u8], known: &[(&str, T)]) -> Result<T, Reason> {
    let text = text.trim_ascii();
    known
        .iter()
        .find(|(name, _)| text.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| *value)
        .ok_or(Reason::UnknownWord)
}

const fn bit(key: Key) -> u32 {
    // Seventeen keys, 32 bits.
    1_u32.wrapping_shl(key as u32)
}
