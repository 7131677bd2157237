//! Kernels: any name is one, and takes as long as the machine says.

use std::collections::HashMap;

use cuda_shim_device::Machine;

use crate::context::Context;
use crate::table::{Handle, Kind};

/// A kernel, or a function: the two share their handles, as a runtime passes one for the other.
pub struct Kernel {
    /// The symbol.
    pub name: std::ffi::CString,
    /// What it belongs to.
    pub library: Handle<Library>,
    pub module: Handle<Module>,
    pub attributes: HashMap<i32, i32>,
    /// How long it takes, where its name or the machine says; else by the grid.
    pub duration: Option<u64>,
}

/// What was loaded for all contexts.
#[derive(Default)]
pub struct Library {
    pub kernels: HashMap<String, Handle<Kernel>>,
    /// By context.
    pub modules: HashMap<u64, Handle<Module>>,
}

/// What was loaded into one context.
pub struct Module {
    pub context: Handle<Context>,
    pub kernels: HashMap<String, Handle<Kernel>>,
    /// Address and size by name.
    pub globals: HashMap<String, (u64, u64)>,
}

impl Kind for Kernel {
    const TAG: u64 = 12;
}
impl Kind for Library {
    const TAG: u64 = 13;
}
impl Kind for Module {
    const TAG: u64 = 14;
}

/// Nanoseconds of any kernel, and of each block beyond what runs at once, by default.
const BASE: u64 = 5_000;
const PER_BLOCK: u64 = 20;
const LONGEST: u64 = 1_000_000;

/// How long a kernel of this name takes: by the machine's rules, else by a part `_<N>ns`, `_<N>us` or `_<N>ms` of
/// its name.
pub fn named_duration(machine: &Machine, name: &str) -> Option<u64> {
    let rule = machine.kernels.iter().find(|rule| matches(rule.pattern.as_bytes(), name.as_bytes()));
    rule.map(|rule| rule.duration_ns).or_else(|| spoken_duration(name))
}

/// How long a launch takes of which nothing is said: it grows with the grid.
pub fn default_duration(grid: [u32; 3]) -> u64 {
    let blocks = grid.iter().map(|side| u64::from(*side)).product::<u64>();
    (BASE + blocks * PER_BLOCK).min(LONGEST)
}

fn spoken_duration(name: &str) -> Option<u64> {
    name.split('_').skip(1).find_map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let unit = match part.get(digits..digits + 2)? {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            _ => return None,
        };
        part[..digits].parse::<u64>().ok()?.checked_mul(unit)
    })
}

/// Whether `text` is of `pattern`, in which `*` stands for any run of characters.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
        Some((first, rest)) => {
            text.split_first().is_some_and(|(own, more)| own == first && matches(rest, more))
        }
    }
}
