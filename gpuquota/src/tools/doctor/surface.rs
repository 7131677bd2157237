//! What the library does about each function of the driver: it holds it, leaves it alone for a reason, or does not know it.

use super::elf::{self, Elf};
use crate::run::library;
use serde::Serialize;
use std::collections::BTreeSet;

/// Functions that the library leaves alone, each for a reason.
const EXEMPT: &str = include_str!("../../../../tests/surface/exempt.txt");

/// What the library does about one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It stands before it.
    Held,
    /// It leaves it alone, for a reason.
    Passed,
    /// Nobody has decided on it.
    Unknown,
}

/// All decisions.
pub struct Surface {
    hooks: BTreeSet<String>,
    exempt: BTreeSet<&'static str>,
}

impl Surface {
    /// Those of the library that would be preloaded.
    pub fn of_library() -> Option<Self> {
        Some(Self::of(Elf::parse(&elf::read(&library::find().ok()?).ok()?)?.exports()))
    }

    /// Those of a library with these hooks.
    pub fn of(hooks: BTreeSet<String>) -> Self {
        let lines = EXEMPT.lines().filter(|line| !line.starts_with('#'));
        Self { hooks, exempt: lines.flat_map(str::split_whitespace).collect() }
    }

    /// What it does about a function of this very name.
    pub fn standing(&self, name: &str) -> Standing {
        if self.hooks.contains(name) { Standing::Held } else { self.unheld(name) }
    }

    /// The same of a function that it does not hold.
    pub fn unheld(&self, name: &str) -> Standing {
        let is_left =
            self.exempt.contains(name) || self.exempt.contains(base(name)) && !self.holds_base(name);
        if is_left { Standing::Passed } else { Standing::Unknown }
    }

    fn holds_base(&self, name: &str) -> bool {
        self.hooks.iter().any(|hook| base(hook) == base(name))
    }
}

/// Whether a name is one of the driver API or of NVML.
pub fn is_api(name: &str) -> bool {
    let rest = name.strip_prefix("cu").or_else(|| name.strip_prefix("nvml"));
    rest.is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_uppercase()))
}

/// The name of a function without the suffixes of its versions.
fn base(export: &str) -> &str {
    let name = export.trim_end_matches("_ptds").trim_end_matches("_ptsz");
    match name.rsplit_once("_v") {
        Some((name, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_nobody_has_decided_on_is_unknown() {
        let hooks = ["cuMemAlloc_v2", "cuLaunchKernel"].map(str::to_owned);
        let surface = Surface::of(hooks.into());
        let names = ["cuMemAlloc_v2", "cuMemAlloc_v9", "cuMemcpy_v2", "cuNewThing"];
        use Standing::{Held, Passed, Unknown};
        assert_eq!(names.map(|name| surface.standing(name)), [Held, Unknown, Passed, Unknown]);
        let api = ["cuInit", "nvmlInit_v2", "cudaMalloc", "cudbgApi", "cublasCreate", "other", "cu"];
        assert_eq!(api.map(is_api), [true, true, false, false, false, false, false]);
    }
}
