//! Where device memory lies: one reach of addresses per device, dealt out in blocks of 2 MiB, and one file of the
//! same extent behind them.
//!
//! Requests above 1 MiB get blocks of their own; smaller ones share a block with their size class. Every
//! operation is O(1) in the number of live allocations. The heap knows addresses; what they cost is
//! charged by its callers with the figures it hands them.

mod runs;

use runs::Runs;
use std::fs::File;

use crate::model::objects::handle::{ContextHandle, PoolHandle};
use crate::tools::bytes::{self, BLOCK};

/// The driver's unit for small allocations.
pub const UNIT: u64 = 512;
const LARGEST_SHARED: u64 = 1 << 20;
const CLASSES: usize = 40;

/// What an allocation is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Asked for by itself, and given back by `cuMemFree`.
    Plain,
    /// Out of a pool.
    Pool(PoolHandle),
    /// Managed: the host reaches it too, so that it has its pages to itself.
    Managed,
    /// Behind an array or a module's variable: not a caller's to free.
    Internal,
    /// Behind a handle, whose mappings are what callers see.
    Handle,
    /// Of a graph, charged while it is in use.
    Graph,
}

impl Use {
    /// Whether a caller asked for it, and may free it.
    pub fn is_callers(self) -> bool {
        !matches!(self, Use::Internal | Use::Handle)
    }
}

/// One allocation.
#[derive(Clone, Copy)]
pub struct Allocation {
    /// Bytes asked for.
    pub size: u64,
    /// The context that it lives and dies with.
    pub context: ContextHandle,
    /// What it is.
    pub purpose: Use,
    /// A number that no other allocation of the process has.
    pub id: u64,
    /// Whether anybody wrote there: if not, it is still zero.
    pub touched: bool,
    /// Whether other processes may hold it too.
    pub shared: bool,
}

impl Allocation {
    /// Whether it has blocks of its own, or shares one with others of its size.
    pub fn is_whole(&self) -> bool {
        is_whole(self.size, self.purpose)
    }
}

fn is_whole(size: u64, purpose: Use) -> bool {
    size > LARGEST_SHARED || purpose == Use::Managed
}

/// A place for an allocation, and the physical bytes that it adds.
pub struct Placed {
    /// The device pointer.
    pub address: u64,
    /// Physical bytes that the device has to spend on it.
    pub physical: u64,
}

enum Block {
    Vacant,
    Whole { start: u32, length: u32, allocation: Allocation },
    Shared(Slab),
}

struct Slab {
    start: u32,
    /// Units of a slot, and 2^32 by them, rounded up: a product in place of a division.
    units: u32,
    inverse: u64,
    class: usize,
    purse: usize,
    slots: Vec<Option<Allocation>>,
    free: Vec<u16>,
}

impl Slab {
    /// The slot that holds `offset` bytes from the start of the block.
    #[inline]
    fn slot(&self, offset: u64) -> u32 {
        // Exact for a block's few units: the error is below 4096 / 2^32 for each.
        ((offset / UNIT * self.inverse) >> 32) as u32
    }
}

/// Where in the heap an allocation is kept, and the address at which it begins.
#[derive(Clone, Copy)]
pub struct Spot {
    block: u32,
    slot: u32,
    /// The device pointer.
    pub begin: u64,
}

/// What the files of heaps are called, before the place of the device in the machine.
const LABEL: &str = "cuda-sim-device-";

/// The place of the device whose heap a file is, by what the file is called.
pub fn index_in(name: &str) -> Option<usize> {
    name.split(LABEL).nth(1)?.split(' ').next()?.parse().ok()
}

/// The memory of one device as this process sees it.
pub struct Heap {
    base: u64,
    /// How many addresses it has.
    reach: u64,
    /// The place of its device in the machine.
    index: usize,
    /// Behind the addresses, from the first context on.
    content: Option<File>,
    /// Per block of the reach, index + 1 of the [`Block`] that covers it.
    pages: Vec<u32>,
    blocks: Vec<Block>,
    spare: Vec<u32>,
    runs: Runs,
    /// Per purse (0 for plain allocations, others for pools) and class, the slabs with room. An empty slab
    /// stays for its addresses; it costs the device nothing.
    roomy: Vec<[Vec<u32>; CLASSES]>,
    graph_purse: Option<usize>,
    next_id: u64,
}

/// The class of a small size, and its units.
fn class_of(size: u64) -> (usize, u64) {
    let units = size.div_ceil(UNIT).max(1);
    if units <= 8 {
        return (units as usize - 1, units);
    }
    let power = (units - 1).ilog2();
    let step = ((units - 1) >> (power - 2)) - 4;
    (8 + (power as usize - 3) * 4 + step as usize, (step + 5) << (power - 2))
}

impl Heap {
    /// A heap of the machine's device `index` over `reach` addresses from `base`: more than the device has bytes, so that holes
    /// never make an allocation fail, or as many as the process has.
    pub fn new(base: u64, reach: u64, index: usize) -> Heap {
        Heap {
            base,
            reach,
            index,
            content: None,
            pages: Vec::new(),
            blocks: Vec::new(),
            spare: Vec::new(),
            runs: Runs::new((reach / BLOCK) as u32),
            roomy: vec![std::array::from_fn(|_| Vec::new())],
            graph_purse: None,
            next_id: 1,
        }
    }

    /// How many addresses it deals out, used or not.
    #[inline]
    pub fn reach(&self) -> u64 {
        self.reach
    }

    /// Puts bytes behind the addresses, once. `None` if the host has no memory for it.
    pub fn open(&mut self) -> Option<()> {
        if self.content.is_none() {
            let content = bytes::memory_file(&format!("{LABEL}{}", self.index), self.reach)?;
            bytes::back(self.base, self.reach, &content, 0).then_some(())?;
            self.pages = vec![0; (self.reach / BLOCK) as usize];
            self.content = Some(content);
        }
        Some(())
    }

    /// The file behind all addresses, once there is one.
    pub fn file(&self) -> Option<&File> {
        self.content.as_ref()
    }

    /// The file behind an address of this heap, and where in it.
    pub fn content(&self, address: u64) -> Option<(&File, u64)> {
        Some((self.content.as_ref()?, address - self.base))
    }

    /// The purse of what graphs allocate, which is not charged by the block.
    pub fn graph_purse(&mut self) -> usize {
        match self.graph_purse {
            Some(purse) => purse,
            None => *self.graph_purse.insert({
                self.roomy.push(std::array::from_fn(|_| Vec::new()));
                self.roomy.len() - 1
            }),
        }
    }

    /// A purse of its own for a pool's small allocations.
    pub fn new_purse(&mut self) -> usize {
        self.roomy.push(std::array::from_fn(|_| Vec::new()));
        self.roomy.len() - 1
    }

    /// Where its addresses begin.
    #[inline]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Places `size` bytes. `None` if no address is left.
    #[inline(always)]
    pub fn place(&mut self, size: u64, context: ContextHandle, purpose: Use, purse: usize) -> Option<Placed> {
        let id = self.next_id;
        self.next_id += 1;
        if is_whole(size, purpose) {
            return self.place_whole(Allocation {
                size,
                context,
                purpose,
                id,
                touched: false,
                shared: false,
            });
        }
        let (class, units) = class_of(size);
        let block = match self.roomy[purse][class].last() {
            Some(block) => *block,
            None => self.new_slab(purse, class, units as u32)?,
        };
        let Some(Block::Shared(slab)) = self.blocks.get_mut(block as usize) else { return None };
        // What is full is not among those with room.
        let slot = slab.free.pop()?;
        // Made in its place: a copy would wait for its parts.
        *slab.slots.get_mut(usize::from(slot))? =
            Some(Allocation { size, context, purpose, id, touched: false, shared: false });
        let first = slab.free.len() + 1 == slab.slots.len();
        let address = self.base + u64::from(slab.start) * BLOCK + u64::from(slot) * units * UNIT;
        if slab.free.is_empty() {
            self.roomy[purse][class].pop();
        }
        Some(Placed { address, physical: if first { BLOCK } else { 0 } })
    }

    fn place_whole(&mut self, allocation: Allocation) -> Option<Placed> {
        let length = u32::try_from(allocation.size.checked_next_multiple_of(BLOCK)? / BLOCK).ok()?;
        let start = self.runs.take(length)?;
        self.install(start, length, Block::Whole { start, length, allocation });
        Some(Placed { address: self.address(start), physical: u64::from(length) * BLOCK })
    }

    #[cold]
    fn new_slab(&mut self, purse: usize, class: usize, units: u32) -> Option<u32> {
        let start = self.runs.take(1)?;
        let count = (BLOCK / UNIT) as u32 / units;
        let slab = Slab {
            start,
            units,
            inverse: (1u64 << 32).div_ceil(u64::from(units)),
            class,
            purse,
            slots: vec![None; count as usize],
            free: (0..count as u16).rev().collect(),
        };
        let block = self.install(start, 1, Block::Shared(slab));
        self.roomy[purse][class].push(block);
        Some(block)
    }

    /// Where the allocation that covers `address` is kept.
    #[inline(always)]
    pub fn locate(&self, address: u64) -> Option<Spot> {
        let offset = address.checked_sub(self.base)?;
        let block = self.pages.get((offset / BLOCK) as usize)?.checked_sub(1)?;
        let (slot, begin, size) = match self.blocks.get(block as usize)? {
            Block::Vacant => return None,
            Block::Whole { start, allocation, .. } => (0, u64::from(*start) * BLOCK, allocation.size),
            Block::Shared(slab) => {
                let begin = u64::from(slab.start) * BLOCK;
                let slot = slab.slot(offset - begin);
                let size = slab.slots.get(slot as usize)?.as_ref()?.size;
                (slot, begin + u64::from(slot * slab.units) * UNIT, size)
            }
        };
        (offset - begin < size).then_some(Spot { block, slot, begin: self.base + begin })
    }

    /// The allocation that is kept there.
    #[inline(always)]
    pub fn at(&mut self, spot: Spot) -> Option<&mut Allocation> {
        match self.blocks.get_mut(spot.block as usize)? {
            Block::Vacant => None,
            Block::Whole { allocation, .. } => Some(allocation),
            Block::Shared(slab) => slab.slots.get_mut(spot.slot as usize)?.as_mut(),
        }
    }

    /// The allocation that covers `address`, and where it begins.
    pub fn find(&mut self, address: u64) -> Option<(u64, &mut Allocation)> {
        let spot = self.locate(address)?;
        Some((spot.begin, self.at(spot)?))
    }

    /// Takes an allocation out, zeroes what was written there, and tells the physical bytes that come free.
    #[inline(always)]
    pub fn take(&mut self, spot: Spot) -> Option<(Allocation, u64)> {
        let block = self.blocks.get_mut(spot.block as usize)?;
        let (allocation, physical) = match block {
            Block::Vacant => return None,
            Block::Whole { start, length, allocation } => {
                let (start, length, allocation) = (*start, *length, *allocation);
                *block = Block::Vacant;
                self.spare.push(spot.block);
                self.pages[start as usize..(start + length) as usize].fill(0);
                self.runs.give(start, length);
                (allocation, u64::from(length) * BLOCK)
            }
            Block::Shared(slab) => {
                let allocation = slab.slots.get_mut(spot.slot as usize)?.take()?;
                if slab.free.is_empty() {
                    self.roomy[slab.purse][slab.class].push(spot.block);
                }
                slab.free.push(spot.slot as u16);
                (allocation, if slab.free.len() == slab.slots.len() { BLOCK } else { 0 })
            }
        };
        // Memory that is dealt out again must read zero, for tests to be repeatable.
        if allocation.touched {
            bytes::zero(spot.begin, allocation.size);
        }
        Some((allocation, physical))
    }

    /// The same for the allocation that begins at `address`.
    pub fn remove(&mut self, address: u64) -> Option<(Allocation, u64)> {
        let spot = self.locate(address).filter(|spot| spot.begin == address)?;
        self.take(spot)
    }

    /// Where the allocations that `wanted` picks begin.
    pub fn select(&self, wanted: impl Fn(&Allocation) -> bool) -> Vec<u64> {
        let mut found = Vec::new();
        for block in &self.blocks {
            match block {
                Block::Vacant => {}
                Block::Whole { start, allocation, .. } if wanted(allocation) => {
                    found.push(self.base + u64::from(*start) * BLOCK);
                }
                Block::Whole { .. } => {}
                Block::Shared(slab) => {
                    let begin = self.base + u64::from(slab.start) * BLOCK;
                    let slots = slab.slots.iter().enumerate();
                    found.extend(slots.filter_map(|(slot, allocation)| {
                        allocation
                            .as_ref()
                            .filter(|it| wanted(it))
                            .map(|_| begin + slot as u64 * u64::from(slab.units) * UNIT)
                    }));
                }
            }
        }
        found
    }

    fn address(&self, start: u32) -> u64 {
        self.base + u64::from(start) * BLOCK
    }

    fn install(&mut self, start: u32, length: u32, block: Block) -> u32 {
        let index = match self.spare.pop() {
            Some(index) => {
                self.blocks[index as usize] = block;
                index
            }
            None => {
                self.blocks.push(block);
                self.blocks.len() as u32 - 1
            }
        };
        self.pages[start as usize..(start + length) as usize].fill(index + 1);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_an_address_is_found_without_a_division() {
        for units in 1..=2048 {
            let (class, units) = class_of(units * UNIT);
            let inverse = (1u64 << 32).div_ceil(units);
            let slab = Slab {
                start: 0,
                units: units as u32,
                inverse,
                class,
                purse: 0,
                slots: Vec::new(),
                free: Vec::new(),
            };
            for unit in 0..BLOCK / UNIT {
                assert_eq!(u64::from(slab.slot(unit * UNIT + 7)), unit / units, "{units} {unit}");
            }
        }
    }

    #[test]
    fn every_small_size_fits_its_class_and_no_class_wastes_more_than_a_quarter() {
        for units in 1..=2048 {
            let (class, size) = class_of(units * UNIT);
            assert!(class < CLASSES && size >= units && size * 4 <= units * 5 + 4, "{units} {class} {size}");
        }
    }
}
