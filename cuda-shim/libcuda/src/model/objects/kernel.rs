//! Modules, libraries and kernels, and how long a kernel takes.
//!
//! Images are not run, and compressed ones not read: any name that one of these may have is a kernel. Its duration
//! comes from the first of these that speaks: the rules in `CUDA_SIM_KERNEL` ("pattern=duration,..."), the machine's rules, a duration in
//! its own name (`step_250us`, `spin_5ms`), and otherwise the model: 3 us and 2 us for every full load of
//! the device that its threads make.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, OnceLock};

use cuda_shim_device::machine::matches;
use cuda_shim_device::{DeviceSpec, KernelRule, Machine, tell};

use crate::model::objects::contents::Contents;
use crate::model::objects::handle::{
    ContextHandle, Handle, KernelHandle, KernelKind, LibraryHandle, LibraryKind, ModuleHandle, ModuleKind,
};
use crate::model::objects::table::Item;
use crate::tools::status::{INVALID_HANDLE, Outcome};

/// Kernels by name.
pub type Kernels = HashMap<CString, KernelHandle>;

/// The contexts into which a launch has loaded code, by their numbers; only known where that takes time.
#[derive(Default)]
pub struct Loaded(Vec<u64>);

impl Loaded {
    /// Loads it into a context; tells whether it was not there yet.
    pub fn load(&mut self, context: u64) -> bool {
        let is_new = !self.0.contains(&context);
        if is_new {
            self.0.push(context);
        }
        is_new
    }
}

/// A module: code loaded into one context.
pub struct Module {
    pub context: ContextHandle,
    /// The library that it is a part of, null for none.
    pub library: LibraryHandle,
    pub kernels: Kernels,
    /// Variables that were asked for: address and size.
    pub variables: HashMap<String, (u64, u64)>,
    pub contents: Arc<Contents>,
    pub loaded: Loaded,
}

impl Item for Module {
    type Kind = ModuleKind;
}

/// A library: code for every context.
pub struct Library {
    pub kernels: Kernels,
    pub modules: Vec<ModuleHandle>,
    pub contents: Arc<Contents>,
    pub loaded: Loaded,
}

impl Item for Library {
    type Kind = LibraryKind;
}

/// A kernel; also a function of a module: callers may pass one for the other.
pub struct Kernel {
    pub name: CString,
    pub module: ModuleHandle,
    pub library: LibraryHandle,
    /// The only context in which it can be launched, null for every one.
    pub context: ContextHandle,
    pub duration: Duration,
    /// `CUfunction_attribute` values that were set.
    pub set: HashMap<i32, i32>,
    /// The shape of the launch interface of before CUDA 4: block, shared bytes.
    pub shape: ([u32; 3], u32),
    pub loaded: Loaded,
}

impl Item for Kernel {
    type Kind = KernelKind;
}

/// How long a kernel takes: what a rule or its name says.
pub enum Duration {
    /// Nothing: the model decides.
    Unknown,
    Fixed(u64),
    /// For a launch, and for each block of it.
    ByBlocks(u64, u64),
    /// A rule that looks at the kernel's parameters.
    ByParameters(Box<KernelRule>),
}

impl Kernel {
    /// A kernel by name.
    pub fn new(name: CString, machine: &Machine, module: ModuleHandle, library: LibraryHandle) -> Kernel {
        let symbol = name.to_string_lossy();
        let rule = rules_of_environment()
            .iter()
            .chain(&machine.kernels)
            .find(|rule| matches(&rule.pattern, &symbol) || matches(&rule.pattern, plain_name(&symbol)));
        let duration = match rule {
            Some(rule) if rule.argument.or(rule.stamps).is_some() => {
                Duration::ByParameters(Box::new(rule.clone()))
            }
            Some(KernelRule { duration_ns, per_block_ns: 0, .. }) => Duration::Fixed(*duration_ns),
            Some(rule) => Duration::ByBlocks(rule.duration_ns, rule.per_block_ns),
            None => duration_in_name(&symbol).map_or(Duration::Unknown, Duration::Fixed),
        };
        Kernel {
            name,
            module,
            library,
            context: Handle::NULL,
            duration,
            set: HashMap::new(),
            shape: ([1; 3], 0),
            loaded: Loaded::default(),
        }
    }

    /// `INVALID_HANDLE` in another context than its own.
    #[inline]
    pub fn belongs_in(&self, context: ContextHandle) -> Outcome {
        if self.context.is_null() || self.context == context { Ok(()) } else { Err(INVALID_HANDLE) }
    }
}

/// Three hours, so that no sum of times runs over.
const LONGEST: u64 = 1 << 43;

#[inline]
fn volume(sizes: [u32; 3]) -> u64 {
    sizes.into_iter().map(u64::from).fold(1, u64::saturating_mul)
}

/// What the model gives a launch on a device.
#[inline]
pub fn by_load(grid: [u32; 3], block: [u32; 3], spec: &DeviceSpec) -> u64 {
    let threads = volume(grid).saturating_mul(volume(block));
    let load = u64::from(spec.sm_count) * u64::from(spec.threads_per_sm);
    3000 + 2000 * threads.div_ceil(load.max(1)).min(1 << 40)
}

/// `once`, and `each` for every block.
#[inline]
pub fn by_blocks(once: u64, each: u64, grid: [u32; 3]) -> u64 {
    once + volume(grid).saturating_mul(each).min(LONGEST)
}

/// `once`, so many times.
pub fn by_argument(once: u64, times: u64) -> u64 {
    once.saturating_mul(times).min(LONGEST)
}

fn rules_of_environment() -> &'static [KernelRule] {
    static RULES: OnceLock<Vec<KernelRule>> = OnceLock::new();
    RULES.get_or_init(|| {
        let list = std::env::var("CUDA_SIM_KERNEL").unwrap_or_default();
        let rules = list.split(',').filter(|rule| !rule.is_empty());
        rules
            .filter_map(|rule| {
                rule.parse()
                    .map_err(|error: String| {
                        tell(format_args!("simulated libcuda: CUDA_SIM_KERNEL: {error}"))
                    })
                    .ok()
            })
            .collect()
    })
}

/// The last name in a mangled C++ symbol: `busy` of `_ZN3app4busyEPf`; other symbols as they are.
fn plain_name(symbol: &str) -> &str {
    let Some(mut rest) = symbol.strip_prefix("_Z") else { return symbol };
    rest = rest.trim_start_matches(['N', 'K', 'L']);
    let mut last = symbol;
    while let digits = rest.bytes().take_while(u8::is_ascii_digit).count()
        && digits > 0
        && let Ok(length) = rest[..digits].parse::<usize>()
        && let Some(name) = rest.get(digits..digits.saturating_add(length))
    {
        last = name;
        rest = &rest[digits + length..];
    }
    last
}

/// A duration that a name ends in: `_`, digits, and `ns`, `us` or `ms`.
fn duration_in_name(symbol: &str) -> Option<u64> {
    plain_name(symbol).rsplit('_').find_map(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let unit = match &part[digits..] {
            "ns" => 1,
            "us" => 1000,
            "ms" => 1_000_000,
            _ => return None,
        };
        part[..digits].parse::<u64>().ok()?.checked_mul(unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_known_by_symbol_and_by_plain_name() {
        assert_eq!(plain_name("_Z4spini"), "spin");
        assert_eq!(plain_name("_ZN3app4busyEPf"), "busy");
        assert_eq!(plain_name("add"), "add");
        assert!(matches("spin*", "spinner") && matches("*in*", "spin") && !matches("spin", "spinner"));
    }

    #[test]
    fn a_name_can_tell_its_duration() {
        assert_eq!(duration_in_name("_Z8busy_5msv"), Some(5_000_000));
        assert_eq!(duration_in_name("step_250us"), Some(250_000));
        assert_eq!(duration_in_name("relu_4d"), None);
    }
}
