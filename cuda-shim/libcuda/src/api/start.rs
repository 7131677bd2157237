//! How a process gets in: `cuInit`, versions, which devices are visible, where the functions are, what
//! errors mean.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::sync::Mutex;

use cuda_shim_device::{Machine, State, open_from_env};
use cuda_shim_symbols::Found;

use crate::bytes;
use crate::context;
use crate::dark;
use crate::faults;
use crate::ffi::{In, Out, Outcome, Text, export};
use crate::graph::memory::Usage;
use crate::heap::{Heap, REACH};
use crate::memory::space::Space;
use crate::module;
use crate::stamps::Stamps;
use crate::status::{INVALID_VALUE, NO_DEVICE, NOT_FOUND, NOT_INITIALIZED, OUT_OF_MEMORY, describe};
use crate::symbols::get_proc_address;
use crate::table::Handle;
use crate::world::{Device, Driver, driver, world};

/// Addresses for reservations, on all devices together.
const RESERVABLE: u64 = 8 << 40;

export! {
    early fn cuInit(flags: u32) {
        static STARTING: Mutex<()> = Mutex::new(());
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        if !Driver::was_published() {
            let _guard = STARTING.lock();
            if !Driver::was_published() {
                start()?;
            }
        }
        let driver = driver()?;
        driver.state.reap_sometimes();
        Ok(())
    }

    early fn cuDriverGetVersion(version: Out<i32>) {
        version.required()?;
        version.put(machine_version())
    }

    early fn cuGetErrorName(code: i32, text: Out<*const c_char>) {
        error_text(code, text, |(name, _)| name)
    }

    early fn cuGetErrorString(code: i32, text: Out<*const c_char>) {
        error_text(code, text, |(_, text)| text)
    }

    early fn cuGetProcAddress(symbol: Text, function: Out<*const c_void>, version: i32, flags: u64) {
        match get_proc_address(symbol.get()?, version, flags) {
            Found::Export(address) => function.put(address),
            Found::InvalidFlags => Err(INVALID_VALUE),
            Found::NotFound | Found::VersionNotSufficient => Err(NOT_FOUND),
        }
    }

    early fn cuGetProcAddress_v2(
        symbol: Text, function: Out<*const c_void>, version: i32, flags: u64, status: Out<u32>,
    ) {
        let (address, found) = match get_proc_address(symbol.get()?, version, flags) {
            Found::Export(address) => (address, 0),
            Found::NotFound => (std::ptr::null(), 1),
            Found::VersionNotSufficient => (std::ptr::null(), 2),
            Found::InvalidFlags => return Err(INVALID_VALUE),
        };
        status.put_if(found);
        function.put(address)
    }

    early fn cuGetExportTable(table: Out<*const c_void>, id: In<[u8; 16]>) {
        table.required()?;
        table.put(dark::export_table(&id.get()?).ok_or(INVALID_VALUE)?)
    }
}

fn error_text(
    code: i32,
    text: Out<*const c_char>,
    pick: impl Fn((&'static std::ffi::CStr, &'static std::ffi::CStr)) -> &'static std::ffi::CStr,
) -> Outcome {
    match describe(code) {
        Some(known) => text.put(pick(known).as_ptr()),
        None => {
            text.put_if(std::ptr::null());
            Err(INVALID_VALUE)
        }
    }
}

/// The CUDA version of the driver; a driver without a machine calls itself as new as the default one.
fn machine_version() -> i32 {
    open_from_env().map_or(Machine::new(Vec::new()).cuda_version, |state| state.machine().cuda_version)
}

fn start() -> Outcome {
    let state = open_from_env().map_err(|error| {
        eprintln!("simulated libcuda: {error}");
        NO_DEVICE
    })?;
    faults::arm(state);
    faults::meet("cuInit")?;
    let visible = match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(list) => visible_devices(state.machine(), &list),
        Err(_) => (0..state.machine().whole()).collect(),
    };
    let visible = usable(state.machine(), visible);
    if visible.is_empty() {
        return Err(NO_DEVICE);
    }
    let heaps = visible.len() as u64 * REACH;
    let arena = bytes::reserve_arena(heaps + RESERVABLE).ok_or(OUT_OF_MEMORY)?;
    let bases = (arena..).step_by(REACH as usize);
    let devices: Outcome<_> =
        visible.into_iter().zip(bases).map(|(index, base)| open_device(state, index, base)).collect();
    Driver::publish(state, devices?, Space::new(arena + heaps, RESERVABLE));
    let _ = dark::DRIVER.set(dark::Driver {
        primary_context: context::primary_handle,
        current_context: || std::ptr::without_provenance_mut(crate::thread::current().raw() as usize),
        is_context: |handle| {
            world().is_ok_and(|world| world.contexts.get(Handle::of(handle.addr() as u64)).is_ok())
        },
        load_module: module::load_for_runtime,
        version: || machine_version() as u32,
        identities: || {
            let Ok(world) = world() else { return Vec::new() };
            let identity = |device: &Device| dark::Identity {
                uuid: device.spec.uuid,
                pci: [device.spec.pci_domain, device.spec.pci_bus, device.spec.pci_device]
                    .map(|id| id as i32),
            };
            world.devices.iter().map(identity).collect()
        },
    });
    Ok(())
}

fn open_device(state: &'static State, index: usize, base: u64) -> Outcome<Device> {
    let spec = state.machine().devices.get(index).ok_or(NOT_INITIALIZED)?.clone();
    Ok(Device {
        index,
        spec,
        heap: Heap::new(base, index),
        seat: None,
        primary: Handle::NULL,
        retained: 0,
        primary_flags: 0,
        default_pool: Handle::NULL,
        current_pool: Handle::NULL,
        graph_memory: Usage::default(),
        queue: Vec::new(),
        launches: 0,
        stamps: Stamps::default(),
    })
}

/// The devices that `CUDA_VISIBLE_DEVICES` names, by index, by a prefix of their UUID, or an instance by the UUID of its
/// device and its numbers there (`MIG-GPU-.../1/0`). As with the real driver, the first entry that names none ends the
/// list, and naming one twice leaves none.
fn visible_devices(machine: &Machine, list: &str) -> Vec<usize> {
    let mut visible = Vec::new();
    for entry in list.split(',') {
        let entry = entry.trim();
        let found = match entry.parse() {
            Ok(index) => Some(index).filter(|index| *index < machine.whole()),
            Err(_) if entry.len() > 4 => {
                let mut named = (0..machine.devices.len()).filter(|index| is_named(machine, *index, entry));
                named.next().filter(|_| named.next().is_none())
            }
            Err(_) => None,
        };
        let Some(index) = found else { break };
        if visible.contains(&index) {
            return Vec::new();
        }
        visible.push(index);
    }
    visible
}

/// Whether this text names a device, without regard to case.
fn is_named(machine: &Machine, index: usize, text: &str) -> bool {
    let spec = &machine.devices[index];
    let text = text.to_ascii_lowercase();
    let by_numbers = spec.part.map(|part| {
        format!("MIG-{}/{}/0", machine.devices[part.of].uuid_string(), part.instance).to_ascii_lowercase()
    });
    spec.uuid_string().to_ascii_lowercase().starts_with(&text) || by_numbers == Some(text)
}

/// What a process can use of what it sees. Of split devices it can use their instances, of these the first one alone, and
/// beside one no whole device.
fn usable(machine: &Machine, visible: Vec<usize>) -> Vec<usize> {
    let instance = visible.iter().find_map(|index| match machine.devices[*index].part {
        Some(_) => Some(*index),
        None => machine.instances(*index).next(),
    });
    instance.map_or(visible, |instance| vec![instance])
}
