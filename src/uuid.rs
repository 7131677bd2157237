//! A device's UUID as text.

use core::ffi::CStr;
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_region::layout::{self, Device};

/// A UUID's text while it is built, zero-padded.
pub struct Uuid {
    bytes: [u8; layout::UUID_BYTES],
    length: usize,
}

impl Default for Uuid {
    fn default() -> Self {
        Self { bytes: [0; layout::UUID_BYTES], length: 0 }
    }
}

impl Uuid {
    /// Appends text; what does not fit is left off.
    pub fn push(&mut self, text: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.length).zip(text) {
            *to = *from;
            self.length = self.length.saturating_add(1);
        }
    }

    /// Appends a substitute for the UUID of a device for which the driver gives none.
    pub fn push_index(&mut self, index: u32) {
        self.push(b"CUDA-ordinal-");
        self.push(&[b'0'.wrapping_add((index / 10) as u8), b'0'.wrapping_add((index % 10) as u8)]);
    }

    /// Appends 16 bytes the way NVML writes them: 8-4-4-4-12 hexadecimal digits.
    pub fn push_groups(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (position, byte) in bytes.iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                self.push(b"-");
            }
            for half in [byte >> 4, byte & 15] {
                self.push(DIGITS.get(usize::from(half)).map_or(b"", core::slice::from_ref));
            }
        }
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    /// The UUID that a device record of the region stores.
    pub fn of(device: &Device) -> Self {
        let mut uuid = Self::default();
        for word in &device.uuid {
            let word = word.load(Relaxed).to_le_bytes();
            uuid.push(word.split(|byte| *byte == 0).next().unwrap_or(&[]));
        }
        uuid
    }

    /// Whether this UUID says that it belongs to a MIG instance. Not every CUDA writes it so.
    pub fn is_instance(&self) -> bool {
        self.text().starts_with(b"MIG-")
    }

    /// The UUID of the MIG instance with this number.
    pub fn as_mig(&self) -> Self {
        let mut uuid = Self::default();
        uuid.push(b"MIG");
        uuid.push(self.text().get(3..).unwrap_or(&[]));
        uuid
    }

    /// The text for C.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    /// The text as the region stores it, in words.
    pub fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.bytes
            .chunks_exact(8)
            .map(|word| word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Whether a record of the region is this device's. NVML distinguishes a MIG instance from a whole device and not
    /// every CUDA does. So the four bytes before the number, `GPU-` or `MIG-`, do not count.
    pub fn matches(&self, device: &Device) -> bool {
        let number = |(at, word): (usize, u64)| if at == 0 { word >> 32 } else { word };
        let stored = device.uuid.iter().map(|word| word.load(Relaxed)).enumerate().map(number);
        stored.eq(self.words().enumerate().map(number))
    }
}

#[cfg(test)]
mod tests;
