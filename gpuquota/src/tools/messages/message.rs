//! What a message is.

use serde::{Serialize, Serializer};

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Its code, for ever.
    pub code: &'static str,
    /// Its name in a few words.
    pub title: &'static str,
    /// What it means.
    pub means: &'static str,
    /// What to do next.
    pub next: &'static str,
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code)
    }
}

/// A message in a table of constants.
pub const fn message(
    code: &'static str,
    title: &'static str,
    means: &'static str,
    next: &'static str,
) -> Message {
    Message { code, title, means, next }
}
