//! What can go wrong on a connection, and what a plugin answers where it refuses something.

use std::{fmt, io};

/// The codes of gRPC that are used here.
pub mod code {
    /// Nothing more is known.
    pub const UNKNOWN: i32 = 2;
    /// A message that is none.
    pub const INVALID_ARGUMENT: i32 = 3;
    /// Something is not as the request needs it.
    pub const FAILED_PRECONDITION: i32 = 9;
    /// There is no such method.
    pub const UNIMPLEMENTED: i32 = 12;
    /// An answer that cannot be sent.
    pub const INTERNAL: i32 = 13;
}

/// A request was refused. Of CreateContainer the runtime fails the container with this message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// One of gRPC's codes.
    pub code: i32,
    /// Why, for people.
    pub message: String,
}

impl Status {
    /// With this code and message.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

/// Why a connection has ended.
#[derive(Debug)]
pub enum Error {
    /// The runtime has closed it.
    Closed,
    /// The system refused something.
    System(io::Error),
    /// The runtime sent what is no message.
    Protocol(String),
    /// The runtime was silent, or read nothing, for too long; during what.
    Silent(&'static str),
    /// The runtime refused the plugin.
    Refused(Status),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the runtime has closed the connection"),
            Self::System(error) => error.fmt(f),
            Self::Protocol(what) => write!(f, "the runtime does not speak NRI: {what}"),
            Self::Silent(during) => write!(f, "the runtime took too long to {during}"),
            Self::Refused(status) => write!(f, "the runtime refuses the plugin: {status}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted => Self::Closed,
            _ => Self::System(error),
        }
    }
}
