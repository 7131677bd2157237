//! How devices lie to each other: side by side under one host, reaching each other's memory over PCI Express.

use crate::abi::{Error, Out};
use crate::export::nvml;
use crate::library::Handle;
use crate::types::{GpuFabricInfo, GpuFabricInfoV2, GpuFabricInfoV3, struct_version};

/// `NVML_TOPOLOGY_INTERNAL` and `NVML_TOPOLOGY_NODE`.
const SAME_BOARD: u32 = 0;
const SAME_NODE: u32 = 40;
/// `NVML_P2P_STATUS_*` and the number of `NVML_P2P_CAPS_INDEX_*`.
const P2P_OK: u32 = 0;
const P2P_NOT_SUPPORTED: u32 = 5;
const P2P_NVLINK: u32 = 2;
const P2P_CAPABILITIES: u32 = 6;

/// What a device outside any NVLink fabric reports: state `NOT_SUPPORTED`, all else zero.
const NO_FABRIC: GpuFabricInfo = GpuFabricInfo { cluster_uuid: [0; 16], status: 0, clique_id: 0, state: 0 };

nvml! {
    /// The nearest common ancestor of two devices.
    fn nvmlDeviceGetTopologyCommonAncestor(first: Handle, second: Handle, level: Out<u32>) {
        let same = first.device()?.index == second.device()?.index;
        level.put(if same { SAME_BOARD } else { SAME_NODE })
    }

    /// Each device has a board of its own.
    fn nvmlDeviceOnSameBoard(first: Handle, second: Handle, same: Out<i32>) {
        same.put((first.device()?.index == second.device()?.index).into())
    }

    /// How two devices reach each other's memory: in every way but over NVLink, as `cuDeviceCanAccessPeer` says.
    fn nvmlDeviceGetP2PStatus(first: Handle, second: Handle, capability: u32, status: Out<u32>) {
        first.device()?;
        second.device()?;
        if capability >= P2P_CAPABILITIES {
            return Err(Error::InvalidArgument);
        }
        status.put(if capability == P2P_NVLINK { P2P_NOT_SUPPORTED } else { P2P_OK })
    }

    /// No fabric.
    fn nvmlDeviceGetGpuFabricInfo(device: Handle, info: Out<GpuFabricInfo>) {
        device.device()?;
        info.put(NO_FABRIC)
    }

    /// The same in the versioned layouts.
    fn nvmlDeviceGetGpuFabricInfoV(device: Handle, info: Out<GpuFabricInfoV2>) {
        const V2: u32 = struct_version::<GpuFabricInfoV2>(2);
        const V3: u32 = struct_version::<GpuFabricInfoV3>(3);
        device.device()?;
        let version = info.get()?.version;
        let GpuFabricInfo { cluster_uuid, status, clique_id, state } = NO_FABRIC;
        let v2 = GpuFabricInfoV2 { version, cluster_uuid, status, clique_id, state, health_mask: 0 };
        match version {
            V2 => info.put(v2),
            V3 => info.cast().put(GpuFabricInfoV3 { v2, health_summary: 0 }),
            _ => Err(Error::ArgumentVersionMismatch),
        }
    }
}
