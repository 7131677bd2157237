//! How the driver starts in a process: the machine, and which of its devices the process sees.

use cuda_shim_device::{DeviceSpec, Machine, State, open_from_env, tell};

use crate::model::objects::graph_memory::Usage;
use crate::model::objects::handle::Handle;
use crate::model::objects::heap::Heap;
use crate::model::objects::space::Space;
use crate::model::objects::stamps::Stamps;
use crate::model::operations::{faults, private_tables};
use crate::model::world::{Device, Driver};
use crate::tools::bytes;
use crate::tools::status::{NO_DEVICE, NOT_INITIALIZED, OUT_OF_MEMORY, Outcome};

/// Addresses for each device, and for reservations on all of them together: the first of these that the process has. Under
/// valgrind it has 32 GiB in one piece.
const ADDRESSES: [(u64, u64); 3] = [(1 << 40, 8 << 40), (8 << 30, 4 << 30), (1 << 30, 1 << 30)];

/// The CUDA version of the driver; a driver without a machine calls itself as new as the default one.
pub fn machine_version() -> i32 {
    open_from_env().map_or(Machine::new(Vec::new()).cuda_version, |state| state.machine().cuda_version)
}

/// Finds the machine and publishes the driver.
pub fn start() -> Outcome {
    let state = open_from_env().map_err(|error| {
        tell(format_args!("simulated libcuda: {error}"));
        NO_DEVICE
    })?;
    faults::arm(state);
    faults::met("cuInit", || {
        state.spend_at_start(|startup| startup.init_ns);
        publish(state)
    })
}

fn publish(state: &'static State) -> Outcome {
    let visible = match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(list) => visible_devices(state.machine(), &list),
        Err(_) => (0..state.machine().whole()).collect(),
    };
    let visible = usable(state.machine(), visible);
    if visible.is_empty() {
        return Err(NO_DEVICE);
    }
    let count = visible.len() as u64;
    let reserve =
        |(reach, reservable)| Some((bytes::reserve_arena(count * reach + reservable)?, reach, reservable));
    let (arena, reach, reservable) = ADDRESSES.into_iter().find_map(reserve).ok_or(OUT_OF_MEMORY)?;
    let bases = (arena..).step_by(reach as usize);
    let devices: Outcome<_> =
        visible.into_iter().zip(bases).map(|(index, base)| open_device(state, index, base, reach)).collect();
    Driver::publish(state, devices?, Space::new(arena + count * reach, reservable));
    private_tables::connect(machine_version);
    Ok(())
}

fn open_device(state: &'static State, index: usize, base: u64, reach: u64) -> Outcome<Device> {
    let spec = state.machine().devices.get(index).ok_or(NOT_INITIALIZED)?.clone();
    let lanes = vec![0; connections(&spec)];
    Ok(Device {
        index,
        spec,
        heap: Heap::new(base, reach, index),
        seat: None,
        primary: Handle::NULL,
        retained: 0,
        primary_flags: 0,
        default_pool: Handle::NULL,
        current_pool: Handle::NULL,
        graph_memory: Usage::default(),
        queue: Vec::new(),
        launches: 0,
        lanes,
        streams_made: 0,
        stamps: Stamps::default(),
    })
}

/// Queues between this process and a device, as the device or the environment says; 0 where each stream has its own.
fn connections(spec: &DeviceSpec) -> usize {
    let usual = spec.latency.map_or(0, |latency| latency.connections);
    if usual == 0 {
        return 0;
    }
    let wanted = std::env::var("CUDA_DEVICE_MAX_CONNECTIONS").ok().and_then(|text| text.parse::<u64>().ok());
    wanted.map_or(usual, |wanted| wanted.clamp(1, 32)) as usize
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
