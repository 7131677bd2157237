//! Blocks by address: the extent of an allocation, and its charge.

use super::{Extent, rounded};
use crate::memory::tests::{Bench, memory_at};

const MIB: u64 = 1 << 20;
const SHIFT: u32 = 21;
const BLOCK: u64 = 1 << SHIFT;

#[test]
fn an_extent_is_the_blocks_that_an_allocation_fills_and_those_that_it_shares() {
    let of = |address, bytes| {
        let Extent { whole, shared } = Extent::of(address, bytes, SHIFT);
        (whole / BLOCK, shared)
    };
    assert_eq!(of(0, BLOCK), (1, [None, None]));
    assert_eq!(of(5 * BLOCK, 3 * BLOCK), (3, [None, None]));
    assert_eq!(of(5 * BLOCK, BLOCK + 1), (1, [None, Some(6)]));
    assert_eq!(of(5 * BLOCK + 1, 1), (0, [Some(5), None]));
    assert_eq!(of(5 * BLOCK + 1, BLOCK - 1), (0, [Some(5), None]));
    assert_eq!(of(5 * BLOCK + 1, BLOCK), (0, [Some(5), Some(6)]));
    assert_eq!(of(5 * BLOCK + 1, 3 * BLOCK), (2, [Some(5), Some(8)]));
    assert_eq!(of(5 * BLOCK - 1, 2), (0, [Some(4), Some(5)]));
    assert_eq!(of(5 * BLOCK, 0), (0, [None, None]));
    // Blocks of a byte are no blocks.
    assert_eq!(Extent::of(12345, 678, 0), Extent { whole: 678, shared: [None, None] });
}

#[test]
fn a_size_is_rounded_to_whole_blocks() {
    assert_eq!([0, 1, BLOCK, BLOCK + 1].map(|bytes| rounded(bytes, SHIFT) / BLOCK), [0, 1, 1, 2]);
    assert_eq!((rounded(77, 0), rounded(u64::MAX, SHIFT)), (77, u64::MAX));
}

#[test]
fn a_shared_block_is_charged_while_any_allocation_lies_in_it() {
    let bench = Bench::new(100 * MIB);
    let memory = bench.memory();
    memory.state.accounts.blocks.set_shift(0, SHIFT);
    let device = bench.device(0);
    let free = |address: u64| {
        let key = memory_at(address);
        let holding = memory.books().accounts.holdings.remove(key).expect("it was made");
        memory.books().release(key, holding);
        bench.used(0) / BLOCK
    };
    let made = |address: u64, bytes: u64| {
        memory.adopt(device, address, bytes);
        assert_eq!(memory.books().sums_of(0).expect("few").charged, bench.used(0));
        bench.used(0) / BLOCK
    };
    // Many blocks, so that some of them want the same place in the table.
    let far = 1000 * BLOCK;
    assert_eq!(made(far, 4096), 1);
    assert_eq!(made(far + 4096, 4096), 1);
    assert_eq!(made(far + BLOCK - 512, BLOCK), 2);
    assert_eq!(made(far + 256 * BLOCK, 4096), 3);
    assert_eq!(made(far + 512 * BLOCK, 3 * BLOCK), 6);
    assert_eq!(free(far), 6);
    assert_eq!(free(far + 4096), 6);
    assert_eq!(free(far + BLOCK - 512), 4);
    assert_eq!(free(far + 512 * BLOCK), 1);
    assert_eq!(free(far + 256 * BLOCK), 0);
    assert_eq!(memory.books().sums_of(0).expect("few").charged, 0);
}
