//! Which devices there are, how they are found, and what they are.

use core::ffi::c_char;

use crate::abi::{Error, Out, Text, field, put_text};
use crate::export::nvml;
use crate::library::{Device, Handle, machine};
use crate::types::{
    DeviceAttributes, PciInfo, PciInfoExt, PciInfoV1, PciInfoV2, expect_version, struct_version,
};

/// The subsystem that NVIDIA's own boards report; one constant stands for all.
const PCI_SUBSYSTEM: u32 = 0x16c1_10de;
/// PCI class 03 (display), subclass 02 (3D controller).
const PCI_CLASS: (u32, u32) = (3, 2);

fn count(count: Out<u32>) -> Result<(), Error> {
    count.put(machine()?.machine().whole() as u32)
}

fn by_index(index: u32, device: Out<Handle>) -> Result<(), Error> {
    if index as usize >= machine()?.machine().whole() {
        return Err(Error::InvalidArgument);
    }
    device.put(Handle::of(index as usize))
}

fn by_pci(address: &Text, device: Out<Handle>) -> Result<(), Error> {
    let wanted = parse_pci(address.get()?).ok_or(Error::InvalidArgument)?;
    let devices = &machine()?.machine().devices;
    let place = devices
        .iter()
        .take(machine()?.machine().whole())
        .position(|spec| [spec.pci_domain, spec.pci_bus, spec.pci_device] == wanted);
    device.put(Handle::of(place.ok_or(Error::NotFound)?))
}

/// Reads `[domain:]bus:device[.function]`, hexadecimal. Of a device only function 0 is a GPU.
fn parse_pci(address: &str) -> Option<[u32; 3]> {
    let address = match address.split_once('.') {
        Some((address, function)) if u32::from_str_radix(function, 16).ok()? == 0 => address,
        Some(_) => return None,
        None => address,
    };
    let parts: Option<Vec<u32>> = address.split(':').map(|part| u32::from_str_radix(part, 16).ok()).collect();
    match parts?[..] {
        [domain, bus, device] => Some([domain, bus, device]),
        [bus, device] => Some([0, bus, device]),
        _ => None,
    }
}

fn pci_info(device: &Device) -> PciInfo {
    let spec = device.spec;
    let (domain, bus, place) = (spec.pci_domain, spec.pci_bus, spec.pci_device);
    PciInfo {
        head: PciInfoV2 {
            head: PciInfoV1 {
                bus_id_legacy: field(format!("{domain:04X}:{bus:02X}:{place:02X}.0")),
                domain,
                bus,
                device: place,
                pci_device_id: spec.pci_id,
            },
            pci_subsystem_id: PCI_SUBSYSTEM,
        },
        bus_id: field(format!("{domain:08X}:{bus:02X}:{place:02X}.0")),
    }
}

/// `NVML_DEVICE_ARCH_*` by compute capability.
fn architecture(major: u32, minor: u32) -> u32 {
    match (major, minor) {
        (3, _) => 2,
        (5, _) => 3,
        (6, _) => 4,
        (7, 0..=4) => 5,
        (7, _) => 6,
        (8, 9) => 8,
        (8, _) => 7,
        (9, _) => 9,
        (10..=12, _) => 10,
        _ => u32::MAX,
    }
}

/// FP32 cores of one multiprocessor by compute capability.
fn cores_per_sm(major: u32, minor: u32) -> u32 {
    match (major, minor) {
        (6, 0) | (7, _) | (8, 0) => 64,
        _ => 128,
    }
}

nvml! {
    /// The number of devices; unlike CUDA's it heeds no `CUDA_VISIBLE_DEVICES`.
    fn nvmlDeviceGetCount_v2(devices: Out<u32>) {
        count(devices)
    }

    /// The same: every device here is accessible.
    fn nvmlDeviceGetCount(devices: Out<u32>) {
        count(devices)
    }

    /// The handle of the device at `index`.
    fn nvmlDeviceGetHandleByIndex_v2(index: u32, device: Out<Handle>) {
        by_index(index, device)
    }

    /// The same.
    fn nvmlDeviceGetHandleByIndex(index: u32, device: Out<Handle>) {
        by_index(index, device)
    }

    /// The handle of the device or the instance of this UUID, as `nvmlDeviceGetUUID` writes it.
    fn nvmlDeviceGetHandleByUUID(uuid: Text, device: Out<Handle>) {
        let uuid = uuid.get()?;
        let place = machine()?.machine().devices.iter().position(|spec| spec.uuid_string() == uuid);
        device.put(Handle::of(place.ok_or(Error::NotFound)?))
    }

    /// The handle of the device at a PCI address.
    fn nvmlDeviceGetHandleByPciBusId_v2(address: Text, device: Out<Handle>) {
        by_pci(&address, device)
    }

    /// The same.
    fn nvmlDeviceGetHandleByPciBusId(address: Text, device: Out<Handle>) {
        by_pci(&address, device)
    }

    /// The index of a device; that of an instance counts within its device.
    fn nvmlDeviceGetIndex(device: Handle, index: Out<u32>) {
        let device = device.any()?;
        let place = match device.spec.part {
            None => device.index,
            Some(part) => device.state.machine().instances(part.of).take_while(|place| *place < device.index).count(),
        };
        index.put(place as u32)
    }

    /// The number in `/dev/nvidiaN`.
    fn nvmlDeviceGetMinorNumber(device: Handle, minor: Out<u32>) {
        minor.put(device.device()?.index as u32)
    }

    /// The UUID, `GPU-` or `MIG-` and 32 hexadecimal digits.
    fn nvmlDeviceGetUUID(device: Handle, uuid: Out<c_char>, length: u32) {
        put_text(uuid, length, device.any()?.spec.uuid_string())
    }

    /// The name of the product.
    fn nvmlDeviceGetName(device: Handle, name: Out<c_char>, length: u32) {
        put_text(name, length, &device.any()?.spec.name)
    }

    /// The brand: `TESLA` for boards that still carry the name, `NVIDIA` for later ones.
    fn nvmlDeviceGetBrand(device: Handle, brand: Out<u32>) {
        brand.put(if device.device()?.spec.name.starts_with("Tesla") { 2 } else { 14 })
    }

    /// A version of firmware; a constant.
    fn nvmlDeviceGetVbiosVersion(device: Handle, version: Out<c_char>, length: u32) {
        device.device()?;
        put_text(version, length, "96.00.89.00.01")
    }

    /// One board per device.
    fn nvmlDeviceGetBoardId(device: Handle, board: Out<u32>) {
        board.put(device.device()?.spec.pci_bus << 8)
    }

    /// No board carries two devices.
    fn nvmlDeviceGetMultiGpuBoard(device: Handle, multi: Out<u32>) {
        device.device()?;
        multi.put(0)
    }

    /// The PCI address in the first layout.
    fn nvmlDeviceGetPciInfo(device: Handle, pci: Out<PciInfoV1>) {
        pci.put(pci_info(&device.device()?).head.head)
    }

    /// In the second.
    fn nvmlDeviceGetPciInfo_v2(device: Handle, pci: Out<PciInfoV2>) {
        pci.put(pci_info(&device.device()?).head)
    }

    /// In the third.
    fn nvmlDeviceGetPciInfo_v3(device: Handle, pci: Out<PciInfo>) {
        pci.put(pci_info(&device.device()?))
    }

    /// With a version and the PCI class.
    fn nvmlDeviceGetPciInfoExt(device: Handle, pci: Out<PciInfoExt>) {
        let info = pci_info(&device.device()?);
        let version = pci.get()?.version;
        expect_version(version, struct_version::<PciInfoExt>(1))?;
        pci.put(PciInfoExt {
            version,
            domain: info.head.head.domain,
            bus: info.head.head.bus,
            device: info.head.head.device,
            pci_device_id: info.head.head.pci_device_id,
            pci_subsystem_id: info.head.pci_subsystem_id,
            base_class: PCI_CLASS.0,
            sub_class: PCI_CLASS.1,
            bus_id: info.bus_id,
        })
    }

    /// The compute capability.
    fn nvmlDeviceGetCudaComputeCapability(device: Handle, major: Out<i32>, minor: Out<i32>) {
        let spec = device.any()?.spec;
        major.put(spec.cc_major.cast_signed())?;
        minor.put(spec.cc_minor.cast_signed())
    }

    /// The architecture.
    fn nvmlDeviceGetArchitecture(device: Handle, number: Out<u32>) {
        let spec = device.device()?.spec;
        number.put(architecture(spec.cc_major, spec.cc_minor))
    }

    /// The number of FP32 cores.
    fn nvmlDeviceGetNumGpuCores(device: Handle, cores: Out<u32>) {
        let spec = device.device()?.spec;
        cores.put(spec.sm_count * cores_per_sm(spec.cc_major, spec.cc_minor))
    }

    /// What an instance has, or a whole device to be split.
    fn nvmlDeviceGetAttributes_v2(device: Handle, attributes: Out<DeviceAttributes>) {
        let spec = device.any()?.spec;
        let slices = spec.part.map_or(0, |part| part.slices);
        attributes.put(DeviceAttributes {
            multiprocessor_count: spec.sm_count,
            shared_copy_engine_count: 3,
            shared_decoder_count: 0,
            shared_encoder_count: 0,
            shared_jpeg_count: 0,
            shared_ofa_count: 0,
            gpu_instance_slice_count: slices,
            compute_instance_slice_count: slices,
            memory_size_mb: spec.total_bytes >> 20,
        })
    }
}
