//! Where device memory lies: one reach of addresses per device, dealt out in blocks of 2 MiB, and one file of the
//! same extent behind them.
//!
//! Requests above 1 MiB get blocks of their own; smaller ones share a block with their size class. Every
//! operation is O(1) in the number of live allocations. The heap knows addresses; what they cost is
//! charged by its callers with the figures it hands them.

use std::collections::BTreeMap;
use std::fs::File;

use crate::bytes;
use crate::context::Context;
use crate::memory::pool::Pool;
use crate::table::Handle;

/// The driver's block, and the granularity of everything large.
pub const BLOCK: u64 = 2 << 20;
/// The driver's unit for small allocations.
pub const UNIT: u64 = 512;
const LARGEST_SHARED: u64 = 1 << 20;
const CLASSES: usize = 40;
/// Free runs of up to this many blocks are found by index.
const SHORT_RUN: usize = 64;

/// What an allocation is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Asked for by itself, and given back by `cuMemFree`.
    Plain,
    /// Out of a pool.
    Pool(Handle<Pool>),
    /// Managed: the host reaches it too, so that it has its pages to itself.
    Managed,
    /// Behind an array or a module's variable: not a caller's to free.
    Internal,
    /// Behind a handle, whose mappings are what callers see.
    Handle,
    /// Of a graph, charged while it is in use.
    Graph,
}

/// One allocation.
#[derive(Clone, Copy)]
pub struct Allocation {
    /// Bytes asked for.
    pub size: u64,
    /// The context that it lives and dies with.
    pub context: Handle<Context>,
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
    /// Whether a caller asked for it, and may free it.
    pub fn is_callers(&self) -> bool {
        !matches!(self.purpose, Use::Internal | Use::Handle)
    }

    /// Whether it has blocks of its own, or shares one with others of its size.
    pub fn is_whole(&self) -> bool {
        self.size > LARGEST_SHARED || self.purpose == Use::Managed
    }
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
    Shared(Box<Slab>),
}

struct Slab {
    start: u32,
    slot_bytes: u64,
    class: usize,
    purse: usize,
    slots: Vec<Option<Allocation>>,
    free: Vec<u16>,
    live: u32,
}

/// The memory of one device as this process sees it.
pub struct Heap {
    base: u64,
    /// Behind the addresses, from the first context on.
    content: Option<File>,
    /// Per block of the reach, index + 1 of the [`Block`] that covers it.
    pages: Vec<u32>,
    blocks: Vec<Block>,
    spare: Vec<u32>,
    fresh: u32,
    short_runs: Vec<Vec<u32>>,
    long_runs: BTreeMap<u32, Vec<u32>>,
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
    /// A heap over `reach` bytes of addresses from `base`.
    pub fn new(base: u64, reach: u64) -> Heap {
        Heap {
            base,
            content: None,
            pages: vec![0; (reach / BLOCK) as usize],
            blocks: Vec::new(),
            spare: Vec::new(),
            fresh: 0,
            short_runs: (0..=SHORT_RUN).map(|_| Vec::new()).collect(),
            long_runs: BTreeMap::new(),
            roomy: vec![std::array::from_fn(|_| Vec::new())],
            graph_purse: None,
            next_id: 1,
        }
    }

    /// Puts bytes behind the addresses, once. `None` if the host has no memory for it.
    pub fn open(&mut self) -> Option<()> {
        if self.content.is_none() {
            let reach = self.pages.len() as u64 * BLOCK;
            let content = bytes::memory_file("cuda-sim-device", reach)?;
            bytes::back(self.base, reach, &content, 0).then_some(())?;
            self.content = Some(content);
        }
        Some(())
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

    /// Whether an address is one of this heap's.
    #[inline]
    pub fn owns(&self, address: u64) -> bool {
        address.wrapping_sub(self.base) < self.pages.len() as u64 * BLOCK
    }

    /// Places `size` bytes. `None` if no address is left.
    #[inline]
    pub fn place(
        &mut self,
        size: u64,
        context: Handle<Context>,
        purpose: Use,
        purse: usize,
    ) -> Option<Placed> {
        let allocation =
            Allocation { size, context, purpose, id: self.next_id, touched: false, shared: false };
        self.next_id += 1;
        if allocation.is_whole() {
            self.place_whole(allocation)
        } else {
            self.place_shared(allocation, purse)
        }
    }

    fn place_whole(&mut self, allocation: Allocation) -> Option<Placed> {
        let length = u32::try_from(allocation.size.checked_next_multiple_of(BLOCK)? / BLOCK).ok()?;
        let start = self.take_run(length)?;
        self.install(start, length, Block::Whole { start, length, allocation });
        Some(Placed { address: self.address(start), physical: u64::from(length) * BLOCK })
    }

    fn place_shared(&mut self, allocation: Allocation, purse: usize) -> Option<Placed> {
        let (class, units) = class_of(allocation.size);
        let index = match self.roomy[purse][class].last() {
            Some(index) => *index,
            None => {
                let start = self.take_run(1)?;
                let count = (BLOCK / UNIT / units) as u16;
                let slab = Slab {
                    start,
                    slot_bytes: units * UNIT,
                    class,
                    purse,
                    slots: vec![None; usize::from(count)],
                    free: (0..count).rev().collect(),
                    live: 0,
                };
                let index = self.install(start, 1, Block::Shared(Box::new(slab)));
                self.roomy[purse][class].push(index);
                index
            }
        };
        let Block::Shared(slab) = &mut self.blocks[index as usize] else { return None };
        let slot = slab.free.pop()?;
        slab.slots[usize::from(slot)] = Some(allocation);
        slab.live += 1;
        let physical = if slab.live == 1 { BLOCK } else { 0 };
        let address = self.base + u64::from(slab.start) * BLOCK + u64::from(slot) * units * UNIT;
        if slab.free.is_empty() {
            self.roomy[purse][class].pop();
        }
        Some(Placed { address, physical })
    }

    /// The allocation that covers `address`, and where it begins.
    pub fn find(&mut self, address: u64) -> Option<(u64, &mut Allocation)> {
        let page = (address.checked_sub(self.base)? / BLOCK) as usize;
        let index = self.pages.get(page)?.checked_sub(1)?;
        match &mut self.blocks[index as usize] {
            Block::Vacant => None,
            Block::Whole { start, allocation, .. } => {
                let begin = self.base + u64::from(*start) * BLOCK;
                (address - begin < allocation.size).then_some((begin, allocation))
            }
            Block::Shared(slab) => {
                let begin = self.base + u64::from(slab.start) * BLOCK;
                let slot = (address - begin) / slab.slot_bytes;
                let begin = begin + slot * slab.slot_bytes;
                let allocation = slab.slots.get_mut(slot as usize)?.as_mut()?;
                (address - begin < allocation.size).then_some((begin, allocation))
            }
        }
    }

    /// Takes out the allocation that begins at `address`, zeroes what was written there, and tells the
    /// physical bytes that come free.
    pub fn remove(&mut self, address: u64) -> Option<(Allocation, u64)> {
        let page = (address.checked_sub(self.base)? / BLOCK) as usize;
        let index = self.pages.get(page)?.checked_sub(1)?;
        match &mut self.blocks[index as usize] {
            Block::Vacant => None,
            Block::Whole { start, length, allocation } => {
                let (start, length, allocation) = (*start, *length, *allocation);
                if address != self.base + u64::from(start) * BLOCK {
                    return None;
                }
                self.pages[start as usize..(start + length) as usize].fill(0);
                self.blocks[index as usize] = Block::Vacant;
                self.spare.push(index);
                self.return_run(start, length);
                scrub(address, &allocation);
                Some((allocation, u64::from(length) * BLOCK))
            }
            Block::Shared(slab) => {
                let offset = address - self.base - u64::from(slab.start) * BLOCK;
                if !offset.is_multiple_of(slab.slot_bytes) {
                    return None;
                }
                let slot = (offset / slab.slot_bytes) as usize;
                let allocation = slab.slots.get_mut(slot)?.take()?;
                if slab.free.is_empty() {
                    self.roomy[slab.purse][slab.class].push(index);
                }
                slab.free.push(slot as u16);
                slab.live -= 1;
                let physical = if slab.live == 0 { BLOCK } else { 0 };
                scrub(address, &allocation);
                Some((allocation, physical))
            }
        }
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
                            .map(|_| begin + slot as u64 * slab.slot_bytes)
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

    fn take_run(&mut self, length: u32) -> Option<u32> {
        let reused = match self.short_runs.get_mut(length as usize) {
            Some(runs) => runs.pop(),
            None => self.long_runs.get_mut(&length).and_then(Vec::pop),
        };
        if reused.is_some() {
            return reused;
        }
        if self.fresh as usize + length as usize > self.pages.len() {
            return self.take_run_of_joined(length);
        }
        self.fresh += length;
        Some(self.fresh - length)
    }

    fn return_run(&mut self, start: u32, length: u32) {
        match self.short_runs.get_mut(length as usize) {
            Some(runs) => runs.push(start),
            None => self.long_runs.entry(length).or_default().push(start),
        }
    }

    /// All addresses were dealt out once: joins free neighbours and takes the first run that is long enough.
    #[cold]
    fn take_run_of_joined(&mut self, length: u32) -> Option<u32> {
        let short = self.short_runs.iter_mut().enumerate().map(|(length, runs)| (length as u32, runs));
        let long = self.long_runs.iter_mut().map(|(length, runs)| (*length, runs));
        let mut runs: Vec<(u32, u32)> = short
            .chain(long)
            .flat_map(|(length, runs)| runs.drain(..).map(move |start| (start, length)))
            .collect();
        runs.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(runs.len());
        for (start, length) in runs {
            match joined.last_mut() {
                Some(last) if last.0 + last.1 == start => last.1 += length,
                _ => joined.push((start, length)),
            }
        }
        let found = joined.iter().position(|run| run.1 >= length);
        let taken = found.map(|index| {
            let run = &mut joined[index];
            let start = run.0;
            *run = (start + length, run.1 - length);
            start
        });
        for (start, length) in joined.into_iter().filter(|run| run.1 > 0) {
            self.return_run(start, length);
        }
        taken
    }
}

/// Memory that is dealt out again must read zero, for tests to be repeatable.
fn scrub(address: u64, allocation: &Allocation) {
    if allocation.touched {
        bytes::zero(address, allocation.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_small_size_fits_its_class_and_no_class_wastes_more_than_a_quarter() {
        for units in 1..=2048 {
            let (class, size) = class_of(units * UNIT);
            assert!(class < CLASSES && size >= units && size * 4 <= units * 5 + 4, "{units} {class} {size}");
        }
    }
}
