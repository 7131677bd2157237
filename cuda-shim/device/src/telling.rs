//! What people are told on standard error.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line in one piece, so that it stays whole beside those of other processes. Where nobody reads, nobody is told.
pub fn tell(line: impl Display) {
    let line = format!("{line}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}
