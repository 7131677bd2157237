//! `CUdevice_attribute`: what each device answers. Numbers from public data sheets and the programming
//! guide's tables; 1 and 0 are yes and no.

use cuda_shim_device::DeviceSpec;

/// The value of attribute `id`; `None` where the driver knows no such attribute.
pub fn attribute(spec: &DeviceSpec, id: i32) -> Option<i32> {
    match &spec.attributes {
        Some(recorded) if !PLACES.contains(&id) => recorded.get(&id).copied(),
        _ => modelled(spec, id),
    }
}

/// Where the device stands on its bus: each machine puts its devices in their places.
const PLACES: [i32; 3] = [33, 34, 50];

fn modelled(spec: &DeviceSpec, id: i32) -> Option<i32> {
    let hopper = i32::from(spec.cc_major >= 9);
    let ampere = i32::from(spec.cc_major >= 8);
    let shared = spec.shared_per_block_optin as i32;
    Some(match id {
        1 => 1024,
        2 | 3 => 1024,
        4 => 64,
        5 => i32::MAX,
        6 | 7 => 65_535,
        8 => 49_152,
        9 => 65_536,
        10 => 32,
        11 => i32::MAX,
        12 => 65_536,
        13 => spec.sm_clock_khz as i32,
        14 | 30 => 512,
        15 | 19 | 31 | 41 | 44 => 1,
        16 => spec.sm_count as i32,
        17 | 18 | 20 | 35 => 0,
        21 | 22 | 27 | 28 | 42 | 61 => {
            if matches!(id, 21 | 22) {
                131_072
            } else {
                32_768
            }
        }
        23 => 65_536,
        24..=26 => 16_384,
        29 | 43 | 62 | 65 => 2048,
        32 => 1,
        33 => spec.pci_bus as i32,
        34 => spec.pci_device as i32,
        36 => spec.memory_clock_khz as i32,
        37 => spec.memory_bus_bits as i32,
        38 => spec.l2_bytes as i32,
        39 => spec.threads_per_sm as i32,
        40 => 3,
        45 | 46 => 32_768,
        47 | 48 => 8192,
        49 => 32_768,
        50 => spec.pci_domain as i32,
        51 => 32,
        52 | 53 | 63 | 64 | 66 | 67 => 32_768,
        54 | 68 => 2046,
        55 | 57 => {
            if id == 55 {
                32_768
            } else {
                65_536
            }
        }
        56 => 131_072,
        58..=60 => 16_384,
        69 => 1 << 28,
        70 => 131_072,
        71 => 65_000,
        72 => 2_097_120,
        73 | 74 | 77 => 32_768,
        75 => spec.cc_major as i32,
        76 => spec.cc_minor as i32,
        78..=80 => 1,
        81 => spec.shared_per_sm as i32,
        82 => 65_536,
        83 => 1,
        84..=86 => 0,
        87 => {
            if spec.cc_minor == 0 {
                2
            } else {
                32
            }
        }
        88 => 0,
        89..=91 => 1,
        // The first version of operations on memory in streams; the second is there, below.
        92..=94 => 0,
        95 | 96 => 1,
        97 => shared,
        98 => 1,
        99 => 1,
        100 | 101 => 0,
        102 | 103 => 1,
        104 | 105 => 0,
        106 => spec.blocks_per_sm as i32,
        107 => ampere,
        108 => ampere * (spec.l2_bytes as i32 / 4 * 3),
        109 => ampere * (128 << 20),
        110 => 1,
        111 => ampere * 1024,
        112 | 113 => 1,
        114 => 1,
        115 | 116 => 1,
        117 => 1,
        118 => 100,
        119 => 1,
        120 => hopper,
        121..=125 => 1,
        126 => {
            if hopper == 1 {
                4
            } else {
                1
            }
        }
        127 => hopper,
        128 => 0,
        129 => 1,
        130 => 0,
        131 => -1,
        132 => 0,
        133 => 0,
        134 => -1,
        135..=138 => 0,
        139 => spec.pci_id as i32,
        140 => spec.pci_id as i32,
        141..=149 => 0,
        _ => return None,
    })
}
