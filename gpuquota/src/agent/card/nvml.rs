//! The card's own figures, by NVML, which is loaded at run time.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, EventSet, Nvml};
use serde::Serialize;
use std::collections::BTreeMap;

/// NVIDIA's name of the library; without a version it comes with development packages alone.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Why the card holds its clocks back, as metrics call it.
const REASONS: [(ThrottleReasons, &str); 8] = [
    (ThrottleReasons::SW_POWER_CAP, "power_cap"),
    (ThrottleReasons::HW_SLOWDOWN, "hardware"),
    (ThrottleReasons::SYNC_BOOST, "sync_boost"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hardware_thermal"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power_brake"),
    (ThrottleReasons::DISPLAY_CLOCK_SETTING, "display"),
    (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, "applications"),
];

/// One process at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CardProcess {
    /// Its pid, as NVML tells it to this process.
    pub pid: u32,
    /// Memory that it has, where the driver tells.
    pub bytes: Option<u64>,
}

/// What a device says of its health. `None` where it does not say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Health {
    /// Degrees Celsius.
    pub temperature: Option<u32>,
    /// Milliwatts that it takes.
    pub power_mw: Option<u32>,
    /// Milliwatts that it may take.
    pub power_limit_mw: Option<u32>,
    /// Percent of the last moments in which it had work.
    pub busy_percent: Option<u32>,
    /// Percent of them in which memory was read or written.
    pub memory_busy_percent: Option<u32>,
    /// Errors of memory since the driver was loaded: corrected, and not.
    pub ecc_corrected: Option<u64>,
    /// The other ones.
    pub ecc_uncorrected: Option<u64>,
    /// Why its clocks are held back.
    pub throttled_by: Option<Vec<&'static str>>,
}

/// One device.
#[derive(Clone, Debug, Serialize)]
pub struct CardDevice {
    /// Its number in NVML.
    pub index: u32,
    /// Its UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Bytes of memory, and how many are in use.
    pub total: u64,
    /// The latter.
    pub used: u64,
    /// Whether it has stopped answering.
    pub is_lost: bool,
    /// The processes at it.
    pub processes: Vec<CardProcess>,
    /// How it is.
    pub health: Health,
}

/// An open NVML.
pub struct Card(Nvml);

impl Card {
    /// Loads and starts NVML. The error says why there is none.
    pub fn open() -> Result<Self, String> {
        let opened = Nvml::builder().lib_path(LIBRARY.as_ref()).init();
        opened.map(Self).map_err(|error| error.to_string())
    }

    /// The wrapped library.
    pub fn library(&self) -> &Nvml {
        &self.0
    }

    /// The driver's version.
    pub fn driver(&self) -> String {
        self.0.sys_driver_version().unwrap_or_default()
    }

    /// Every device, with all figures. One that does not answer is left out, or told as lost if `known` has it.
    pub fn devices(&self, known: &[CardDevice]) -> Vec<CardDevice> {
        let count = self.0.device_count().unwrap_or(0);
        let read =
            (0..count).map(|index| self.0.device_by_index(index).and_then(|device| read(&device, index)));
        let last = |index: usize| known.iter().find(|device| device.index as usize == index);
        read.enumerate()
            .filter_map(|(index, read)| match read {
                Ok(device) => Some(device),
                Err(NvmlError::GpuLost) => last(index).map(|last| CardDevice {
                    is_lost: true,
                    processes: Vec::new(),
                    ..last.clone()
                }),
                Err(_) => None,
            })
            .collect()
    }

    /// Listens for errors of every device that tells them. A set for each: a device that is lost does not say its name.
    pub fn errors(&self) -> Errors<'_> {
        let set = |index: u32| {
            let device = self.0.device_by_index(index).ok()?;
            let set = self.0.create_event_set().ok()?;
            Some((device.uuid().ok()?, device.register_events(EventTypes::CRITICAL_XID_ERROR, set).ok()?))
        };
        Errors((0..self.0.device_count().unwrap_or(0)).filter_map(set).collect())
    }

    /// The processes at a device now; `None` if it does not answer.
    pub fn processes(&self, index: u32) -> Option<Vec<CardProcess>> {
        self.0.device_by_index(index).and_then(|device| processes(&device)).ok()
    }
}

/// The errors that devices tell.
pub struct Errors<'c>(Vec<(String, EventSet<'c>)>);

impl Errors<'_> {
    /// Whether no device tells any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that have come, waited for a moment: UUID and NVIDIA's number.
    pub fn next(&self) -> Vec<(String, u64)> {
        const MOMENT_MS: u32 = 100;
        let told = self.0.iter().filter_map(|(uuid, set)| match set.wait(MOMENT_MS).ok()?.event_data? {
            XidError::Value(xid) => Some((uuid.clone(), xid)),
            XidError::Unknown => Some((uuid.clone(), 0)),
        });
        told.collect()
    }
}

fn read(device: &Device<'_>, index: u32) -> Result<CardDevice, NvmlError> {
    let memory = device.memory_info()?;
    Ok(CardDevice {
        index,
        uuid: device.uuid()?,
        name: device.name()?,
        total: memory.total,
        used: memory.used,
        is_lost: false,
        processes: processes(device)?,
        health: health(device),
    })
}

fn processes(device: &Device<'_>) -> Result<Vec<CardProcess>, NvmlError> {
    // A device without graphics or MPS says that it does not know the question.
    let further = [device.running_graphics_processes(), device.mps_running_compute_processes()];
    let lists = further.into_iter().map(Result::unwrap_or_default);
    let all = std::iter::once(device.running_compute_processes()?).chain(lists).flatten();
    let mut by_pid: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for ProcessInfo { pid, used_gpu_memory, .. } in all {
        let bytes = match used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        // One that is in several lists has the same memory in each; of a split device each instance has its own.
        by_pid.entry(pid).and_modify(|known| *known = (*known).max(bytes)).or_insert(bytes);
    }
    Ok(by_pid.into_iter().map(|(pid, bytes)| CardProcess { pid, bytes }).collect())
}

fn health(device: &Device<'_>) -> Health {
    let busy = device.utilization_rates().ok();
    let errors = |kind: MemoryError| device.total_ecc_errors(kind, EccCounter::Volatile).ok();
    let throttled = device.current_throttle_reasons().ok();
    Health {
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
        power_mw: device.power_usage().ok(),
        power_limit_mw: device.enforced_power_limit().ok(),
        busy_percent: busy.as_ref().map(|busy| busy.gpu),
        memory_busy_percent: busy.as_ref().map(|busy| busy.memory),
        ecc_corrected: errors(MemoryError::Corrected),
        ecc_uncorrected: errors(MemoryError::Uncorrected),
        throttled_by: throttled.map(|reasons| {
            REASONS
                .into_iter()
                .filter(|(reason, _)| reasons.contains(*reason))
                .map(|(_, name)| name)
                .collect()
        }),
    }
}

/// The names of [`REASONS`], each of which has a series.
pub fn throttle_reasons() -> impl Iterator<Item = &'static str> {
    REASONS.into_iter().map(|(_, name)| name)
}
