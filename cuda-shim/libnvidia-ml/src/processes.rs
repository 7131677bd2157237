//! The processes at a device and the memory that they take, in each of NVML's layouts.

use crate::abi::{Answer, Error, Out, put_list};
use crate::export::nvml;
use crate::library::{Device, Handle};
use crate::pids::Naming;
use crate::types::{
    NO_INSTANCE, ProcessDetail, ProcessDetailList, ProcessInfo, ProcessInfoV1, expect_version, struct_version,
};

/// A process at a device.
pub struct Listed {
    pub pid: u32,
    pub bytes: u64,
    /// The GPU instance and the compute instance that it works on.
    pub instance: [u32; 2],
}

/// Every live process with a context on the device or on one of its instances, as far as the driver tells the caller.
pub fn running(device: &Device) -> Vec<Listed> {
    device.state.spend_on(
        device.index,
        || found(device),
        |latency, listed| latency.processes_ns + listed.len() as u64 * latency.each_process_ns,
    )
}

fn found(device: &Device) -> Vec<Listed> {
    let naming = Naming::of(device.state);
    let mut listed = Vec::new();
    for place in [device.index].into_iter().chain(device.instances()) {
        let part = device.state.machine().devices[place].part;
        let instance = part.map_or([NO_INSTANCE; 2], |part| [part.instance, 0]);
        for process in device.state.truth_of(place).processes {
            if process.alive
                && process.physical_bytes > 0
                && let Some(pid) = naming.listed((process.pid, process.namespace))
            {
                let spec = &device.state.machine().devices[place];
                let told = spec.listed(process.physical_bytes, process.context_bytes);
                let bytes = if naming.tells_memory() { told } else { 0 };
                listed.push(Listed { pid, bytes, instance });
            }
        }
    }
    listed
}

/// The list by records that are made of what is listed.
fn list<T: Copy>(device: Handle, count: Out<u32>, infos: Out<T>, record: impl Fn(Listed) -> T) -> Answer {
    let found: Vec<_> = running(&device.any()?).into_iter().map(record).collect();
    put_list(count, infos, &found)
}

fn compute(device: Handle, count: Out<u32>, infos: Out<ProcessInfo>) -> Answer {
    list(device, count, infos, |Listed { pid, bytes, instance: [gpu_instance_id, compute_instance_id] }| {
        ProcessInfo { pid, used_gpu_memory: bytes, gpu_instance_id, compute_instance_id }
    })
}

fn compute_v1(device: Handle, count: Out<u32>, infos: Out<ProcessInfoV1>) -> Answer {
    list(device, count, infos, |Listed { pid, bytes, .. }| ProcessInfoV1 { pid, used_gpu_memory: bytes })
}

/// Neither graphics nor MPS is simulated.
pub fn none(device: Handle, count: Out<u32>) -> Answer {
    device.any()?;
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

    /// The list of one kind, with protected memory: none is.
    fn nvmlDeviceGetRunningProcessDetailList(device: Handle, list: Out<ProcessDetailList>) {
        let found = running(&device.any()?);
        let mut head = list.get()?;
        expect_version(head.version, struct_version::<ProcessDetailList>(1))?;
        // 0 is compute, 1 graphics, 2 MPS.
        let found = match head.mode {
            0 => found,
            1 | 2 => Vec::new(),
            _ => return Err(Error::InvalidArgument),
        };
        let room = head.count as usize;
        head.count = found.len() as u32;
        list.put(head)?;
        if room < found.len() {
            return Err(Error::InsufficientSize);
        }
        found.into_iter().enumerate().try_for_each(|(at, Listed { pid, bytes, instance })| {
            let [gpu_instance_id, compute_instance_id] = instance;
            head.processes.put_at(at, ProcessDetail {
                pid,
                used_gpu_memory: bytes,
                gpu_instance_id,
                compute_instance_id,
                protected_memory: 0,
            })
        })
    }
}
