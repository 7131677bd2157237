//! NVML's structures and numbers, as nvml.h of CUDA 13.5 declares them (the PyPI package nvidia-nvml-dev).

use core::ffi::{c_char, c_void};

use crate::abi::{Error, Out};

/// `NVML_STRUCT_VERSION`: the size of a structure and its version in the top byte.
pub const fn struct_version<T>(version: u32) -> u32 {
    size_of::<T>() as u32 | version << 24
}

/// Refuses a structure whose version is not `expected`.
pub fn expect_version(given: u32, expected: u32) -> Result<(), Error> {
    if given == expected { Ok(()) } else { Err(Error::ArgumentVersionMismatch) }
}

/// `NVML_VALUE_NOT_AVAILABLE` for instance identifiers: the device is not split.
pub const NO_INSTANCE: u32 = u32::MAX;

/// Declares a C structure and holds its size against the header's.
macro_rules! structure {
    ($($(#[$doc:meta])* $name:ident: $size:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })+) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }
        const _: () = assert!(size_of::<$name>() == $size);
    )+};
}

structure! {
    /// The head of `nvmlPciInfo_t` that all its versions share.
    PciInfoV1: 32 {
        bus_id_legacy: [c_char; 16],
        domain: u32,
        bus: u32,
        device: u32,
        pci_device_id: u32,
    }
    /// The same as of `nvmlDeviceGetPciInfo_v2`; what the old structure reserved behind it is left alone.
    PciInfoV2: 36 {
        head: PciInfoV1,
        pci_subsystem_id: u32,
    }
    /// `nvmlPciInfo_t`.
    PciInfo: 68 {
        head: PciInfoV2,
        bus_id: [c_char; 32],
    }
    /// `nvmlPciInfoExt_v1_t`.
    PciInfoExt: 64 {
        version: u32,
        domain: u32,
        bus: u32,
        device: u32,
        pci_device_id: u32,
        pci_subsystem_id: u32,
        base_class: u32,
        sub_class: u32,
        bus_id: [c_char; 32],
    }
    /// `nvmlMemory_t`; bytes.
    Memory: 24 {
        total: u64,
        free: u64,
        used: u64,
    }
    /// `nvmlMemory_v2_t`; bytes.
    MemoryV2: 40 {
        version: u32,
        total: u64,
        reserved: u64,
        free: u64,
        used: u64,
    }
    /// `nvmlBAR1Memory_t`; bytes.
    Bar1Memory: 24 {
        total: u64,
        free: u64,
        used: u64,
    }
    /// `nvmlUtilization_t`; percent.
    Utilization: 8 {
        gpu: u32,
        memory: u32,
    }
    /// `nvmlProcessInfo_v1_t`.
    ProcessInfoV1: 16 {
        pid: u32,
        used_gpu_memory: u64,
    }
    /// `nvmlProcessInfo_v2_t` and `nvmlProcessInfo_t`, which is the third version.
    ProcessInfo: 24 {
        pid: u32,
        used_gpu_memory: u64,
        gpu_instance_id: u32,
        compute_instance_id: u32,
    }
    /// `nvmlProcessDetail_v1_t`.
    ProcessDetail: 32 {
        pid: u32,
        used_gpu_memory: u64,
        gpu_instance_id: u32,
        compute_instance_id: u32,
        protected_memory: u64,
    }
    /// `nvmlProcessDetailList_v1_t`.
    ProcessDetailList: 24 {
        version: u32,
        mode: u32,
        count: u32,
        processes: Out<ProcessDetail>,
    }
    /// `nvmlSample_t`; the value is a union, and little-endian.
    Sample: 16 {
        time_stamp: u64,
        value: u64,
    }
    /// `nvmlAccountingStats_t`; percent, bytes, milliseconds, and microseconds since 1970.
    AccountingStats: 56 {
        gpu_utilization: u32,
        memory_utilization: u32,
        max_memory_usage: u64,
        time: u64,
        start_time: u64,
        is_running: u32,
        reserved: [u32; 5],
    }
    /// `nvmlProcessUtilizationSample_t`; microseconds since 1970 and percent.
    ProcessUtilizationSample: 32 {
        pid: u32,
        time_stamp: u64,
        sm_util: u32,
        mem_util: u32,
        enc_util: u32,
        dec_util: u32,
    }
    /// `nvmlProcessUtilizationInfo_v1_t`; likewise.
    ProcessUtilizationInfo: 40 {
        time_stamp: u64,
        pid: u32,
        sm_util: u32,
        mem_util: u32,
        enc_util: u32,
        dec_util: u32,
        jpg_util: u32,
        ofa_util: u32,
    }
    /// `nvmlProcessesUtilizationInfo_v1_t`.
    ProcessesUtilizationInfo: 24 {
        version: u32,
        process_samples_count: u32,
        last_seen_time_stamp: u64,
        proc_util_array: Out<ProcessUtilizationInfo>,
    }
    /// `nvmlFieldValue_t`.
    FieldValue: 40 {
        field_id: u32,
        scope_id: u32,
        /// Microseconds since 1970.
        timestamp: i64,
        latency_usec: i64,
        value_type: u32,
        nvml_return: u32,
        /// `nvmlValue_t`, a union: little-endian, so a narrower number reads right as well.
        value: u64,
    }
    /// `nvmlGpuFabricInfo_t`.
    GpuFabricInfo: 28 {
        cluster_uuid: [u8; 16],
        status: u32,
        clique_id: u32,
        state: u8,
    }
    /// `nvmlGpuFabricInfo_v2_t`.
    GpuFabricInfoV2: 36 {
        version: u32,
        cluster_uuid: [u8; 16],
        status: u32,
        clique_id: u32,
        state: u8,
        health_mask: u32,
    }
    /// `nvmlGpuFabricInfo_v3_t`.
    GpuFabricInfoV3: 40 {
        v2: GpuFabricInfoV2,
        health_summary: u8,
    }
    /// `nvmlEventData_t`.
    EventData: 32 {
        device: *mut c_void,
        event_type: u64,
        event_data: u64,
        gpu_instance_id: u32,
        compute_instance_id: u32,
    }
    /// `nvmlSetMemoryLimits_v1_t`; bytes, and the full path of a cgroup.
    SetLimits: 24 {
        name_space: *const c_char,
        soft: u64,
        hard: u64,
    }
    /// `nvmlGetMemoryLimits_v1_t`; the same.
    GetLimits: 32 {
        name_space: *const c_char,
        soft: u64,
        hard: u64,
        used: u64,
    }
    /// `nvmlTemperature_v1_t`; degrees Celsius.
    Temperature: 12 {
        version: u32,
        sensor_type: u32,
        temperature: i32,
    }
    /// `nvmlDeviceAttributes_t`.
    DeviceAttributes: 40 {
        multiprocessor_count: u32,
        shared_copy_engine_count: u32,
        shared_decoder_count: u32,
        shared_encoder_count: u32,
        shared_jpeg_count: u32,
        shared_ofa_count: u32,
        gpu_instance_slice_count: u32,
        compute_instance_slice_count: u32,
        memory_size_mb: u64,
    }
}
