//! What a simulated machine is made of: its devices, its driver, its kernels' durations. Pure data.

use crate::latency::{Delays, Latency, Startup};
use crate::mig;
use crate::spec::DeviceSpec;

/// Most devices of one machine.
pub const MAX_DEVICES: usize = 32;
/// Exports of a driver that are told apart.
pub const EXPORTS: usize = 1024;
/// Most kernel rules of one machine.
pub const MAX_RULES: usize = 64;
/// Most faults of one machine.
pub const MAX_FAULTS: usize = 64;
/// Parameters of a kernel that a rule can tell apart.
pub const MAX_PARAMETERS: u8 = 64;
/// How long a process has a device while others wait, as an H200 with driver 580.159.04 showed it.
pub const SLICE_NS: u64 = 2_091_000;
/// The time slice of a machine on which nothing else takes time.
pub const IDEAL_SLICE_NS: u64 = 2_000_000;
/// Longest pattern of a kernel rule or a fault in bytes.
pub const MAX_PATTERN: usize = 128;

/// A kernel whose name matches `pattern` (`*` stands for any run of characters) takes `duration_ns`, and `per_block_ns`
/// for each block of its grid. Parameters are told by their number, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRule {
    /// Matched against the kernel's symbol and against its plain name.
    pub pattern: String,
    /// Nanoseconds of one launch.
    pub duration_ns: u64,
    /// Nanoseconds that each block adds.
    pub per_block_ns: u64,
    /// The parameter that `duration_ns` is multiplied by.
    pub argument: Option<u8>,
    /// The parameter that points to the log in which the kernel writes down when it ran.
    pub stamps: Option<u8>,
}

/// What goes wrong, when a call is made whose name matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Names of functions of libcuda or NVML, with or without their suffixes (`_v2`, `_ptsz`); `*` stands for any
    /// run of characters.
    pub call: String,
    /// Only the call of this number, from 1, in each process; `None` for every call.
    pub nth: Option<u64>,
    /// What it answers, a `CUresult` or an `nvmlReturn_t`; 0 if it goes on as usual.
    pub error: i32,
    /// How much longer it takes before it does anything.
    pub delay_ns: u64,
    /// How much later its answer comes, once it has done everything: what it told may be old by then.
    pub late_ns: u64,
    /// Of so many calls it meets one, at random; `None` for every call.
    pub one_in: Option<u64>,
    /// Every call of the process answers the same from then on, as after an error of the device's.
    pub sticky: bool,
    /// The device of this index is lost for all processes.
    pub lost: Option<usize>,
    /// The process is killed before the call does anything.
    pub kill: bool,
    /// Only in processes whose program's file has this name.
    pub program: Option<String>,
}

impl Fault {
    /// Whether it is one of the function that is exported as `export`.
    pub fn is_of(&self, export: &str) -> bool {
        let laned = export.trim_end_matches("_ptsz").trim_end_matches("_ptds");
        let base = match laned.rsplit_once("_v") {
            Some((base, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => base,
            _ => laned,
        };
        matches(&self.call, export) || matches(&self.call, base)
    }
}

/// Whether `pattern`, in which `*` stands for any run of characters, is all of `name`.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|tail| {
            rest.is_empty()
                || (0..=tail.len()).any(|skip| tail.is_char_boundary(skip) && matches(rest, &tail[skip..]))
        }),
    }
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its devices, by index; 1 to [`MAX_DEVICES`]. First the whole ones, as NVML counts them, then the instances of
    /// those that are split.
    pub devices: Vec<DeviceSpec>,
    /// CUDA version of the driver, e.g. 13000.
    pub cuda_version: i32,
    /// Version of the driver, e.g. "580.65.06".
    pub driver_version: String,
    /// Time slice between processes on one device.
    pub slice_ns: u64,
    /// How long a dead process's memory stays taken before the driver has torn it down.
    pub teardown_ns: u64,
    /// Launches that one context may have pending; a further one blocks.
    pub launch_queue: u32,
    /// Durations by kernel name, first match wins.
    pub kernels: Vec<KernelRule>,
    /// What starting takes; what takes time on a device is said there.
    pub startup: Startup,
    /// Whether calls are held up at random.
    pub delays: Option<Delays>,
    /// Whether the handle of what is gone is dealt out to the next object of its kind.
    pub reuses_handles: bool,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Exports that its driver does not hand out, as places in the table of `cuda-shim-symbols`, below [`EXPORTS`].
    pub lacks: Vec<usize>,
}

impl std::str::FromStr for KernelRule {
    type Err = String;

    /// `PATTERN=DURATION`, such as `spin*=1ms`.
    fn from_str(text: &str) -> Result<KernelRule, String> {
        let wrong = || {
            format!(
                "kernel rule \"{text}\": write PATTERN=DURATION, such as 'spin*=1ms' (units ns, us, ms, s)"
            )
        };
        let (pattern, duration) = text.rsplit_once('=').ok_or_else(wrong)?;
        let duration_ns = parse_duration(duration).ok_or_else(wrong)?;
        if pattern.is_empty() || pattern.len() >= MAX_PATTERN {
            return Err(wrong());
        }
        Ok(KernelRule { pattern: pattern.into(), duration_ns, per_block_ns: 0, argument: None, stamps: None })
    }
}

/// `250us`, `1.5ms`: a number and a unit, in nanoseconds, none of which is a part.
pub fn parse_duration(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return None,
    };
    if digits.contains(['+', '-']) {
        return None;
    }
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let scale = 10u64.checked_pow(part.len().try_into().ok()?)?;
    let part = part.parse::<u64>().ok()?.checked_mul(unit).filter(|part| part % scale == 0)? / scale;
    whole.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(part)
}

impl Machine {
    /// A machine with these devices on which nothing takes time but work.
    pub fn new(devices: Vec<DeviceSpec>) -> Machine {
        Machine {
            devices,
            cuda_version: 13000,
            driver_version: "580.65.06".into(),
            slice_ns: IDEAL_SLICE_NS,
            teardown_ns: 0,
            launch_queue: 1024,
            kernels: Vec::new(),
            startup: Startup::default(),
            delays: None,
            reuses_handles: false,
            faults: Vec::new(),
            lacks: Vec::new(),
        }
    }

    /// The same machine where nothing takes time but work.
    pub fn ideal(mut self) -> Machine {
        self.devices.iter_mut().for_each(|spec| spec.latency = None);
        Machine { startup: Startup::default(), slice_ns: IDEAL_SLICE_NS, ..self }
    }

    /// `H100`, `2xA100`, `H100-MIG-3g.40gb`, ...: `count` devices of one built-in model, whole or each split into as many
    /// instances of a profile as it has room for.
    pub fn preset(name: &str) -> Option<Machine> {
        let (count, model) = match name.split_once('x') {
            Some((count, model)) => (count.parse().ok()?, model),
            None => (1, name),
        };
        let (model, profile) = match model.split_once("-MIG-") {
            Some((model, profile)) => (model, Some(profile)),
            None => (model, None),
        };
        if !(1..=MAX_DEVICES).contains(&count) {
            return None;
        }
        let device =
            |index| Some(DeviceSpec { latency: Latency::preset(model), ..DeviceSpec::preset(model, index)? });
        let mut machine = Machine::new((0..count).map(device).collect::<Option<_>>()?);
        machine.startup = Startup::preset(model).unwrap_or_default();
        machine.slice_ns = SLICE_NS;
        if let Some(profile) = profile {
            for index in 0..count {
                let instances = mig::filled(&machine.devices[index], index, profile)?;
                machine.devices.extend(instances);
            }
        }
        (machine.devices.len() <= MAX_DEVICES).then_some(machine)
    }

    /// Splits whole device `index` into instances of these profiles, such as `3g.40gb`.
    ///
    /// # Errors
    /// The device cannot be split, or not so; text for people.
    pub fn split(&mut self, index: usize, profiles: &[&str]) -> Result<(), String> {
        let whole = self.devices[index].clone();
        self.devices.extend(mig::instances(&whole, index, profiles)?);
        Ok(())
    }

    /// How many whole devices there are: the first ones.
    pub fn whole(&self) -> usize {
        self.devices.iter().take_while(|spec| spec.part.is_none()).count()
    }

    /// The instances of whole device `index`, none if it is not split.
    pub fn instances(&self, index: usize) -> impl Iterator<Item = usize> {
        let of = move |spec: &DeviceSpec| spec.part.is_some_and(|part| part.of == index);
        self.devices.iter().enumerate().filter(move |(_, spec)| of(spec)).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_name_count_and_model() {
        assert_eq!(Machine::preset("2xA100").map(|m| m.devices.len()), Some(2));
        for bad in ["NOSUCH", "0xH100", "33xH100", "xH100", "2x", ""] {
            assert!(Machine::preset(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn devices_of_one_machine_differ_in_uuid_and_bus() {
        let machine = Machine::preset("2xH100").unwrap();
        assert_ne!(machine.devices[0].uuid, machine.devices[1].uuid);
        assert_ne!(machine.devices[0].pci_bus_id(), machine.devices[1].pci_bus_id());
        assert_eq!(machine.devices[1].uuid_string(), "GPU-513dc0da-2330-4000-8000-000000000001");
    }

    #[test]
    fn rules_need_a_pattern_a_number_and_a_unit() {
        let rule: KernelRule = "a=b*=15us".parse().expect("a rule");
        assert_eq!((rule.pattern.as_str(), rule.duration_ns), ("a=b*", 15_000));
        for bad in ["spin", "=1ms", "spin=1", "spin=ms", "spin=-1ms", "spin=99999999999999999999s"] {
            assert!(bad.parse::<KernelRule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_is_a_whole_number_of_nanoseconds() {
        for (text, ns) in [("0.55us", 550), ("1.25ms", 1_250_000), ("12.000s", 12_000_000_000), ("7ns", 7)] {
            assert_eq!(parse_duration(text), Some(ns), "{text}");
        }
        for bad in ["1.us", ".5us", "1.5ns", "1.2.3us", "1.-5us", "-1.5us", "0.0000000000000000000001s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
