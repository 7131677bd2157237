//! What a device is made of, and the built-in ones. Pure data.

use std::collections::BTreeMap;

use crate::latency::Latency;

/// Longest device name in bytes, as in the driver's own 96-byte buffers.
pub const MAX_NAME: usize = 96;
/// Numbers of `CUdevice_attribute` end below this one.
pub const ATTRIBUTES: usize = 192;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The names of the built-in devices.
pub const PRESETS: [&str; 4] = ["H100", "H200", "A100", "T4"];

/// One device. Sizes in bytes, clocks in kHz.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// Marketing name, at most [`MAX_NAME`] bytes.
    pub name: String,
    /// The UUID that CUDA and NVML report, as 16 bytes.
    pub uuid: [u8; 16],
    /// PCI domain.
    pub pci_domain: u32,
    /// PCI bus.
    pub pci_bus: u32,
    /// PCI device number on the bus.
    pub pci_device: u32,
    /// PCI vendor and device id as NVML packs them (device id << 16 | vendor id).
    pub pci_id: u32,
    /// Total device memory.
    pub total_bytes: u64,
    /// Number of streaming multiprocessors.
    pub sm_count: u32,
    /// Compute capability, major.
    pub cc_major: u32,
    /// Compute capability, minor.
    pub cc_minor: u32,
    /// Peak SM clock.
    pub sm_clock_khz: u32,
    /// Peak memory clock.
    pub memory_clock_khz: u32,
    /// Width of the memory bus in bits.
    pub memory_bus_bits: u32,
    /// L2 cache.
    pub l2_bytes: u32,
    /// Shared memory of one SM.
    pub shared_per_sm: u32,
    /// Shared memory of one block after opting in.
    pub shared_per_block_optin: u32,
    /// Threads resident on one SM.
    pub threads_per_sm: u32,
    /// Blocks resident on one SM.
    pub blocks_per_sm: u32,
    /// Power limit in milliwatts.
    pub power_limit_mw: u32,
    /// Device memory that one process's context takes.
    pub context_bytes: u64,
    /// What it takes besides, and NVML counts to no process.
    pub unlisted_bytes: u64,
    /// The driver's answers by number of the attribute, as they were recorded; `None` for those of the model.
    pub attributes: Option<BTreeMap<i32, i32>>,
    /// Whether the driver keeps account of ended processes from the start.
    pub accounting: bool,
    /// What calls take that concern it, and its front end; `None` where they take nothing.
    pub latency: Option<Latency>,
    /// What it is a part of, if it is an instance of a split device (MIG).
    pub part: Option<Part>,
}

/// A compute instance, which fills its GPU instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index of the whole device.
    pub of: usize,
    /// Number of the GPU instance; that of the compute instance is 0.
    pub instance: u32,
    /// Its sevenths of the device's multiprocessors.
    pub slices: u32,
}

impl DeviceSpec {
    /// A built-in device by name ([`PRESETS`]) where nothing takes time but work; `index` makes its UUID and PCI address its
    /// own.
    pub fn preset(name: &str, index: usize) -> Option<DeviceSpec> {
        let hopper = DeviceSpec {
            name: "NVIDIA H100 80GB HBM3".into(),
            uuid: [0; 16],
            pci_domain: 0,
            pci_bus: 0,
            pci_device: 0,
            pci_id: 0x2330_10de,
            total_bytes: 80 * GIB,
            sm_count: 132,
            cc_major: 9,
            cc_minor: 0,
            sm_clock_khz: 1_980_000,
            memory_clock_khz: 2_619_000,
            memory_bus_bits: 5120,
            l2_bytes: 50 << 20,
            shared_per_sm: 233_472,
            shared_per_block_optin: 232_448,
            threads_per_sm: 2048,
            blocks_per_sm: 32,
            power_limit_mw: 700_000,
            context_bytes: 512 * MIB,
            unlisted_bytes: 0,
            attributes: None,
            accounting: false,
            latency: None,
            part: None,
        };
        let mut spec = match name {
            "H100" => hopper,
            "H200" => DeviceSpec {
                name: "NVIDIA H200".into(),
                pci_id: 0x2335_10de,
                total_bytes: 140 * GIB,
                memory_clock_khz: 3_201_000,
                memory_bus_bits: 6144,
                ..hopper
            },
            "A100" => DeviceSpec {
                name: "NVIDIA A100-SXM4-80GB".into(),
                pci_id: 0x20b2_10de,
                sm_count: 108,
                cc_major: 8,
                sm_clock_khz: 1_410_000,
                memory_clock_khz: 1_593_000,
                l2_bytes: 40 << 20,
                shared_per_sm: 167_936,
                shared_per_block_optin: 166_912,
                power_limit_mw: 400_000,
                context_bytes: 400 * MIB,
                ..hopper
            },
            "T4" => DeviceSpec {
                name: "Tesla T4".into(),
                pci_id: 0x1eb8_10de,
                total_bytes: 15 * GIB,
                sm_count: 40,
                cc_major: 7,
                cc_minor: 5,
                sm_clock_khz: 1_590_000,
                memory_clock_khz: 5_001_000,
                memory_bus_bits: 256,
                l2_bytes: 4 << 20,
                shared_per_sm: 65_536,
                shared_per_block_optin: 65_536,
                threads_per_sm: 1024,
                blocks_per_sm: 16,
                power_limit_mw: 70_000,
                context_bytes: 100 * MIB,
                ..hopper
            },
            _ => return None,
        };
        spec.place(index);
        Some(spec)
    }

    /// All that one context takes.
    pub fn context_cost(&self) -> u64 {
        self.context_bytes.saturating_add(self.unlisted_bytes)
    }

    /// What NVML counts to a process that has taken `physical` bytes, `contexts` of them for contexts.
    pub fn listed(&self, physical: u64, contexts: u64) -> u64 {
        let count = contexts.checked_div(self.context_cost()).unwrap_or(0);
        physical.saturating_sub(count.saturating_mul(self.unlisted_bytes))
    }

    /// Gives the device the UUID and the PCI address of place `index` in its machine.
    pub fn place(&mut self, index: usize) {
        // A fixed prefix marks the UUIDs as simulated; the model and the place make them distinct.
        let mut uuid = *b"\x51\x3d\xc0\xda\0\0\x40\0\x80\0\0\0\0\0\0\0";
        uuid[4..6].copy_from_slice(&((self.pci_id >> 16) as u16).to_be_bytes());
        uuid[12..16].copy_from_slice(&(index as u32).to_be_bytes());
        self.uuid = uuid;
        self.pci_bus = 0x10 + index as u32;
    }

    /// The UUID as tools print it: `GPU-`, or `MIG-` for an instance, and 32 hexadecimal digits in five groups.
    pub fn uuid_string(&self) -> String {
        let hex: String = self.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let kind = if self.part.is_some() { "MIG" } else { "GPU" };
        format!("{kind}-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// The PCI address as CUDA prints it, e.g. `0000:10:00.0`.
    pub fn pci_bus_id(&self) -> String {
        format!("{:04X}:{:02X}:{:02X}.0", self.pci_domain, self.pci_bus, self.pci_device)
    }
}
