//! vgpu-manager's `vgpu.config`: the limits of a container in a file that its node plugin writes, brought into the words of
//! our limits file.
//!
//! 8,192 bytes, of which 2,560 are used, little-endian: a header of 128 bytes (magic "VGCF", layout, size, number of devices), the
//! pod's names, and from byte 512 on one device in each 128 bytes, the first word of which is odd while the plugin writes there.

use super::value;
use crate::text::{Fixed, Line};
use core::ffi::CStr;

/// Where vgpu-manager mounts it.
pub const VGPU_CONFIG: &CStr = c"/etc/vgpu-manager/config/vgpu.config";

/// Where vgpu-manager mounts the library beside it. On a machine without that the file is nobody's limits.
pub const VGPU_LIBRARY: &CStr = c"/etc/vgpu-manager/driver/libvgpu-control.so";

/// What of the file is read: all devices, of which there are sixteen.
pub const VGPU_CONFIG_BYTES: usize = DEVICES + 16 * DEVICE;
/// How often the file is read anew that its writer was at.
pub const VGPU_CONFIG_READS: usize = 100;

/// Room for the limits of sixteen devices in words.
pub type Words = Fixed<5120>;

const MAGIC: u32 = 0x5647_4346;
const LAYOUT: u32 = 1;
/// What is used of the file, as it says itself.
const SIZE: u32 = 2560;
const DEVICES: usize = 512;
const DEVICE: usize = 128;

/// Why the file says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoConfig {
    /// It is none, or of a layout that is not known here.
    Unknown,
    /// Its writer is at it.
    BeingWritten,
}

/// One device of it.
struct Device<'c>(&'c [u8]);

impl Device<'_> {
    fn word(&self, at: usize) -> u32 {
        word(self.0, at).unwrap_or(0)
    }

    fn long(&self, at: usize) -> u64 {
        u64::from(self.word(at)) | u64::from(self.word(at.wrapping_add(4))).wrapping_shl(32)
    }

    fn is_given(&self) -> bool {
        self.word(96) == 1
    }

    fn uuid(&self) -> &[u8] {
        let text = self.0.get(8..56).unwrap_or_default();
        text.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The cap in bytes.
    fn memory(&self) -> Option<u64> {
        (self.word(88) == 1).then(|| self.long(56))
    }

    /// The part of it that may lie on the device.
    fn physical(&self) -> Option<u64> {
        self.memory().map(|_| self.long(64)).filter(|part| *part < self.long(56))
    }

    fn is_fixed(&self) -> bool {
        self.word(84) == 1
    }

    /// The share that may be had: the hard one, or, where what others leave may be had too, the soft one.
    fn cores(&self) -> Option<u64> {
        let (hard, soft) = (self.word(72), self.word(76));
        (self.word(80) == 1).then(|| u64::from(if self.is_fixed() { hard } else { soft.max(hard) }))
    }

    /// The share that is guaranteed, where more may be had.
    fn request(&self) -> Option<u64> {
        self.cores().map(|_| u64::from(self.word(72))).filter(|_| !self.is_fixed())
    }

    fn spills(&self) -> bool {
        self.word(92) == 1
    }

    /// Whether each of its values is one.
    fn is_whole(&self) -> bool {
        let share = |share: Option<u64>| share.is_none_or(|share| (1..=100).contains(&share));
        let size = |size: Option<u64>| size.is_none_or(|size| (1..value::SIZE_END).contains(&size));
        value::selector(self.uuid()).is_ok()
            && self.uuid().contains(&b'-')
            && size(self.memory())
            && size(self.physical())
            && share(self.cores())
            && share(self.request())
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

/// The text of a limits file that says the same as the beginning of a `vgpu.config`.
///
/// # Errors
/// Why it says nothing.
pub fn vgpu_config(config: &[u8], words: &mut Words) -> Result<(), NoConfig> {
    let head = [word(config, 0), word(config, 4), word(config, 8)];
    if head != [Some(MAGIC), Some(LAYOUT), Some(SIZE)] || config.len() < VGPU_CONFIG_BYTES {
        return Err(NoConfig::Unknown);
    }
    let all = config.get(DEVICES..VGPU_CONFIG_BYTES).unwrap_or_default();
    let devices = || all.chunks_exact(DEVICE).map(Device).filter(Device::is_given);
    if all.chunks_exact(DEVICE).any(|device| word(device, 0).is_none_or(|seq| seq & 1 == 1)) {
        return Err(NoConfig::BeingWritten);
    }
    if devices().any(|device| !device.is_whole()) {
        return Err(NoConfig::Unknown);
    }
    type Value = fn(&Device<'_>) -> Option<u64>;
    let keys: [(&str, Value, &str); 4] = [
        ("memory", |device| device.memory(), "B"),
        ("memory_physical", |device| device.physical(), "B"),
        ("cores", |device| device.cores(), "%"),
        ("cores_request", |device| device.request(), "%"),
    ];
    let mut fits = true;
    for (key, of, unit) in keys {
        let mut is_first = true;
        for device in devices() {
            let Some(value) = of(&device) else { continue };
            let mut number = Line::<24>::new();
            number.push_u64(value).push_str(unit);
            let before: [&[u8]; 2] = if is_first { [key.as_bytes(), b" = "] } else { [b",", b""] };
            for part in [before[0], before[1], device.uuid(), b"=", number.as_bytes()] {
                fits &= words.push(part);
            }
            is_first = false;
        }
        fits &= is_first || words.push(b"\n");
    }
    if devices().any(|device| device.is_fixed()) {
        fits &= words.push(b"policy = fixed-share\n");
    }
    if devices().any(|device| device.spills()) {
        fits &= words.push(b"oversubscribe = true\n");
    }
    if fits { Ok(()) } else { Err(NoConfig::Unknown) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CorePolicy, read};
    use proptest::prelude::*;
    use std::vec::Vec;

    const UUID: &str = "GPU-8f3a1c2d-0000-4a5b-9c6d-001122334455";

    /// A file with one device in a place, as the plugin lays it out.
    fn file(place: usize, set: &[(usize, u32)]) -> Vec<u8> {
        let mut file = std::vec![0; 8192];
        let mut put = |at: usize, value: u32| file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        for (at, value) in [(0, MAGIC), (4, 1), (8, SIZE), (12, 16)] {
            put(at, value);
        }
        let base = DEVICES + place * DEVICE;
        put(base + 96, 1);
        for (at, value) in set {
            put(base + at, *value);
        }
        file[base + 8..base + 8 + UUID.len()].copy_from_slice(UUID.as_bytes());
        file
    }

    fn words(file: &[u8]) -> Result<Words, NoConfig> {
        let mut words = Words::new();
        vgpu_config(file, &mut words).map(|()| words)
    }

    #[test]
    fn a_device_of_vgpu_config_has_its_limits_by_uuid() {
        // 3 GiB of which 2 GiB on the device; 30 percent, never more.
        let fixed = [(56, 3 << 30), (64, 2 << 30), (72, 30), (76, 30), (80, 1), (84, 1), (88, 1), (92, 1)];
        let text = words(&file(5, &fixed)).expect("a config");
        let reading = read(&|_| None, Some(text.as_bytes()));
        assert_eq!(reading.problems.errors(), 0, "{text:?}");
        let (limits, uuid) = (reading.limits, UUID.as_bytes());
        assert_eq!(
            (limits.memory_for(0, uuid), limits.physical_for(0, uuid)),
            (Some(3 << 30), Some(2 << 30))
        );
        assert_eq!((limits.cores_for(0, uuid), limits.request_for(0, uuid)), (Some(30), None));
        assert_eq!((limits.policy, limits.oversubscribe), (CorePolicy::FixedShare, true));
        assert_eq!(limits.memory_for(0, b"GPU-00000000"), None);

        let balance = [(72, 30), (76, 100), (80, 1)];
        let text = words(&file(0, &balance)).expect("a config");
        let limits = read(&|_| None, Some(text.as_bytes())).limits;
        assert_eq!((limits.cores_for(0, uuid), limits.request_for(0, uuid)), (Some(100), Some(30)));
        assert_eq!((limits.policy, limits.memory_for(0, uuid)), (CorePolicy::BurstShare, None));
        // Not given to this container, or given without any limit.
        assert_eq!(words(&file(0, &[])).expect("a config").as_bytes(), b"");
        assert_eq!(words(&file(0, &[(96, 0), (88, 1)])).expect("a config").as_bytes(), b"");
    }

    #[test]
    fn sixteen_devices_with_every_limit_have_room() {
        let mut all = file(0, &[]);
        let set = [(60, 3 << 12), (64, 1), (68, 2 << 12), (72, 99), (76, 100), (80, 1), (88, 1)];
        for (place, letter) in (b'a'..=b'p').enumerate() {
            let one = file(place, &set);
            let base = DEVICES + place * DEVICE;
            all[base..base + DEVICE].copy_from_slice(&one[base..base + DEVICE]);
            all[base + 8..base + 55].fill(b'f');
            all[base + 8..base + 12].copy_from_slice(b"GPU-");
            all[base + 12] = letter;
        }
        let text = words(&all).expect("room");
        let reading = read(&|_| None, Some(text.as_bytes()));
        assert_eq!((reading.problems.errors(), reading.limits.memory.iter().count()), (0, 16));
    }

    #[test]
    fn what_is_no_config_is_refused() {
        assert_eq!(words(b""), Err(NoConfig::Unknown));
        assert_eq!(words(&file(0, &[])[..2000]), Err(NoConfig::Unknown));
        for at in [0, 4, 8] {
            let mut wrong = file(0, &[]);
            wrong[at] ^= 2;
            assert_eq!(words(&wrong), Err(NoConfig::Unknown), "{at}");
        }
        assert_eq!(words(&file(3, &[(0, 7)])), Err(NoConfig::BeingWritten));
        for set in [[(88, 1), (56, 0)], [(80, 1), (72, 0)], [(80, 1), (76, 101)], [(88, 1), (60, 1 << 20)]] {
            assert_eq!(words(&file(0, &set)), Err(NoConfig::Unknown), "{set:?}");
        }
        let mut unnamed = file(0, &[]);
        unnamed[DEVICES + 8..DEVICES + 12].copy_from_slice(b"a=b,");
        assert_eq!(words(&unnamed), Err(NoConfig::Unknown));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000), at in 0..2000_usize) {
            let mut config = file(1, &[(80, 1), (72, 20), (88, 1), (57, 9)]);
            for (to, from) in config.iter_mut().skip(at + 12).zip(&bytes) {
                *to = *from;
            }
            if let Ok(words) = words(&config) {
                prop_assert_eq!(read(&|_| None, Some(words.as_bytes())).problems.errors(), 0);
            }
        }
    }
}
