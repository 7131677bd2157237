//! What is known of the contents of an image: its kernels and its variables.

use std::collections::{HashMap, HashSet};

/// What is in an image.
#[derive(Clone, Default)]
pub struct Contents {
    /// Sizes of variables, by name.
    pub variables: HashMap<String, u64>,
    /// Names of kernels.
    pub kernels: HashSet<String>,
    /// Some of it could not be read: it is compressed, or of no known kind. Then there may be more.
    pub partial: bool,
}

impl Contents {
    /// Whether there may be a kernel of this name.
    pub fn may_have_kernel(&self, name: &str) -> bool {
        self.partial || self.kernels.contains(name)
    }

    /// The size of a variable: `Some(None)` if there may be one of this name.
    pub fn variable(&self, name: &str) -> Option<Option<u64>> {
        match self.variables.get(name) {
            Some(size) => Some(Some(*size)),
            None => self.partial.then_some(None),
        }
    }
}
