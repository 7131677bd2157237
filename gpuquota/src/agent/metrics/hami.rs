//! HAMi's metrics, by the names and labels of its monitor and scheduler that dashboards and HAMi-WebUI query. Their ratios
//! are percentages, as HAMi's are.

use super::family::{Family, Of, Scheme, Value, gauge};
use crate::agent::snapshot::Container;
use crate::regions::Device;
use prometheus_client::metrics::MetricType;

const fn new(name: &'static str, help: &'static str, of: Of) -> Family {
    Family { scheme: Scheme::Hami, ..gauge(name, "", help, of) }
}

const fn old(name: &'static str, help: &'static str, of: Of) -> Family {
    Family { scheme: Scheme::HamiOld, ..new(name, help, of) }
}

const fn if_card(family: Family) -> Family {
    Family { absent: "the card does not tell", ..family }
}

const LIMIT: Of = Of::Device(|_, device| device.memory_limit.map(Value::from));
const USED: Of = Of::Device(|_, device| Some(device.used.into()));
const UTILIZATION: Of = Of::Device(|container, device| {
    container.utilization.get(&device.index).map(|ratio| (ratio * 100.0).into())
});
const CARD_USED: Of = Of::Node(|device| device.of_card(|card| card.memory_used_bytes).map(Value::from));
const CARD_UTILIZATION: Of =
    Of::Node(|device| device.of_card(|card| card.utilization_ratio).map(|ratio| (ratio * 100.0).into()));
const CARD_MEMORY: Of = Of::Node(|device| device.of_card(|card| card.memory_total_bytes).map(Value::from));
const ALLOCATED: Of = Of::Node(|device| Some(device.memory_allocated.into()));
const CORES: Of = Of::Node(|device| Some(device.cores_allocated.into()));
const CORE_LIMIT: Of = Of::Node(|_| Some(100.into()));
const SHARED: Of = Of::Node(|device| Some(device.containers.into()));
const ALLOCATED_RATIO: Of = Of::Node(|device| {
    let total = device.of_card(|card| card.memory_total_bytes).filter(|total| *total != 0)?;
    Some((device.memory_allocated as f64 / total as f64).into())
});

/// The bytes of the kinds that HAMi tells as one.
fn bytes_of(container: &Container, device: &Device, kinds: &[&str]) -> Option<Value> {
    let held = container.region.kinds(device.index);
    let bytes = held.named().filter(|(kind, _)| kinds.contains(kind)).map(|(_, bytes)| bytes);
    Some(bytes.fold(0, u64::saturating_add).into())
}

#[rustfmt::skip]
pub const FAMILIES: [Family; 18] = [
    Family {
        kind: MetricType::Info,
        ..new("hami_build", "The agent's version, under HAMi's name.", Of::Agent(&["version"], |_| {
            vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.into())]
        }))
    },
    if_card(new("hami_host_gpu_memory_used_bytes", "Memory of the device that is in use.", CARD_USED)),
    if_card(new("hami_host_gpu_utilization_ratio", "Utilization of the device in percent.", CARD_UTILIZATION)),
    if_card(new("hami_host_gpu_memory_controller_utilization_ratio", "Utilization of the device's memory controller in percent.",
        Of::Node(|device| device.of_card(|card| card.memory_utilization_ratio).map(|ratio| (ratio * 100.0).into())))),
    new("hami_vgpu_memory_used_bytes", "Device memory that the container holds.", USED),
    Family { absent: "no limit holds", ..new("hami_vgpu_memory_limit_bytes", "Device memory that the container may hold.", LIMIT) },
    new("hami_container_device_memory_bytes", "Device memory that the container holds.", USED),
    new("hami_vgpu_memory_context_bytes", "Device memory that contexts take.",
        Of::Device(|container, device| bytes_of(container, device, &["contexts"]))),
    new("hami_vgpu_memory_module_bytes", "Device memory that code takes.",
        Of::Device(|container, device| bytes_of(container, device, &["code"]))),
    new("hami_vgpu_memory_buffer_bytes", "Device memory of allocations, pools and graphs.",
        Of::Device(|container, device| bytes_of(container, device, &["allocations", "pools", "graphs"]))),
    Family { absent: "nothing measures it",
        ..new("hami_container_device_utilization_ratio", "Part of the time in which the container used the device, in percent.", UTILIZATION) },
    if_card(new("hami_gpu_memory_limit_bytes", "Memory of the device.", CARD_MEMORY)),
    new("hami_gpu_core_limit_ratio", "What all containers may use of the device together, in percent.", CORE_LIMIT),
    new("hami_gpu_memory_allocated_bytes", "The sum of the limits of the containers that use the device.", ALLOCATED),
    new("hami_gpu_core_allocated_ratio", "The sum of the shares of the containers that use the device, in percent.", CORES),
    new("hami_gpu_shared_count", "Containers that use the device.", SHARED),
    if_card(new("hami_node_gpu_memory_allocated_ratio", "What of the device's memory the limits of its containers come to.", ALLOCATED_RATIO)),
    Family { absent: "no limit holds",
        ..new("hami_vgpu_memory_allocated_bytes", "Device memory that the container may hold.", LIMIT) },
];

#[rustfmt::skip]
pub const OLD_FAMILIES: [Family; 12] = [
    if_card(old("HostGPUMemoryUsage", "Memory of the device that is in use.", CARD_USED)),
    if_card(old("HostCoreUtilization", "Utilization of the device in percent.", CARD_UTILIZATION)),
    old("vGPU_device_memory_usage_in_bytes", "Device memory that the container holds.", USED),
    Family { absent: "no limit holds", ..old("vGPU_device_memory_limit_in_bytes", "Device memory that the container may hold.", LIMIT) },
    old("Device_memory_desc_of_container", "Device memory that the container holds. HAMi's labels with numbers of bytes are left out.", USED),
    Family { absent: "nothing measures it",
        ..old("Device_utilization_desc_of_container", "Part of the time in which the container used the device, in percent.", UTILIZATION) },
    if_card(old("GPUDeviceMemoryLimit", "Memory of the device.", CARD_MEMORY)),
    old("GPUDeviceCoreLimit", "What all containers may use of the device together, in percent.", CORE_LIMIT),
    old("GPUDeviceMemoryAllocated", "The sum of the limits of the containers that use the device.", ALLOCATED),
    old("GPUDeviceCoreAllocated", "The sum of the shares of the containers that use the device, in percent.", CORES),
    old("GPUDeviceSharedNum", "Containers that use the device.", SHARED),
    if_card(old("nodeGPUMemoryPercentage", "What of the device's memory the limits of its containers come to.", ALLOCATED_RATIO)),
];
