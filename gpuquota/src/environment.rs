//! The environment of this process as `quota::limits` asks for it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Names and values.
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// The environment that this process was given.
    pub fn inherited() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// An environment of these variables alone.
    pub fn of(variables: &[(&'static str, OsString)]) -> Self {
        Self(variables.iter().map(|(name, value)| (OsString::from(name), value.clone())).collect())
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_bytes())
    }
}
