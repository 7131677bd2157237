//! The state file of a simulated machine: creating it, opening it, and this process's slot in it.
//!
//! # Safety
//! The mapping is made here and handed out as `&'static Layout`, whose every cell is an atomic word: any
//! bit pattern is valid and any other writer is sound. It is never unmapped.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::cgroup::Chain;
use crate::latency::{Delays, Jitter, Latency, Startup};
use crate::layout::{self, Header, LENGTH, Layout, MAGIC, SLOTS, Slot, slot_state};
use crate::liveness::{self, Life};
use crate::machine::{EXPORTS, Fault, KernelRule, MAX_DEVICES, MAX_FAULTS, MAX_RULES, Machine};
use crate::spec::{DeviceSpec, Part};

/// The environment variable that names the state file of the simulated machine.
pub const STATE_ENV: &str = "CUDA_SIM_STATE";

/// Why there is no simulated machine.
#[derive(Debug)]
pub enum OpenError {
    /// `CUDA_SIM_STATE` is not set.
    NotSimulated,
    /// The file cannot be opened, mapped or locked.
    Io(PathBuf, io::Error),
    /// The file is no finished state file of this version.
    Foreign(PathBuf),
    /// All process slots are taken.
    Full(PathBuf),
}

impl fmt::Display for OpenError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NotSimulated => {
                write!(out, "{} is not set: start the command with `cuda-sim run`", STATE_ENV)
            }
            OpenError::Io(path, error) => {
                write!(out, "state of the simulated GPU {}: {error}", path.display())
            }
            OpenError::Foreign(path) => {
                write!(out, "{} is no state of a simulated GPU of this version", path.display())
            }
            OpenError::Full(path) => {
                write!(
                    out,
                    "state of the simulated GPU {}: all {SLOTS} process slots are taken",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// A simulated machine, opened by this process. Lives until the process ends.
pub struct State {
    layout: &'static Layout,
    machine: Machine,
    /// Whether calls take time on a device.
    takes_time: bool,
    cgroups: Chain,
    slot: usize,
    probe: File,
    _life: Life,
    /// One word that the kernel wipes in a forked child.
    family: &'static AtomicBool,
}

impl State {
    /// Creates the state file of `machine` at `path`; replaces nothing.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub fn create(path: &Path, machine: &Machine) -> io::Result<()> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        // Containers run under other users; the file is as open as a device node.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        file.set_len(LENGTH as u64)?;
        let layout = map(&file)?;
        write_machine(&layout.header, machine);
        for (device, spec) in layout.devices.iter().zip(&machine.devices) {
            device.accounting_since.set(if spec.accounting { liveness::clock_ns() } else { 0 });
        }
        layout.header.length.set(LENGTH as u64);
        layout.header.magic.0.store(MAGIC, Release);
        Ok(())
    }

    /// Opens the state file at `path` and takes a process slot; what the dead held is not yet given back.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn enter(path: &Path) -> Result<State, OpenError> {
        let io = |error| OpenError::Io(path.into(), error);
        let (probe, layout) = open(path)?;
        let machine = read_machine(&layout.header);
        let cgroups = Chain::of_this_process(&machine);
        let (slot, life) =
            take_slot(layout, path, &probe, &cgroups).map_err(io)?.ok_or(OpenError::Full(path.into()))?;
        let takes_time = machine.devices.iter().any(|spec| spec.latency.is_some());
        let family = family_word().map_err(io)?;
        Ok(State { layout, machine, takes_time, cgroups, slot, probe, _life: life, family })
    }

    /// The machine of the state file at `path`; takes no process slot.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn machine_of(path: &Path) -> Result<Machine, OpenError> {
        Ok(read_machine(&open(path)?.1.header))
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether calls take time on any device of the machine.
    #[inline]
    pub fn takes_time(&self) -> bool {
        self.takes_time
    }

    /// The cgroups of this process.
    pub(crate) fn cgroups(&self) -> &Chain {
        &self.cgroups
    }

    /// Whether this is a forked child's inherited copy: its slot belongs to the parent.
    #[inline]
    pub fn is_forked(&self) -> bool {
        !self.family.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The process slot of this process.
    pub fn slot(&self) -> usize {
        self.slot
    }

    pub(crate) fn layout(&self) -> &'static Layout {
        self.layout
    }

    pub(crate) fn slots(&self) -> &'static [Slot] {
        let used = (self.layout.header.slots_used.get() as usize).min(SLOTS);
        &self.layout.slots[..used]
    }

    pub(crate) fn is_alive(&self, slot: usize) -> bool {
        slot == self.slot || liveness::is_alive(&self.probe, slot)
    }
}

/// A finished state file of this version.
fn open(path: &Path) -> Result<(File, &'static Layout), OpenError> {
    let io = |error| OpenError::Io(path.into(), error);
    let file = liveness::raise(liveness::open(path).map_err(io)?);
    if file.metadata().map_err(io)?.len() != LENGTH as u64 {
        return Err(OpenError::Foreign(path.into()));
    }
    let layout = map(&file).map_err(io)?;
    let header = &layout.header;
    if header.magic.0.load(Acquire) != MAGIC || header.device_count.get() as usize > MAX_DEVICES {
        return Err(OpenError::Foreign(path.into()));
    }
    Ok((file, layout))
}

fn map(file: &File) -> io::Result<&'static Layout> {
    // SAFETY: a fresh shared mapping at an address of the kernel's choice.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            LENGTH,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: LENGTH bytes are mapped, page-aligned, never unmapped; Layout is all atomics.
    Ok(unsafe { &*base.cast::<Layout>() })
}

/// A word that reads true in this process and false in every forked child.
fn family_word() -> io::Result<&'static AtomicBool> {
    // SAFETY: a fresh private anonymous mapping.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page was just mapped.
    if unsafe { libc::madvise(page, 4096, libc::MADV_WIPEONFORK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, aligned, never unmapped; zero is a valid AtomicBool.
    let word = unsafe { &*page.cast::<AtomicBool>() };
    word.store(true, Release);
    Ok(word)
}

/// Takes a slot nobody used before, else the record of an ended process. The byte lock is the arbiter.
fn take_slot(
    layout: &'static Layout,
    path: &Path,
    probe: &File,
    cgroups: &Chain,
) -> io::Result<Option<(usize, Life)>> {
    let used = layout.header.slots_used.get() as usize;
    let fresh = (used.min(SLOTS)..SLOTS).map(|index| (index, slot_state::FREE));
    let ended = (0..SLOTS).map(|index| (index, slot_state::ENDED));
    for (index, wanted) in fresh.chain(ended) {
        let slot = &layout.slots[index];
        if slot.state.get() != wanted {
            continue;
        }
        let Some(life) = Life::hold(path, index, probe)? else { continue };
        if slot.state.get() != wanted {
            continue;
        }
        if wanted == slot_state::ENDED {
            for share in &layout.shares[index] {
                share.requested_peak.set(0);
                share.physical_peak.set(0);
                share.busy_ns.set(0);
                share.kernels.set(0);
            }
        }
        slot.client.set(0);
        slot.started.set(0);
        slot.ended.set(0);
        slot.pid.set(u64::from(std::process::id()));
        let ids = cgroups.ids().chain(std::iter::repeat(0));
        slot.cgroups.iter().zip(ids).for_each(|(cgroup, id)| cgroup.set(id));
        slot.state.0.store(slot_state::LIVE, Release);
        layout.header.slots_used.0.fetch_max(index as u64 + 1, Release);
        return Ok(Some((index, life)));
    }
    Ok(None)
}

/// Inode of the PID namespace of a process in the caller's /proc.
pub fn namespace(process: &str) -> Option<u64> {
    std::fs::metadata(format!("/proc/{process}/ns/pid")).map(|namespace| namespace.ino()).ok()
}

/// The numeric fields of a device, in the order of the file.
fn spec_numbers(spec: &DeviceSpec) -> [u64; 25] {
    let part =
        spec.part.map_or([0; 3], |part| [part.of as u64 + 1, part.instance.into(), part.slices.into()]);
    [
        spec.pci_domain.into(),
        spec.pci_bus.into(),
        spec.pci_device.into(),
        spec.pci_id.into(),
        spec.total_bytes,
        spec.sm_count.into(),
        spec.cc_major.into(),
        spec.cc_minor.into(),
        spec.sm_clock_khz.into(),
        spec.memory_clock_khz.into(),
        spec.memory_bus_bits.into(),
        spec.l2_bytes.into(),
        spec.shared_per_sm.into(),
        spec.shared_per_block_optin.into(),
        spec.threads_per_sm.into(),
        spec.blocks_per_sm.into(),
        spec.power_limit_mw.into(),
        spec.context_bytes,
        spec.unlisted_bytes,
        spec.accounting.into(),
        part[0],
        part[1],
        part[2],
        spec.attributes.is_some().into(),
        spec.latency.is_some().into(),
    ]
}

fn startup_numbers(startup: &mut Startup) -> [&mut u64; 4] {
    let Startup { init_ns, nvml_init_ns, jitter: Jitter { ppm, seed } } = startup;
    [init_ns, nvml_init_ns, ppm, seed]
}

fn delay_numbers(delays: &mut Delays) -> [&mut u64; 4] {
    let Delays { one_in, least_ns, most_ns, seed } = delays;
    [one_in, least_ns, most_ns, seed]
}

fn write_numbers<const COUNT: usize>(cells: &[layout::Word; COUNT], numbers: [&mut u64; COUNT]) {
    cells.iter().zip(numbers).for_each(|(cell, number)| cell.set(*number));
}

fn read_numbers<const COUNT: usize>(cells: &[layout::Word; COUNT], numbers: [&mut u64; COUNT]) {
    cells.iter().zip(numbers).for_each(|(cell, number)| *number = cell.get());
}

fn write_machine(header: &Header, machine: &Machine) {
    header.namespace.set(namespace("self").unwrap_or(0));
    header.device_count.set(machine.devices.len().min(MAX_DEVICES) as u64);
    header.cuda_version.set(machine.cuda_version as u64);
    header.slice_ns.set(machine.slice_ns.max(1));
    header.teardown_ns.set(machine.teardown_ns);
    header.launch_queue.set(machine.launch_queue.max(1).into());
    header.rule_count.set(machine.kernels.len().min(MAX_RULES) as u64);
    header.reuses_handles.set(machine.reuses_handles.into());
    let mut startup = machine.startup;
    write_numbers(&header.startup, startup_numbers(&mut startup));
    if let Some(mut delays) = machine.delays {
        write_numbers(&header.delays, delay_numbers(&mut delays));
    }
    layout::write_text(&header.driver_version, &machine.driver_version);
    for (cells, rule) in header.rules.iter().zip(&machine.kernels) {
        layout::write_text(&cells.pattern, &rule.pattern);
        cells.duration_ns.set(rule.duration_ns);
        cells.per_block_ns.set(rule.per_block_ns);
        for (cell, parameter) in [(&cells.argument, rule.argument), (&cells.stamps, rule.stamps)] {
            cell.set(parameter.map_or(0, |number| u64::from(number) + 1));
        }
    }
    for place in machine.lacks.iter().filter(|place| **place < EXPORTS) {
        let word = &header.lacks[place / 64];
        word.set(word.get() | 1 << (place % 64));
    }
    header.fault_count.set(machine.faults.len().min(MAX_FAULTS) as u64);
    for (cells, fault) in header.faults.iter().zip(&machine.faults) {
        layout::write_text(&cells.call, &fault.call);
        cells.nth.set(fault.nth.unwrap_or(0));
        cells.error.set(fault.error as u64);
        cells.delay_ns.set(fault.delay_ns);
        cells.late_ns.set(fault.late_ns);
        cells.one_in.set(fault.one_in.unwrap_or(0));
        cells.sticky.set(fault.sticky.into());
        cells.lost.set(fault.lost.map_or(0, |device| device as u64 + 1));
        cells.kill.set(fault.kill.into());
        layout::write_text(&cells.program, fault.program.as_deref().unwrap_or_default());
    }
    for (cells, spec) in header.specs.iter().zip(&machine.devices) {
        layout::write_text(&cells.name, &spec.name);
        for (cell, half) in cells.uuid.iter().zip(spec.uuid.as_chunks::<8>().0) {
            cell.set(u64::from_le_bytes(*half));
        }
        for (cell, number) in cells.numbers.iter().zip(spec_numbers(spec)) {
            cell.set(number);
        }
        if let Some(mut latency) = spec.latency {
            write_numbers(&cells.latency, latency.numbers());
        }
        for (id, value) in spec.attributes.iter().flatten() {
            if let Some(cell) = usize::try_from(*id).ok().and_then(|id| cells.attributes.get(id)) {
                cell.set(KNOWN | u64::from(value.cast_unsigned()));
            }
        }
    }
}

/// In a word of an attribute: its value is known.
const KNOWN: u64 = 1 << 32;

fn read_attributes(cells: &[layout::Word]) -> BTreeMap<i32, i32> {
    let known = cells.iter().map(layout::Word::get).enumerate().filter(|(_, word)| word & KNOWN != 0);
    known.map(|(id, word)| (id as i32, word as u32 as i32)).collect()
}

fn read_parameter(cell: &layout::Word) -> Option<u8> {
    cell.get().checked_sub(1).and_then(|number| u8::try_from(number).ok())
}

fn read_part([of, instance, slices]: [u64; 3]) -> Option<Part> {
    let of = of.checked_sub(1)? as usize;
    Some(Part { of, instance: instance as u32, slices: slices as u32 })
}

fn read_latency(cells: &layout::SpecCells) -> Latency {
    let mut latency = Latency::default();
    read_numbers(&cells.latency, latency.numbers());
    latency
}

fn read_startup(header: &Header) -> Startup {
    let mut startup = Startup::default();
    read_numbers(&header.startup, startup_numbers(&mut startup));
    startup
}

fn read_delays(header: &Header) -> Option<Delays> {
    let mut delays = Delays { one_in: 0, least_ns: 0, most_ns: 0, seed: 0 };
    read_numbers(&header.delays, delay_numbers(&mut delays));
    Some(delays).filter(|delays| delays.one_in > 0)
}

fn read_machine(header: &Header) -> Machine {
    let devices = header.specs[..header.device_count.get() as usize]
        .iter()
        .map(|cells| {
            let mut uuid = [0; 16];
            uuid[..8].copy_from_slice(&cells.uuid[0].get().to_le_bytes());
            uuid[8..].copy_from_slice(&cells.uuid[1].get().to_le_bytes());
            let mut numbers = cells.numbers.iter().map(layout::Word::get);
            let mut next = || numbers.next().unwrap_or(0);
            DeviceSpec {
                name: layout::read_text(&cells.name),
                uuid,
                pci_domain: next() as u32,
                pci_bus: next() as u32,
                pci_device: next() as u32,
                pci_id: next() as u32,
                total_bytes: next(),
                sm_count: next() as u32,
                cc_major: next() as u32,
                cc_minor: next() as u32,
                sm_clock_khz: next() as u32,
                memory_clock_khz: next() as u32,
                memory_bus_bits: next() as u32,
                l2_bytes: next() as u32,
                shared_per_sm: next() as u32,
                shared_per_block_optin: next() as u32,
                threads_per_sm: next() as u32,
                blocks_per_sm: next() as u32,
                power_limit_mw: next() as u32,
                context_bytes: next(),
                unlisted_bytes: next(),
                accounting: next() != 0,
                part: read_part([next(), next(), next()]),
                attributes: (next() != 0).then(|| read_attributes(&cells.attributes)),
                latency: (next() != 0).then(|| read_latency(cells)),
            }
        })
        .collect();
    let rules = (header.rule_count.get() as usize).min(MAX_RULES);
    Machine {
        devices,
        cuda_version: header.cuda_version.get() as i32,
        driver_version: layout::read_text(&header.driver_version),
        slice_ns: header.slice_ns.get().max(1),
        teardown_ns: header.teardown_ns.get(),
        launch_queue: header.launch_queue.get() as u32,
        kernels: header.rules[..rules]
            .iter()
            .map(|cells| KernelRule {
                pattern: layout::read_text(&cells.pattern),
                duration_ns: cells.duration_ns.get(),
                per_block_ns: cells.per_block_ns.get(),
                argument: read_parameter(&cells.argument),
                stamps: read_parameter(&cells.stamps),
            })
            .collect(),
        startup: read_startup(header),
        delays: read_delays(header),
        reuses_handles: header.reuses_handles.get() != 0,
        faults: header.faults[..(header.fault_count.get() as usize).min(MAX_FAULTS)]
            .iter()
            .map(|cells| Fault {
                call: layout::read_text(&cells.call),
                nth: Some(cells.nth.get()).filter(|nth| *nth > 0),
                error: cells.error.get() as i32,
                delay_ns: cells.delay_ns.get(),
                late_ns: cells.late_ns.get(),
                one_in: Some(cells.one_in.get()).filter(|calls| *calls > 0),
                sticky: cells.sticky.get() != 0,
                lost: cells.lost.get().checked_sub(1).map(|device| device as usize),
                kill: cells.kill.get() != 0,
                program: Some(layout::read_text(&cells.program)).filter(|name| !name.is_empty()),
            })
            .collect(),
        lacks: (0..EXPORTS).filter(|place| header.lacks[place / 64].get() >> (place % 64) & 1 != 0).collect(),
    }
}
