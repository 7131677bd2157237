//! What NVML does not tell of devices that are no bare server's boards: `NVML_ERROR_NOT_SUPPORTED`.

use cuda_shim_device::Fault;
use serde::Deserialize;

/// `nvml` in a machine file.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Boards of workstations and games: no ECC, no MIG, no NVLink fabric.
    Consumer,
    /// A virtual GPU in its guest: neither what other guests do nor the board's state.
    Vgpu,
}

impl Profile {
    /// The calls that answer so.
    pub fn faults(self) -> impl Iterator<Item = Fault> {
        let calls: &[&str] = match self {
            Profile::Consumer => &[
                "nvmlDeviceGetEccMode",
                "nvmlDeviceGetTotalEccErrors",
                "nvmlDeviceGetMigMode",
                "nvmlDeviceGetAttributes",
                "nvmlDeviceGetGpuFabricInfo*",
            ],
            Profile::Vgpu => &[
                "nvmlDeviceGetComputeRunningProcesses",
                "nvmlDeviceGetRunningProcessDetailList",
                "nvmlDeviceGet*Utilization",
                "nvmlDeviceGetProcessesUtilizationInfo",
                "nvmlDeviceGetSamples",
                "nvmlDeviceGetAccounting*",
                "nvmlDeviceGetTemperature*",
                "nvmlDeviceGetPower*",
                "nvmlDeviceGetEnforcedPowerLimit",
                "nvmlDeviceGet*Pcie*",
                "nvmlDeviceGetMigMode",
            ],
        };
        calls.iter().map(|call| Fault {
            call: (*call).into(),
            nth: None,
            error: 3,
            delay_ns: 0,
            late_ns: 0,
            one_in: None,
            sticky: false,
            lost: None,
            kill: false,
            program: None,
        })
    }
}
