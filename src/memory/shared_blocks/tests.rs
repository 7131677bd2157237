//! The counts of allocations in blocks, compared with a map.
//!
//! # Safety
//! This file may use `unsafe` because all-zero bytes are no blocks.
#![allow(unsafe_code)]

use super::*;
use std::boxed::Box;
use std::collections::BTreeMap;

fn empty() -> (Box<SharedBlocks>, Box<Holdings>) {
    // SAFETY: all-zero bytes are no blocks.
    (unsafe { Box::new(core::mem::zeroed()) }, crate::memory::holdings::tests::empty())
}

#[test]
fn the_first_allocation_pays_and_the_last_one_gives_back() {
    let (blocks, holdings) = empty();
    let mut model = BTreeMap::<u64, u64>::new();
    let mut seed = 7u64;
    for step in 0..20_000u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Few numbers, many of which want the same place; some do not fit into an entry of one word.
        let block = match seed >> 60 {
            15 => (seed >> 40 & 3) + (1 << 40),
            _ => 1 + (seed >> 40 & 7) * 256 + (seed >> 50 & 3),
        };
        let payer = Payer { device: (block % 3) as u8, journal: (block % 29) as u8 };
        let count = model.entry(block).or_default();
        if seed >> 33 & 1 == 0 {
            let joined = blocks.join(&holdings, block);
            assert_eq!(joined, *count > 0, "step {step}");
            if !joined {
                assert_eq!(blocks.enter(&holdings, block, 2 << 20, payer).ok(), Some(true), "step {step}");
            }
            *count += 1;
        } else if *count > 0 {
            *count -= 1;
            let left = blocks.leave(&holdings, block);
            assert_eq!(left, (*count == 0).then_some(payer), "step {step}");
        }
        assert_eq!(blocks.any(), model.values().any(|count| *count > 0));
    }
}

#[test]
fn threads_that_share_blocks_pay_for_each_once() {
    let (blocks, holdings) = empty();
    let paid = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (blocks, holdings, paid) = (&blocks, &holdings, &paid);
            scope.spawn(move || {
                let payer = Payer { device: 0, journal: thread as u8 };
                for round in 0..if cfg!(miri) { 50 } else { 20_000 } {
                    let block = round % 3;
                    match blocks.join(holdings, block)
                        || blocks.enter(holdings, block, 1, payer).ok() == Some(false)
                    {
                        true => {}
                        false => _ = paid.fetch_add(1, Relaxed),
                    }
                    if blocks.leave(holdings, block).is_some() {
                        paid.fetch_sub(1, Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!((paid.load(Relaxed), blocks.any(), blocks.count_of(0)), (0, false, 0));
}
