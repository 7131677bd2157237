//! How the tools write what they have to say.

use crate::error::Error;
use serde::Serialize;
use std::io::{self, Write};
use std::process::ExitCode;

/// Writes all of it to stdout. A reader that wants no more is no failure.
pub fn write(text: &str) -> Result<ExitCode, Error> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::system("write")(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// One JSON object.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data has a JSON form") + "\n"
}

/// One JSON object a line.
pub fn lines(values: &[impl Serialize]) -> String {
    values.iter().map(json).collect()
}
