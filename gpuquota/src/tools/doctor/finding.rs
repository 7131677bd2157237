//! What is found.

use crate::tools::messages::Message;
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Fine,
    /// Worth knowing.
    Note,
    /// Something may not be held, or not as was meant.
    Warning,
    /// Something is not held, or does not work.
    Error,
}

impl Severity {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding.
#[derive(Debug, Serialize)]
pub struct Finding {
    #[serde(rename = "code")]
    pub message: &'static Message,
    pub severity: Severity,
    pub title: &'static str,
    /// What was seen.
    pub says: String,
    pub next: &'static str,
}

impl Finding {
    fn new(severity: Severity, message: &'static Message, says: impl Into<String>) -> Self {
        Self { message, severity, title: message.title, says: says.into(), next: message.next }
    }

    pub fn fine(message: &'static Message, says: impl Into<String>) -> Self {
        Self::new(Severity::Fine, message, says)
    }

    pub fn note(message: &'static Message, says: impl Into<String>) -> Self {
        Self::new(Severity::Note, message, says)
    }

    pub fn warning(message: &'static Message, says: impl Into<String>) -> Self {
        Self::new(Severity::Warning, message, says)
    }

    pub fn error(message: &'static Message, says: impl Into<String>) -> Self {
        Self::new(Severity::Error, message, says)
    }
}
