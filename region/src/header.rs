//! The head of a region as bytes: what made the file, and where its records lie.
//!
//! Readers step by what stands here. Writers map the file as [`layout::File`], so they must refuse a file whose records
//! lie elsewhere: [`RecordTable::mismatch`].

use crate::check::Record;
use crate::layout::{self, ARRAYS, Device, Event, FILE_BYTES, Header, JournalRecord, OURS, Ours, Slot};
use crate::sys::{Descriptor, Errno};
use core::fmt;
use core::mem::offset_of;

/// The eight-byte field at an offset, where there are so many bytes.
#[must_use]
pub fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// The four-byte field at an offset, where there are so many bytes.
#[must_use]
pub fn half(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

/// The same of a file: `None` where it ends before.
pub fn half_at(file: &Descriptor, at: u64) -> Result<Option<u32>, Errno> {
    Ok(half(file.read_at(&mut [0u8; 4], at)?, 0))
}

/// Where one kind of record lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Array {
    /// Bytes of one record.
    pub bytes: u32,
    /// How many there are; of journals, how many of each slot.
    pub count: u32,
    /// Where the first one begins.
    pub offset: u64,
}

/// Where all records lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordTable {
    /// Bytes of the whole file.
    pub length: u64,
    /// Devices, slots, journals, events.
    pub arrays: [Array; ARRAYS],
}

/// The first number in which a file's table differs from [`RecordTable::OURS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// Which number that is, for people.
    pub of: &'static str,
    /// What stands in the file.
    pub found: u64,
    /// What this version reads and writes.
    pub known: u64,
}

const OF: [[&str; 3]; ARRAYS] = [
    ["bytes of a device record", "device records", "offset of the device records"],
    ["bytes of a slot record", "slot records", "offset of the slot records"],
    ["bytes of a journal record", "journals of a slot", "offset of the journals"],
    ["bytes of an event record", "event records", "offset of the event records"],
];

#[allow(clippy::cast_possible_truncation, reason = "constants that fit, converted by the compiler")]
const fn array(record: &Record, count: usize, within_ours: usize) -> Array {
    Array { bytes: record.bytes as u32, count: count as u32, offset: (OURS + within_ours) as u64 }
}

impl RecordTable {
    /// That of this version.
    pub const OURS: Self = Self {
        length: FILE_BYTES as u64,
        arrays: [
            array(&Device::RECORD, layout::DEVICES, offset_of!(Ours, devices)),
            array(&Slot::RECORD, layout::SLOTS, offset_of!(Ours, slots)),
            array(&JournalRecord::RECORD, layout::JOURNALS, offset_of!(Ours, journals)),
            array(&Event::RECORD, layout::EVENTS, offset_of!(Ours, events)),
        ],
    };

    /// Reads the table from the bytes of a [`Header`].
    #[must_use]
    pub fn read(header: &[u8]) -> Option<Self> {
        let mut arrays = Self::OURS.arrays;
        for (kind, array) in arrays.iter_mut().enumerate() {
            let at = |base: usize, width: usize| base.checked_add(kind.checked_mul(width)?);
            array.bytes = half(header, at(offset_of!(Header, record_bytes), 4)?)?;
            array.count = half(header, at(offset_of!(Header, record_count), 4)?)?;
            array.offset = word(header, at(offset_of!(Header, record_offset), 8)?)?;
        }
        Some(Self { length: word(header, offset_of!(Header, length))?, arrays })
    }

    /// Why this version must not write into such a file. A file may be longer: what lies behind the arrays of this version
    /// is left alone.
    #[must_use]
    pub fn mismatch(&self) -> Option<Mismatch> {
        let arrays = self.arrays.iter().zip(&Self::OURS.arrays).zip(&OF);
        let numbers = arrays.flat_map(|((found, known), of)| {
            [
                (of[0], u64::from(found.bytes), u64::from(known.bytes)),
                (of[1], u64::from(found.count), u64::from(known.count)),
                (of[2], found.offset, known.offset),
            ]
        });
        let differ = numbers.filter(|(_, found, known)| found != known);
        let short = (self.length < Self::OURS.length).then_some((
            "bytes of the whole file",
            self.length,
            Self::OURS.length,
        ));
        differ.chain(short).next().map(|(of, found, known)| Mismatch { of, found, known })
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}, this version writes {}", self.of, self.found, self.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_the_table_that_differs_is_a_mismatch_but_a_longer_file_is_none() {
        assert_eq!(RecordTable::OURS.mismatch(), None);
        for (kind, of) in OF.iter().enumerate() {
            for (number, of) in of.iter().enumerate() {
                let mut table = RecordTable::OURS;
                let array = &mut table.arrays[kind];
                match number {
                    0 => array.bytes += 64,
                    1 => array.count += 1,
                    _ => array.offset += 4096,
                }
                let mismatch = table.mismatch().expect("another layout");
                assert_eq!(mismatch.of, *of);
                assert!(mismatch.found > mismatch.known);
            }
        }
        assert_eq!(RecordTable { length: u64::MAX, ..RecordTable::OURS }.mismatch(), None);
        assert!(RecordTable { length: 0, ..RecordTable::OURS }.mismatch().is_some());
    }

    #[test]
    fn a_head_that_is_cut_short_has_no_table() {
        for bytes in 0..88 {
            assert_eq!(RecordTable::read(&[0; 88][..bytes]), None, "{bytes} bytes");
        }
        assert!(RecordTable::read(&[0; 88]).is_some());
    }
}
