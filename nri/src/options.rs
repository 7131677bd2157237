//! How a plugin connects.

use std::path::PathBuf;
use std::time::Duration;

/// Where runtimes listen.
pub const DEFAULT_SOCKET: &str = "/var/run/nri/nri.sock";

/// How a plugin connects.
#[derive(Clone, Debug)]
pub struct Options {
    /// The plugin's name: letters, digits, `-`, `_`, `.` and `+`.
    pub name: String,
    /// Its place among the plugins, from 0 to 99: lower ones are asked first.
    pub index: u8,
    /// The runtime's socket.
    pub socket: PathBuf,
    /// How long the runtime may take to take the connection, to answer a call and to configure the plugin.
    pub patience: Duration,
    /// The pauses between attempts: the first, and the longest. Each is twice the one before.
    pub pauses: (Duration, Duration),
}

impl Options {
    /// The usual ones.
    pub fn new(name: &str, index: u8) -> Self {
        Self {
            name: name.to_owned(),
            index: index.min(99),
            socket: DEFAULT_SOCKET.into(),
            patience: Duration::from_secs(5),
            pauses: (Duration::from_millis(100), Duration::from_secs(5)),
        }
    }
}
