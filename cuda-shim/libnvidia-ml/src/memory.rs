//! Device memory, in bytes: what CUDA counts, so that both libraries tell one story.

use crate::abi::Out;
use crate::export::nvml;
use crate::library::{Device, Handle};
use crate::types::{Bar1Memory, Memory, MemoryV2, expect_version, struct_version};

/// The window through which the host reaches the device.
const BAR1_BYTES: u64 = 128 << 30;
/// What the driver itself maps there.
const BAR1_USED: u64 = 16 << 20;

/// Total and free bytes, what the dead still held given back first.
fn bytes(device: &Device) -> (u64, u64) {
    device.state.reap();
    // Of a split device its instances have the memory.
    let parts: u64 = device
        .instances()
        .map(|index| device.state.machine().devices[index].total_bytes - device.state.free_bytes(index))
        .sum();
    (device.spec.total_bytes, device.state.free_bytes(device.index) - parts)
}

nvml! {
    /// Total, free and used bytes.
    fn nvmlDeviceGetMemoryInfo(device: Handle, memory: Out<Memory>) {
        let (total, free) = bytes(&device.any()?);
        memory.put(Memory { total, free, used: total - free })
    }

    /// The same, what the driver keeps for itself apart: here nothing.
    fn nvmlDeviceGetMemoryInfo_v2(device: Handle, memory: Out<MemoryV2>) {
        let device = device.any()?;
        let version = memory.get()?.version;
        expect_version(version, struct_version::<MemoryV2>(2))?;
        let (total, free) = bytes(&device);
        memory.put(MemoryV2 { version, total, reserved: 0, free, used: total - free })
    }

    /// The window of the PCI bus onto device memory; no program maps any of it.
    fn nvmlDeviceGetBAR1MemoryInfo(device: Handle, memory: Out<Bar1Memory>) {
        device.any()?;
        memory.put(Bar1Memory { total: BAR1_BYTES, free: BAR1_BYTES - BAR1_USED, used: BAR1_USED })
    }

    /// Width of the memory bus in bits.
    fn nvmlDeviceGetMemoryBusWidth(device: Handle, bits: Out<u32>) {
        bits.put(device.device()?.spec.memory_bus_bits)
    }
}
