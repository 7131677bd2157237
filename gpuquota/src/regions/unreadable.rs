//! Why a file gave no region, for people and for a metric's label.

use gpuquota_region::Refusal;
use gpuquota_region::examine::OpenError;
use std::fmt;
use std::io;

/// Why a file gave no region.
#[derive(Debug)]
pub enum Unreadable {
    /// The system refused.
    System(io::Error),
    /// A directory, FIFO, device or socket.
    NotAFile,
    /// The bytes are no region.
    Refused(Refusal),
    /// Living processes hold the region, and it cannot be opened.
    Held(OpenError),
    /// The file was truncated or overwritten, and this process, 0 where it cannot be told which, holds the region.
    Lost(u32),
}

impl Unreadable {
    /// One word for a metric's label.
    pub fn word(&self) -> &'static str {
        match self {
            Self::System(_) => "unreadable",
            Self::NotAFile => "not_a_file",
            Self::Refused(Refusal::TooShort) => "too_short",
            Self::Refused(Refusal::NotARegion) => "not_a_region",
            Self::Refused(Refusal::OtherVersion(_)) => "other_version",
            Self::Refused(Refusal::NotReady) => "not_ready",
            Self::Held(_) => "held",
            Self::Lost(_) => "contents_lost",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::NotAFile => f.write_str("it is no regular file"),
            Self::Refused(refusal) => f.write_str(refusal.reason()),
            Self::Held(error) => error.fmt(f),
            Self::Lost(holder) => {
                f.write_str("it was truncated or overwritten, and is whole again after the next call of ")?;
                match holder {
                    0 => f.write_str("the processes that hold it"),
                    pid => write!(f, "process {pid}, which holds it"),
                }
            }
        }
    }
}

impl<E: Into<io::Error>> From<E> for Unreadable {
    fn from(error: E) -> Self {
        Self::System(error.into())
    }
}
