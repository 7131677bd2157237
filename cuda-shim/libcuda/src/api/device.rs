//! What can be asked about a device without a context.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::abi::DeviceProperties;
use crate::api::export::export;
use crate::model::objects::array::format_bytes;
use crate::model::objects::attributes::attribute;
use crate::model::world::world;
use crate::tools::ffi::{Out, Text, put_text};
use crate::tools::status::{INVALID_DEVICE, INVALID_VALUE, NOT_SUPPORTED};

export! {
    fn cuDeviceGetCount(count: Out<i32>) {
        let world = world()?;
        count.put(world.devices.len() as i32)
    }

    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        let world = world()?;
        device.required()?;
        world.device(ordinal)?;
        device.put(ordinal)
    }

    fn cuDeviceGetName(name: Out<u8>, length: i32, device: i32) {
        let world = world()?;
        let (_, device) = world.device(device)?;
        put_text(name, length, &device.spec.name)
    }

    fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: i32) {
        let world = world()?;
        let (_, device) = world.device(device)?;
        uuid.put(world.first_uuid(device))
    }

    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: i32) {
        let world = world()?;
        uuid.put(world.device(device)?.1.spec.uuid)
    }

    fn cuDeviceGetLuid(luid: Out<[u8; 8]>, mask: Out<u32>, device: i32) {
        // A locally unique id is a notion of Windows.
        let world = world()?;
        world.device(device)?;
        luid.required()?;
        mask.required()?;
        Err(NOT_SUPPORTED)
    }

    fn cuDeviceTotalMem_v2(bytes: Out<u64>, device: i32) {
        let world = world()?;
        bytes.put(world.device(device)?.1.spec.total_bytes)
    }

    early fn cuDeviceGetAttribute(value: Out<i32>, id: i32, device: i32) {
        value.required()?;
        let world = world()?;
        value.required()?;
        let (_, device) = world.device(device)?;
        value.put(attribute(&device.spec, id).ok_or(INVALID_VALUE)?)
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) {
        let world = world()?;
        let (_, device) = world.device(device)?;
        major.put(device.spec.cc_major as i32)?;
        minor.put(device.spec.cc_minor as i32)
    }

    fn cuDeviceGetProperties(properties: Out<DeviceProperties>, device: i32) {
        let world = world()?;
        let (_, device) = world.device(device)?;
        let get = |id| attribute(&device.spec, id).unwrap_or(0);
        properties.put(DeviceProperties {
            max_threads_per_block: get(1),
            max_threads_dim: [get(2), get(3), get(4)],
            max_grid_size: [get(5), get(6), get(7)],
            shared_per_block: get(8),
            constant_bytes: get(9),
            warp_size: get(10),
            pitch: get(11),
            registers_per_block: get(12),
            clock_rate: get(13),
            texture_alignment: get(14),
        })
    }

    fn cuDeviceGetPCIBusId(id: Out<u8>, length: i32, device: i32) {
        let world = world()?;
        let (_, device) = world.device(device)?;
        put_text(id, length, &device.spec.pci_bus_id())
    }

    fn cuDeviceGetByPCIBusId(device: Out<i32>, id: Text) {
        let world = world()?;
        device.required()?;
        let id = id.lossy()?.to_ascii_uppercase();
        // The domain and the function may be left out: "10:00" means "0000:10:00.0".
        let wanted = |known: &str| known == id || known[5..] == id || known.split('.').next() == Some(&id) || known[5..].split('.').next() == Some(&id);
        let found = world.devices.iter().position(|device| wanted(&device.spec.pci_bus_id()));
        device.put(found.ok_or(INVALID_DEVICE)? as i32)
    }

    fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) {
        let world = world()?;
        let (device, _) = world.device(device)?;
        let (peer, _) = world.device(peer)?;
        can.put(i32::from(device != peer))
    }

    fn cuDeviceGetP2PAttribute(value: Out<i32>, attribute: i32, source: i32, destination: i32) {
        value.required()?;
        let world = world()?;
        let (source, _) = world.device(source)?;
        let (destination, _) = world.device(destination)?;
        if source == destination {
            return Err(INVALID_DEVICE);
        }
        // Performance rank 0; access, atomics and arrays supported.
        match attribute {
            1 => value.put(0),
            2..=5 => value.put(1),
            _ => Err(INVALID_VALUE),
        }
    }

    fn cuDeviceGetExecAffinitySupport(supported: Out<i32>, kind: i32, device: i32) {
        let world = world()?;
        world.device(device)?;
        if kind != 0 {
            return Err(INVALID_VALUE);
        }
        supported.put(0)
    }

    fn cuDeviceGetTexture1DLinearMaxWidth(width: Out<u64>, format: u32, channels: u32, device: i32) {
        let world = world()?;
        world.device(device)?;
        if format_bytes(format).is_none() || !matches!(channels, 1 | 2 | 4) {
            return Err(INVALID_VALUE);
        }
        width.put(1 << 28)
    }
}
