//! The whole ABI as data: what `tests/tests/abi.rs` compares with the C header, the Python reader and `docs/region.md`.

use crate::check::Record;
use crate::{hami, layout, lock};

/// Every record, inner ones before the ones that hold them.
pub const RECORDS: [&Record; 13] = [
    &hami::Used::RECORD,
    &hami::Utilization::RECORD,
    &hami::Process::RECORD,
    &hami::View::RECORD,
    &layout::LeaseRecord::RECORD,
    &layout::Header::RECORD,
    &layout::Device::RECORD,
    &layout::Slot::RECORD,
    &layout::JournalRecord::RECORD,
    &layout::LimitRecord::RECORD,
    &layout::Event::RECORD,
    &layout::Ours::RECORD,
    &layout::File::RECORD,
];

/// Every count, code, bit and lock byte, under its name in C.
pub const NUMBERS: [&[(&str, u64)]; 3] = [hami::NUMBERS, layout::NUMBERS, lock::NUMBERS];
