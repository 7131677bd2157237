//! The processes at a device and the memory that they take, in each of NVML's layouts.

use crate::abi::{Answer, Out, put_list};
use crate::library::{Device, Handle};
use crate::pids::as_seen;
use crate::types::{NO_INSTANCE, ProcessInfo, ProcessInfoV1};

/// Pid and bytes of every live process with a context on the device that the caller can see.
pub fn running(device: &Device) -> Vec<(u32, u64)> {
    let mut truth = device.state.truth();
    let processes = truth.devices.swap_remove(device.index).processes;
    let holding = processes.into_iter().filter(|process| process.alive && process.physical_bytes > 0);
    as_seen(holding.map(|process| ((process.pid, process.namespace), process.physical_bytes)).collect())
}

fn compute(device: Handle, count: Out<u32>, infos: Out<ProcessInfo>) -> Answer {
    let found: Vec<_> = running(&device.device()?)
        .into_iter()
        .map(|(pid, used_gpu_memory)| ProcessInfo {
            pid,
            used_gpu_memory,
            gpu_instance_id: NO_INSTANCE,
            compute_instance_id: NO_INSTANCE,
        })
        .collect();
    put_list(count, infos, &found)
}

fn compute_v1(device: Handle, count: Out<u32>, infos: Out<ProcessInfoV1>) -> Answer {
    let found: Vec<_> = running(&device.device()?)
        .into_iter()
        .map(|(pid, used_gpu_memory)| ProcessInfoV1 { pid, used_gpu_memory })
        .collect();
    put_list(count, infos, &found)
}

/// Neither graphics nor MPS is simulated.
pub fn none(device: Handle, count: Out<u32>) -> Answer {
    device.device()?;
    count.get()?;
    count.put(0)
}

nvml! {
    /// The processes with a CUDA context, by the 16-byte structure.
    fn nvmlDeviceGetComputeRunningProcesses(device: Handle, count: Out<u32>, infos: Out<ProcessInfoV1>) {
        compute_v1(device, count, infos)
    }

    /// By the 24-byte structure.
    fn nvmlDeviceGetComputeRunningProcesses_v2(device: Handle, count: Out<u32>, infos: Out<ProcessInfo>) {
        compute(device, count, infos)
    }

    /// By the same.
    fn nvmlDeviceGetComputeRunningProcesses_v3(device: Handle, count: Out<u32>, infos: Out<ProcessInfo>) {
        compute(device, count, infos)
    }

    /// None.
    fn nvmlDeviceGetGraphicsRunningProcesses(device: Handle, count: Out<u32>, _infos: Out<ProcessInfoV1>) {
        none(device, count)
    }

    /// None.
    fn nvmlDeviceGetGraphicsRunningProcesses_v2(device: Handle, count: Out<u32>, _infos: Out<ProcessInfo>) {
        none(device, count)
    }

    /// None.
    fn nvmlDeviceGetGraphicsRunningProcesses_v3(device: Handle, count: Out<u32>, _infos: Out<ProcessInfo>) {
        none(device, count)
    }

    /// None.
    fn nvmlDeviceGetMPSComputeRunningProcesses(device: Handle, count: Out<u32>, _infos: Out<ProcessInfoV1>) {
        none(device, count)
    }

    /// None.
    fn nvmlDeviceGetMPSComputeRunningProcesses_v2(device: Handle, count: Out<u32>, _infos: Out<ProcessInfo>) {
        none(device, count)
    }

    /// None.
    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(device: Handle, count: Out<u32>, _infos: Out<ProcessInfo>) {
        none(device, count)
    }
}
