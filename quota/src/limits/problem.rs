//! Problems with values, and messages about them for the person who set the value.

use super::knob::Knob;
use crate::text::{Fixed, Line};

/// How many problems are kept; further ones are only counted.
pub const MAX_PROBLEMS: usize = 8;

/// Bytes of a value that a message repeats.
const EXCERPT: usize = 48;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A limit cannot be understood: the policy for errors decides.
    Error,
    /// Understood, but worth a message.
    Warning,
}

macro_rules! reasons {
    ($($name:ident => $severity:ident, $words:literal;)+) => {
        /// Why a value was not taken as it stands.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $(#[doc = $words] $name,)+
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Whether it is an error or a warning.
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)+
                }
            }

            /// The reason in words, without a full stop.
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)+
                }
            }
        }
    };
}

reasons! {
    Empty => Error, "nothing is written where a value belongs";
    NotANumber => Error, "this is not a number";
    Negative => Error, "a limit cannot be negative";
    Zero => Error, "a limit of zero would allow nothing";
    LeadingZero => Error, "a leading zero is read as octal by some and as decimal by others";
    Fraction => Error, "only whole numbers are understood here";
    FractionOfAByte => Error, "a byte has no fraction, and no unit is given";
    TrailingJunk => Error, "something follows the number that is not understood";
    UnknownUnit => Error, "the unit is not known";
    AmbiguousUnit => Error, "KB, MB, GB and TB mean 1000 to some and 1024 to others";
    TooLarge => Error, "the size is out of range, it must be below 64 TiB";
    AboveHundred => Error, "more than 100 percent of a GPU cannot be given";
    AboveTheShare => Error, "more is guaranteed than the share of GPU time allows";
    BadSelector => Error, "before '=' belongs a device index or a UUID that starts with GPU- or MIG-";
    IndexTooHigh => Error, "the highest device index is 31";
    GivenTwice => Error, "the same device is given two values";
    TooMany => Error, "there are more values than can be kept";
    UnknownWord => Error, "this word is not known here";
    NotKeyValue => Error, "this line is not 'key = value'";
    UnknownKey => Error, "this key is not known";
    KeyTwice => Error, "this key was given before";
    PathTooLong => Error, "the path is longer than 1023 bytes";
    PathRelative => Error, "a relative path would be another file in every working directory";
    ZeroMeansNone => Warning, "0 means no limit, as it does in HAMi";
    EmptyMeansNone => Warning, "an empty value means no limit, as it does in HAMi";
    PolicyUnknown => Warning, "the policy is not known and taken as 'default', as HAMi does";
    RatioBelowOne => Error, "memory is oversold by a factor, and one below 1 is none";
    BelowTheGuarantee => Error, "less may be had of what others leave than is guaranteed";
    NotATime => Error, "this is no time from 0 to 60 seconds";
    NotABool => Warning, "neither true nor false, taken as false";
    NotAPriority => Warning, "not a priority, taken as 1";
}

/// A variable's name with its index.
pub type Name = Fixed<34>;

/// Where a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the environment, under this name.
    Env(Name),
    /// In the limits file, on this line (from 1).
    File(u32),
}

/// The consequence of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// No GPU for this container.
    NoGpu,
    /// The value counts as not given.
    Ignored,
}

/// One value that was not taken as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was found.
    pub origin: Origin,
    /// Why the value was not taken as it stands.
    pub reason: Reason,
    /// What to write, as the end of a sentence that starts with "Write".
    pub instead: &'static str,
    value: Fixed<{ EXCERPT + 2 }>,
}

impl Problem {
    pub(super) fn new(origin: Origin, value: &[u8], reason: Reason, instead: &'static str) -> Self {
        // One byte more than is shown, so that the message can tell that there was more.
        let kept = value.get(..EXCERPT.saturating_add(1)).unwrap_or(value);
        Self { origin, reason, instead, value: Fixed::copy_of(kept).unwrap_or_default() }
    }

    pub(super) fn of(knob: &'static Knob, origin: Origin, value: &[u8], reason: Reason) -> Self {
        Self::new(origin, value, reason, knob.write)
    }

    /// The beginning of the value that was wrong, at most 49 bytes.
    pub fn value(&self) -> &[u8] {
        self.value.as_bytes()
    }

    /// Appends what was wrong and what to write instead, without origin and consequence.
    pub fn write_reason<const N: usize>(&self, line: &mut Line<N>) {
        line.push_str(self.reason.words()).push_str(". Write ").push_str(self.instead).push_str(".");
    }

    /// Appends the whole message: origin, value, what was wrong, what to write, and what happens now.
    pub fn write<const N: usize>(&self, line: &mut Line<N>, consequence: Consequence) {
        match &self.origin {
            Origin::Env(name) => {
                line.push_escaped(name.as_bytes(), 33).push_str("=\"");
                line.push_escaped(self.value(), EXCERPT).push_str("\" in the environment: ");
            }
            Origin::File(number) => {
                line.push_str("limits file, line ").push_u64(u64::from(*number)).push_str(", \"");
                line.push_escaped(self.value(), EXCERPT).push_str("\": ");
            }
        }
        self.write_reason(line);
        line.push_str(match (self.reason.severity(), consequence) {
            (Severity::Warning, _) => "",
            (Severity::Error, Consequence::NoGpu) => {
                " Until then there is no GPU here (the policy for errors is closed)."
            }
            (Severity::Error, Consequence::Ignored) => " It counts as not given.",
        });
    }
}

/// The problems of all values that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    kept: [Option<Problem>; MAX_PROBLEMS],
    errors: u32,
    warnings: u32,
}

impl Problems {
    pub(super) fn add(&mut self, problem: Problem) {
        let severity = problem.reason.severity();
        match severity {
            Severity::Error => self.errors = self.errors.saturating_add(1),
            Severity::Warning => self.warnings = self.warnings.saturating_add(1),
        }
        // An error must not be lost behind warnings: it takes the place of one where no other is free.
        let is_warning = |kept: &&mut Option<Problem>| {
            kept.as_ref().is_some_and(|kept| kept.reason.severity() == Severity::Warning)
        };
        let free = match self.kept.iter_mut().find(|kept| kept.is_none()) {
            Some(free) => Some(free),
            None if severity == Severity::Error => self.kept.iter_mut().rev().find(is_warning),
            None => None,
        };
        if let Some(free) = free {
            *free = Some(problem);
        }
    }

    /// The problems that were kept, at most [`MAX_PROBLEMS`].
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.kept.iter().flatten()
    }

    /// How many errors there were, kept or not.
    pub fn errors(&self) -> u32 {
        self.errors
    }

    /// How many warnings there were, kept or not.
    pub fn warnings(&self) -> u32 {
        self.warnings
    }
}
