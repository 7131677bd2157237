//! Addresses that mean something to the driver beyond the heaps: pinned and registered host memory, managed
//! memory (which lies in a heap and is known here as well), reserved addresses and what is mapped there.

use std::collections::BTreeMap;

use crate::model::objects::handle::{ContextHandle, PhysicalHandle};

/// What lies behind a region.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Pinned memory of the driver's, and the flags that it was asked for with.
    Pinned { flags: u32 },
    /// A caller's own memory, registered.
    Registered { flags: u32 },
    /// Managed memory, and whether its pages are the host's: they were sent there, or the device had no room.
    Managed { flags: u32, on_host: bool, advice: Advice },
    /// Physical memory, from an offset, mapped at a reservation, and what devices may do there.
    Mapped { physical: PhysicalHandle, offset: u64, read: bool, write: bool },
    /// Memory of another process: the ordinal of its device, where it lies, and how often it was opened.
    Opened { ordinal: usize, inode: u64, offset: u64, times: u32, lent: bool },
}

/// What callers have said of managed memory. Locations are devices, `CU_DEVICE_CPU` or [`NOWHERE`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    pub read_mostly: bool,
    pub preferred: i32,
    pub prefetched: i32,
    /// A bit for each device.
    pub accessed_by: u64,
}

/// `CU_DEVICE_INVALID`.
pub const NOWHERE: i32 = -2;

impl Default for Advice {
    fn default() -> Advice {
        Advice { read_mostly: false, preferred: NOWHERE, prefetched: NOWHERE, accessed_by: 0 }
    }
}

/// Addresses of one kind.
#[derive(Clone, Copy)]
pub struct Region {
    pub start: u64,
    pub length: u64,
    /// The context that it belongs to; null for mapped memory.
    pub context: ContextHandle,
    pub backing: Backing,
}

/// All regions of the process.
pub struct Regions {
    known: BTreeMap<u64, Region>,
    /// Reserved addresses: start and length.
    reservations: BTreeMap<u64, u64>,
}

/// Whether `[start, start + length)` and `[other, other + extent)` share an address.
fn overlap(start: u64, length: u64, other: u64, extent: u64) -> bool {
    start < other.saturating_add(extent) && other < start.saturating_add(length)
}

impl Regions {
    /// No regions.
    pub fn new() -> Regions {
        Regions { known: BTreeMap::new(), reservations: BTreeMap::new() }
    }

    /// Adds a region; the caller knows that it overlaps none.
    pub fn add(&mut self, region: Region) {
        self.known.insert(region.start, region);
    }

    /// The region that covers `address`.
    pub fn find(&self, address: u64) -> Option<&Region> {
        let (_, region) = self.known.range(..=address).next_back()?;
        (address - region.start < region.length).then_some(region)
    }

    /// What was said of the managed memory that covers `address`.
    pub fn advice_of(&mut self, address: u64) -> Option<&mut Advice> {
        let (_, region) = self.known.range_mut(..=address).next_back()?;
        match &mut region.backing {
            Backing::Managed { advice, .. } if address - region.start < region.length => Some(advice),
            _ => None,
        }
    }

    /// The region that begins at `address`.
    pub fn at(&self, address: u64) -> Option<&Region> {
        self.known.get(&address)
    }

    /// Takes out the region that begins at `address`.
    pub fn remove(&mut self, address: u64) -> Option<Region> {
        self.known.remove(&address)
    }

    /// The managed memory that covers `address`.
    pub fn managed(&self, address: u64) -> Option<&Region> {
        self.find(address).filter(|region| matches!(region.backing, Backing::Managed { .. }))
    }

    /// Notes where the pages of the managed memory at `address` are.
    pub fn move_managed(&mut self, address: u64, to_host: bool) {
        if let Some(Region { backing: Backing::Managed { on_host, .. }, .. }) = self.known.get_mut(&address) {
            *on_host = to_host;
        }
    }

    /// Whether some region shares an address with the range.
    pub fn overlaps(&self, start: u64, length: u64) -> bool {
        let before = self.known.range(..start.saturating_add(length)).next_back();
        before.is_some_and(|(_, region)| overlap(start, length, region.start, region.length))
    }

    /// The regions that begin in the range, in order.
    pub fn within(&self, start: u64, length: u64) -> Vec<Region> {
        self.known.range(start..start.saturating_add(length)).map(|(_, region)| *region).collect()
    }

    /// All regions of a context.
    pub fn of(&self, context: ContextHandle) -> Vec<Region> {
        self.known.values().filter(|region| region.context == context).copied().collect()
    }

    /// The address of another process's memory that was opened before; it is open once more now.
    pub fn open_again(&mut self, wanted: (u64, u64)) -> Option<u64> {
        self.known.values_mut().find_map(|region| match &mut region.backing {
            Backing::Opened { inode, offset, times, .. } if (*inode, *offset) == wanted => {
                *times += 1;
                Some(region.start)
            }
            _ => None,
        })
    }

    /// Where physical memory is mapped: the regions, each with its offset in the memory.
    pub fn mappings_of(&self, wanted: PhysicalHandle) -> Vec<(Region, u64)> {
        let mapping = |region: &Region| match region.backing {
            Backing::Mapped { physical, offset, .. } if physical == wanted => Some((*region, offset)),
            _ => None,
        };
        self.known.values().filter_map(mapping).collect()
    }

    /// Whether regions without a gap cover the range and allow the access. Host memory allows all.
    pub fn reaches(&self, address: u64, length: u64, write: bool) -> bool {
        let Some(end) = address.checked_add(length) else { return false };
        let mut next = address;
        loop {
            let Some(region) = self.find(next) else { return false };
            let allowed = match region.backing {
                Backing::Mapped { read, write: may_write, .. } => read && (may_write || !write),
                _ => true,
            };
            if !allowed {
                return false;
            }
            next = region.start + region.length;
            if next >= end {
                return true;
            }
        }
    }

    /// Whether mapped regions without a gap and without a remainder cover the range.
    pub fn mapped_exactly(&self, start: u64, length: u64) -> Option<Vec<Region>> {
        let regions = self.within(start, length);
        let mut next = start;
        for region in &regions {
            if region.start != next || !matches!(region.backing, Backing::Mapped { .. }) {
                return None;
            }
            next += region.length;
        }
        (length > 0 && Some(next) == start.checked_add(length)).then_some(regions)
    }

    /// Notes a reservation.
    pub fn reserve(&mut self, start: u64, length: u64) {
        self.reservations.insert(start, length);
    }

    /// Forgets a reservation; tells whether there was just this one.
    pub fn unreserve(&mut self, start: u64, length: u64) -> bool {
        let known = self.reservations.get(&start) == Some(&length);
        if known {
            self.reservations.remove(&start);
        }
        known
    }

    /// Whether an address is reserved.
    pub fn reserved(&self, address: u64) -> bool {
        self.reserved_range(address, 1)
    }

    /// Whether one reservation holds all of a range.
    pub fn reserved_range(&self, start: u64, length: u64) -> bool {
        let before = self.reservations.range(..=start).next_back();
        before.is_some_and(|(begin, extent)| {
            let offset = start - begin;
            offset < *extent && length <= extent - offset
        })
    }
}
