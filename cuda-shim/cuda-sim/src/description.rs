//! A machine from a file: TOML, whose reader names line and column of what it does not understand.

use std::collections::BTreeMap;
use std::path::Path;

use cuda_shim_device::machine::{MAX_DEVICES, MAX_RULES, SLICE_NS};
use cuda_shim_device::spec::ATTRIBUTES;
use cuda_shim_device::{DeviceSpec, KernelRule, Latency, Machine, Startup};
use cuda_shim_symbols::ROWS;
use serde::Deserialize;

use crate::faults::Fault;
use crate::latency::{Latencies, OfNoDevice};
use crate::profiles::Profile;
use crate::states::Outcome;
use crate::values::{
    Connections, CudaVersion, Duration, Handles, Moment, Name, Parameter, Pattern, Preset, Size, Slice,
    Version,
};
use crate::whereabouts;

/// Most faults of a file; those of its NVML come on top.
const MOST_FAULTS: usize = 32;

/// The whole file. Everything but `device` may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// The driver's version: "580.65.06".
    driver: Option<Version>,
    /// The CUDA version of the driver: "13.0".
    cuda: Option<CudaVersion>,
    /// Time slice between processes on one device.
    slice: Option<Slice>,
    /// How long a dead process's memory stays taken.
    teardown: Option<Duration>,
    /// Launches that one context may have pending.
    launch_queue: Option<std::num::NonZeroU32>,
    /// What NVML does not tell.
    nvml: Option<Profile>,
    /// Exports that the driver does not hand out.
    #[serde(default)]
    lacks: Vec<String>,
    /// What the recorded driver answered to calls of nulls: for comparison, it changes nothing.
    #[serde(default, rename = "nulls")]
    _nulls: BTreeMap<String, BTreeMap<String, String>>,
    /// In their order.
    device: Vec<Device>,
    /// Durations by kernel name, the first match wins.
    #[serde(default)]
    kernel: Vec<Kernel>,
    /// Whether nothing takes time but work and what this file says.
    #[serde(default)]
    ideal: bool,
    /// What starting takes, and calls and front ends on devices that say nothing else.
    latency: Option<Latencies<Moment>>,
    /// Queues between a process and a device that says nothing else.
    connections: Option<Connections>,
    /// Whether handles of what is gone are dealt out again.
    #[serde(default)]
    handles: Handles,
    /// What goes wrong.
    #[serde(default)]
    fault: Vec<Fault>,
}

/// A built-in device and what is different about this one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    like: Preset,
    name: Option<Name>,
    memory: Option<Size>,
    context: Option<Size>,
    /// What a context takes besides, and NVML counts to no process.
    unlisted: Option<Size>,
    sm_count: Option<std::num::NonZeroU32>,
    /// Vendor and device as on the PCI bus.
    pci_id: Option<u32>,
    /// The power limit in milliwatts.
    power_mw: Option<u32>,
    /// The granularity of memory behind handles.
    granularity: Option<Size>,
    /// The driver's answers by number of the attribute.
    attributes: Option<BTreeMap<String, i32>>,
    /// Whether the driver keeps account of ended processes.
    #[serde(default)]
    accounting: bool,
    /// Whether nothing takes time here but work and what this file says; the machine's word without it.
    ideal: Option<bool>,
    /// What calls that concern it take, and its front end.
    latency: Option<Latencies<OfNoDevice>>,
    /// Queues between a process and it.
    connections: Option<Connections>,
    /// The instances that it is split into: "3g.40gb".
    #[serde(default)]
    mig: Vec<String>,
    #[serde(default = "one")]
    count: std::num::NonZeroUsize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kernel {
    pattern: Pattern,
    duration: Duration,
    /// What each block of the grid adds.
    per_block: Option<Duration>,
    /// The parameter that the duration is multiplied by.
    argument: Option<Parameter>,
    /// The parameter that points to the log of when it ran.
    stamps: Option<Parameter>,
}

fn one() -> std::num::NonZeroUsize {
    std::num::NonZeroUsize::MIN
}

/// Reads the machine that a file describes. `ideal`: as if the file said so.
pub fn read(path: &Path, ideal: bool) -> Outcome<Machine> {
    let told = |what: &dyn std::fmt::Display| format!("machine file {}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
    machine(&text, ideal).map_err(|error| told(&error.trim_end()))
}

fn machine(text: &str, ideal: bool) -> Outcome<Machine> {
    let description: Description = toml::from_str(text).map_err(|error| whereabouts::told(&error, text))?;
    let all = description.device.iter().flat_map(|device| std::iter::repeat_n(device, device.count.get()));
    let all: Vec<_> = all.take(MAX_DEVICES + 1).collect();
    let whole = all.iter().enumerate().map(|(index, device)| {
        let spec = device.spec(index).map_err(|what| format!("device {index}: {what}"))?;
        Ok(DeviceSpec { latency: description.latency_of(device, ideal), ..spec })
    });
    let whole = whole.collect::<Outcome<_>>()?;
    let mut usual = Machine::new(whole);
    // What concerns no device is as on a machine of the first device's kind.
    if let Some(first) = all.first().filter(|_| !ideal && !description.ideal) {
        usual.startup = first.like.startup().unwrap_or_default();
        usual.slice_ns = SLICE_NS;
    }
    for (index, device) in all.iter().enumerate() {
        let profiles: Vec<_> = device.mig.iter().map(String::as_str).collect();
        if !profiles.is_empty() {
            usual.split(index, &profiles).map_err(|what| format!("mig of device {index}: {what}"))?;
        }
    }
    if usual.devices.is_empty() || usual.devices.len() > MAX_DEVICES {
        return Err(format!("a machine has 1 to {MAX_DEVICES} devices, instances included"));
    }
    if description.kernel.len() > MAX_RULES {
        return Err(format!("a machine has at most {MAX_RULES} kernel rules"));
    }
    if description.fault.len() > MOST_FAULTS {
        return Err(format!("a machine has at most {MOST_FAULTS} faults"));
    }
    let lacks = description.lacks.iter().map(|export| {
        let place = ROWS.iter().position(|row| row.export == export);
        place.ok_or_else(|| format!("lacks: there is no function {export:?}"))
    });
    let lacks = lacks.collect::<Outcome<_>>()?;
    let mut faults = description
        .fault
        .into_iter()
        .map(|fault| fault.checked(usual.devices.len()))
        .collect::<Outcome<Vec<_>>>()?;
    faults.extend(description.nvml.into_iter().flat_map(Profile::faults));
    Ok(Machine {
        driver_version: description.driver.map_or(usual.driver_version, |version| version.0),
        cuda_version: description.cuda.map_or(usual.cuda_version, |version| version.0),
        slice_ns: description.slice.map_or(usual.slice_ns, |slice| slice.0),
        teardown_ns: description.teardown.map_or(usual.teardown_ns, |teardown| teardown.0),
        launch_queue: description.launch_queue.map_or(usual.launch_queue, |length| length.get()),
        kernels: description
            .kernel
            .into_iter()
            .map(|rule| KernelRule {
                pattern: rule.pattern.0,
                duration_ns: rule.duration.0,
                per_block_ns: rule.per_block.map_or(0, |each| each.0),
                argument: rule.argument.map(|parameter| parameter.0),
                stamps: rule.stamps.map(|parameter| parameter.0),
            })
            .collect(),
        startup: startup_of(usual.startup, description.latency),
        delays: None,
        reuses_handles: matches!(description.handles, Handles::Reused),
        faults,
        lacks,
        devices: usual.devices,
    })
}

impl Description {
    /// What takes time on a device: what its own table says, else the machine's, else what is usual on such a device.
    fn latency_of(&self, device: &Device, ideal: bool) -> Option<Latency> {
        let is_ideal = ideal || device.ideal.unwrap_or(self.ideal);
        let usual = if is_ideal { None } else { device.like.latency() };
        let mut latency = usual.unwrap_or_default();
        if let Some(told) = &self.latency {
            told.put(&mut latency);
        }
        if let Some(told) = &device.latency {
            told.put(&mut latency);
        }
        if let Some(connections) = device.connections.as_ref().or(self.connections.as_ref()) {
            latency.connections = connections.0;
        }
        (latency != Latency::default()).then_some(latency)
    }
}

/// What starting takes: what is usual, but for what the machine's table says.
fn startup_of(mut startup: Startup, latency: Option<Latencies<Moment>>) -> Startup {
    if let Some(latency) = latency {
        latency.put_startup(&mut startup);
    }
    startup
}

impl Device {
    fn spec(&self, index: usize) -> Outcome<DeviceSpec> {
        let mut spec = self.like.spec();
        if let Some(attributes) = &self.attributes {
            let attributes = attributes.iter().map(|(id, value)| {
                let known = id.parse().ok().filter(|id| (1..ATTRIBUTES as i32).contains(id));
                known.map(|id| (id, *value)).ok_or_else(|| format!("{id:?} is the number of no attribute"))
            });
            take_over(&mut spec, attributes.collect::<Outcome<_>>()?);
        }
        if let Some(size) = self.granularity.as_ref().filter(|size| size.0 != GRANULARITY) {
            return Err(format!("granularity = {}B: only 2MiB is simulated", size.0));
        }
        spec.pci_id = self.pci_id.unwrap_or(spec.pci_id);
        spec.power_limit_mw = self.power_mw.unwrap_or(spec.power_limit_mw);
        if let Some(name) = &self.name {
            spec.name.clone_from(&name.0);
        }
        spec.total_bytes = self.memory.as_ref().map_or(spec.total_bytes, |memory| memory.0);
        spec.context_bytes = self.context.as_ref().map_or(spec.context_bytes, |context| context.0);
        spec.unlisted_bytes = self.unlisted.as_ref().map_or(spec.unlisted_bytes, |unlisted| unlisted.0);
        spec.sm_count = self.sm_count.map_or(spec.sm_count, |count| count.get());
        spec.accounting = self.accounting;
        spec.place(index);
        Ok(spec)
    }
}

/// The only one of the simulated devices.
const GRANULARITY: u64 = 2 << 20;

/// Makes a device of which these attributes were recorded.
fn take_over(spec: &mut DeviceSpec, attributes: BTreeMap<i32, i32>) {
    let fields: [(i32, &mut u32); 11] = [
        (13, &mut spec.sm_clock_khz),
        (16, &mut spec.sm_count),
        (36, &mut spec.memory_clock_khz),
        (37, &mut spec.memory_bus_bits),
        (38, &mut spec.l2_bytes),
        (39, &mut spec.threads_per_sm),
        (75, &mut spec.cc_major),
        (76, &mut spec.cc_minor),
        (81, &mut spec.shared_per_sm),
        (97, &mut spec.shared_per_block_optin),
        (106, &mut spec.blocks_per_sm),
    ];
    for (id, field) in fields {
        *field = attributes.get(&id).map_or(*field, |value| value.cast_unsigned());
    }
    spec.attributes = Some(attributes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machine of a file on a machine where nothing else takes time.
    fn machine_of(text: &str) -> Outcome<Machine> {
        machine(text, true)
    }

    #[test]
    fn a_file_describes_devices_driver_and_kernels() {
        let machine = machine_of(
            r#"
            driver = "555.58.02"
            cuda = "12.5"
            teardown = "50ms"
            [[device]]
            like = "H100"
            count = 2
            memory = "16GiB"
            [[device]]
            like = "T4"
            name = "Small"
            [[kernel]]
            pattern = "spin*"
            duration = "250us"
            [[fault]]
            call = "cuMemAlloc*"
            nth = 3
            error = "CUDA_ERROR_OUT_OF_MEMORY"
            "#,
        )
        .expect("a machine");
        let told: Vec<_> =
            machine.devices.iter().map(|device| (device.name.as_str(), device.total_bytes >> 30)).collect();
        assert_eq!(told, [("NVIDIA H100 80GB HBM3", 16), ("NVIDIA H100 80GB HBM3", 16), ("Small", 15)]);
        assert_ne!(machine.devices[0].uuid, machine.devices[1].uuid);
        assert_eq!((machine.cuda_version, machine.driver_version.as_str()), (12050, "555.58.02"));
        let fault = &machine.faults[0];
        assert_eq!((fault.call.as_str(), fault.nth, fault.error), ("cuMemAlloc*", Some(3), 2));
        assert_eq!((machine.teardown_ns, machine.kernels[0].duration_ns), (50_000_000, 250_000));
        assert_eq!(machine.slice_ns, Machine::new(Vec::new()).slice_ns);
    }

    #[test]
    fn the_example_in_the_readme_is_a_machine() {
        let readme = include_str!("../../README.md");
        let example = readme.lines().skip_while(|line| !line.starts_with("    driver ="));
        let example = example.take_while(|line| line.is_empty() || line.starts_with("    "));
        let text: Vec<_> = example.map(str::trim_start).collect();
        let machine = machine_of(&text.join("\n")).expect("a machine");
        assert_eq!((machine.whole(), machine.devices.len()), (2, 6));
        assert_eq!((machine.lacks.len(), machine.kernels.len()), (1, 1));
        assert_eq!((machine.kernels[0].argument, machine.kernels[0].stamps), (Some(0), Some(1)));
        assert!(machine.devices[0].accounting);
        let latency = machine.devices[0].latency.expect("a table");
        assert_eq!((latency.launch_ns, latency.dispatch_ns, latency.event_ns), (4000, 550, 1250));
        assert_eq!((latency.gap_ns, latency.switch_ns), (1600, 140_000));
        assert_eq!((latency.preempt_ns, latency.connections, latency.jitter.ppm), (152_600, 8, 100_000));
        assert_eq!((machine.startup.init_ns, machine.startup.jitter.ppm), (101_000_000, 100_000));
        assert_eq!((machine.slice_ns, machine.reuses_handles), (2_091_000, true));
    }

    #[test]
    fn calls_and_front_ends_take_time_only_where_the_file_says_so() {
        let none = machine_of("[[device]]\nlike = \"H100\"").expect("a machine");
        assert_eq!((none.devices[0].latency, none.startup), (None, Startup::default()));
        let some = machine_of("[latency]\ngap = \"1.4us\"\n[[device]]\nlike = \"H100\"").expect("a machine");
        assert_eq!(some.devices[0].latency, Some(Latency { gap_ns: 1400, ..Latency::default() }));
    }

    /// Key by key: the device, the machine, the built-in device of its kind, nothing.
    #[test]
    fn a_device_takes_what_it_says_else_what_the_machine_says_else_what_is_usual() {
        let text = r#"
            connections = 4
            [latency]
            gap = "2us"
            record = "3us"
            init = "7ms"
            seed = 5
            [[device]]
            like = "H100"
            connections = 2
            [device.latency]
            gap = "9us"
            preempt = "1us"
            [[device]]
            like = "T4"
            latency = { switch = "2us", seed = 6 }
            [[device]]
            like = "H200"
            ideal = true
            "#;
        let usual = |like| Latency::preset(like).expect("a preset");
        let [h100, t4, ideal] = &machine(text, false).expect("a machine").devices[..] else { panic!() };
        let [h100, t4, ideal] = [h100, t4, ideal].map(|device| device.latency.expect("it takes time"));
        let told = |latency: Latency| (latency.gap_ns, latency.record_ns, latency.connections);
        assert_eq!([h100, t4, ideal].map(told), [(9000, 3000, 2), (2000, 3000, 4), (2000, 3000, 4)]);
        let switches = |latency: Latency| (latency.preempt_ns, latency.switch_ns);
        let preempt_ns = usual("T4").preempt_ns;
        let wanted = [(1000, usual("H100").switch_ns), (preempt_ns, 2000), (0, 0)];
        assert_eq!([h100, t4, ideal].map(switches), wanted);
        let launches = [usual("H100").launch_ns, usual("T4").launch_ns, 0];
        assert_eq!([h100, t4, ideal].map(|latency| latency.launch_ns), launches);
        assert_ne!(launches[0], launches[1]);
        assert_eq!([h100, t4, ideal].map(|latency| latency.jitter.seed), [5, 6, 5]);

        let startup = machine(text, false).expect("a machine").startup;
        let usual = Startup::preset("H100").expect("a preset");
        assert_eq!((startup.init_ns, startup.nvml_init_ns), (7_000_000, usual.nvml_init_ns));
        let startup = machine_of(text).expect("a machine").startup;
        assert_eq!((startup.init_ns, startup.nvml_init_ns), (7_000_000, 0));
    }

    #[test]
    fn a_device_is_ideal_as_its_machine_is_unless_it_says_so_itself() {
        let takes_time = |text: &str, ideal| {
            let machine = machine(text, ideal).expect("a machine");
            machine.devices.iter().map(|device| device.latency.is_some()).collect::<Vec<_>>()
        };
        let own = "ideal = true\n[[device]]\nlike = \"T4\"\nideal = false\n[[device]]\nlike = \"T4\"";
        assert_eq!(takes_time(own, false), [true, false]);
        assert_eq!(takes_time(own, true), [false, false]);
        let own = "[[device]]\nlike = \"T4\"\n[[device]]\nlike = \"T4\"\nideal = true\ncount = 2";
        assert_eq!(takes_time(own, false), [true, false, false]);
    }

    #[test]
    fn instances_take_what_the_whole_device_takes() {
        let text = "[[device]]\nlike = \"T4\"\n[[device]]\nlike = \"H100\"\nmig = [\"3g.40gb\"]\nlatency.gap = \"5us\"";
        let devices = machine(text, false).expect("a machine").devices;
        let gaps: Vec<_> =
            devices.iter().map(|device| device.latency.expect("it takes time").gap_ns).collect();
        assert_eq!(gaps, [Latency::preset("T4").expect("a preset").gap_ns, 5000, 5000]);
    }

    #[test]
    fn what_is_wrong_about_a_device_is_told_with_its_number() {
        let first = "[[device]]\nlike = \"H100\"\ncount = 2\n[[device]]\nlike = \"T4\"\n";
        for (second, line, told) in [
            ("[device.latency]\ngap = \"2s\"", "line 7", "at most 1s"),
            ("latency = { gap = \"-1us\" }", "line 6", "such as 2ms"),
            ("latency.gaps = \"1us\"", "line 6", "unknown field `gaps`"),
            ("[device.latency]\ninit = \"1ms\"", "line 7", "belongs to no device"),
            ("[device.latency]\nnvml_init = \"1ms\"", "line 7", "belongs to no device"),
            ("latency = 3", "line 6", "latency"),
            ("connections = 33", "line 6", "1 to 32"),
            ("ideal = \"yes\"", "line 6", "ideal"),
            ("memory = \"1GB\"", "line 6", "80GiB"),
        ] {
            let text = format!("{first}{second}");
            let error = machine_of(&text).err().unwrap_or_else(|| panic!("{text} is a machine"));
            let named = error.contains(told) && error.contains(line) && error.starts_with("device 2: ");
            assert!(named, "{text:?}: {error}");
        }
        let most = format!("[[device]]\nlike = \"T4\"\ncount = {}\n", i64::MAX);
        for (counts, index) in
            [("0x2", "device 2"), ("1_0", "device 10"), ("2.5", "device 0"), ("-1", "device 0")]
        {
            let text = format!("[[device]]\nlike = \"T4\"\ncount = {counts}\n[[device]]\nlike = \"T5\"");
            let error = machine_of(&text).err().unwrap_or_else(|| panic!("{text} is a machine"));
            assert!(error.starts_with(index), "{text:?}: {error}");
        }
        assert!(machine_of(&format!("{most}{most}{most}[[device]]\nlike = 1")).is_err());
        for other in ["[[kernel]]\npattern = 1", "slice = 1", "[latency]\ngap = 1", "[[device"] {
            let text = format!("{other}\n{first}");
            let error = machine_of(&text).err().unwrap_or_else(|| panic!("{text} is a machine"));
            assert!(!error.contains("device 0"), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_machine_that_is_shipped_with_latencies_is_one() {
        let machine = machine_of(include_str!("../../machines/h200-latency.toml")).expect("a machine");
        assert!(
            machine.devices[0].latency.is_some_and(|latency| latency.gap_after_event_ns > latency.gap_ns)
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_its_key() {
        for (text, told) in [
            ("", "missing field `device`"),
            ("device = []", "1 to 32 devices"),
            ("[device]\nlike = \"H100\"", "write [[device]]"),
            ("[[device]]\nlike = \"H900\"", "H900"),
            ("[[device]]\nlike = \"H100\"\nmemroy = \"1GiB\"", "memroy"),
            ("[[device]]\nlike = \"H100\"\nmemory = \"1GB\"", "80GiB"),
            ("[[device]]\nlike = \"H100\"\nmemory = \"0GiB\"", "80GiB"),
            ("[[device]]\nlike = \"H100\"\nmemory = 80", "memory"),
            ("[[device]]\nlike = \"H100\"\ncount = 33", "1 to 32 devices"),
            ("[[device]]\nlike = \"H100\"\ncount = 0", "count"),
            ("slice = \"2\"\n[[device]]\nlike = \"H100\"", "2ms"),
            ("cuda = \"13\"\n[[device]]\nlike = \"H100\"", "13.0"),
            ("lacks = [\"cuNone\"]\n[[device]]\nlike = \"H100\"", "cuNone"),
            ("[[device]]\nlike = \"H100\"\ngranularity = \"64KiB\"", "only 2MiB"),
            ("[[device]]\nlike = \"H100\"\n[device.attributes]\n900 = 1", "no attribute"),
            ("nvml = \"all\"\n[[device]]\nlike = \"H100\"", "consumer"),
            ("driver = \"new\"\n[[device]]\nlike = \"H100\"", "580.65.06"),
            ("[[fault]]\ncall = \"cuInit\"\n[[device]]\nlike = \"H100\"", "neither error nor delay"),
            (
                "[[fault]]\ncall = \"cuInit\"\nlate = \"1ms\"\nnth = 1\none_in = 2\n[[device]]\nlike = \"H100\"",
                "exclude",
            ),
            ("[[fault]]\ncall = \"cuInit\"\nlost = 1\n[[device]]\nlike = \"H100\"", "has 1 devices"),
            (
                "[[fault]]\ncall = \"cuInit\"\nerror = \"BAD\"\n[[device]]\nlike = \"H100\"",
                "none of its errors",
            ),
            ("[[fault]]\ncall = \"cuInt\"\nlost = 0\n[[device]]\nlike = \"H100\"", "no such function"),
            ("[[fault]]\ncall = \"open\"\nlost = 0\n[[device]]\nlike = \"H100\"", "no such function"),
            ("[[fault]]\ncall = \"cuInit\"\nnth = 0\n[[device]]\nlike = \"H100\"", "nth"),
            ("[[device]]\nlike = \"T4\"\nmig = [\"1g.10gb\"]", "cannot be split"),
            ("[[device]]\nlike = \"H100\"\nmig = [\"3g.10gb\"]", "no instance of"),
            ("[[device]]\nlike = \"H100\"\nmig = [\"4g.40gb\", \"4g.40gb\"]", "has no room"),
            ("[[device]\nlike = \"H100\"", "line 1"),
        ] {
            let error = machine_of(text).expect_err(text);
            assert!(error.contains(told), "{text:?}: {error}");
        }
        for key in ["argument", "stamps"] {
            for (value, told) in
                [("-1", "0 to 63"), ("64", "0 to 63"), ("\"1\"", "string"), ("1.5", "floating")]
            {
                let text = format!(
                    "[[device]]\nlike = \"H100\"\n[[kernel]]\npattern = \"*\"\nduration = \"1ns\"\n{key} = {value}"
                );
                let error = machine_of(&text).expect_err(&text);
                let named = error.contains(told) && error.contains("line 6") && error.contains(key);
                assert!(named, "{text:?}: {error}");
            }
        }
        for (key, value, told) in [
            ("launch", "\"-1us\"", "such as 2ms"),
            ("record", "\"1.1s\"", "at most 1s"),
            ("query", "\"fast\"", "such as 2ms"),
            ("dispatch", "3", "integer"),
            ("gap", "\"0.5ns\"", "such as 2ms"),
            ("events", "\"1us\"", "unknown field"),
        ] {
            let text = format!("[[device]]\nlike = \"H100\"\n[latency]\n{key} = {value}");
            let error = machine_of(&text).expect_err(&text);
            let named = error.contains(told) && error.contains("line 4") && error.contains(key);
            assert!(named, "{text:?}: {error}");
        }
        let error = machine_of("# a comment\n[[device]]\nlike = \"H900\"").expect_err("no such device");
        assert!(error.contains("line 3"), "{error}");
    }
}
