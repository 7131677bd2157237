//! What can go wrong, and the exit status that says so.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a subcommand did not do what was asked.
#[derive(Debug)]
pub enum Error {
    /// It was asked wrongly, or for something that is not there. Exit status 2.
    Asked(String),
    /// The command to run does not exist (127) or cannot be started (126), as for every shell.
    Command {
        /// The command's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something. Exit status 1.
    System {
        /// What was being done, to follow "cannot".
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// The exit status of the whole program.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Asked(_) => ExitCode::from(2),
            Self::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => ExitCode::from(127),
            Self::Command { .. } => ExitCode::from(126),
            Self::System { .. } => ExitCode::FAILURE,
        }
    }

    /// For `map_err`: what the system refused.
    pub fn system<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source: source.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(message) => f.write_str(message),
            Self::Command { name, source } => write!(f, "cannot start {name:?}: {source}"),
            Self::System { doing, source } => write!(f, "cannot {doing}: {source}"),
        }
    }
}
