//! Calls that the simulation takes note of and that change nothing in it: profiling, tensor maps.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::c_void;

use crate::api::export::export;
use crate::model::world::world;
use crate::tools::ffi::{In, Out, Text};
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED};

/// Dimensions that a tensor map may have.
const RANKS: std::ops::RangeInclusive<u32> = 1..=5;

export! {
    early fn cuProfilerInitialize(config: Text, output: Text, mode: u32) {
        // Gone since CUDA 11.
        let _ = (config, output, mode);
        Err(NOT_SUPPORTED)
    }

    fn cuProfilerStart = cuProfilerStop() {
        world()?.current().map(|_| ())
    }

    fn cuFlushGPUDirectRDMAWrites(target: u32, scope: u32) {
        world()?.current()?;
        // The context itself is the only target; the scopes are its owner and all devices.
        if target == 0 && matches!(scope, 100 | 200) { Ok(()) } else { Err(INVALID_VALUE) }
    }

    fn cuTensorMapEncodeTiled(
        map: Out<[u64; 16]>, kind: u32, rank: u32, address: u64, sizes: In<u64>, strides: In<u64>, boxes: In<u32>,
        steps: In<u32>, interleave: u32, swizzle: u32, promotion: u32, fill: u32,
    ) {
        let _ = (strides, steps);
        map.required()?;
        if !RANKS.contains(&rank) || address == 0 || sizes.is_null() || boxes.is_null() {
            return Err(INVALID_VALUE);
        }
        let mut words = [0; 16];
        words[0] = address;
        words[1..][..rank as usize].copy_from_slice(&sizes.list(rank as usize)?);
        words[6..12].copy_from_slice(&[kind, rank, interleave, swizzle, promotion, fill].map(u64::from));
        map.put(words)
    }

    fn cuTensorMapReplaceAddress(map: Out<[u64; 16]>, address: *mut c_void) {
        let mut words = map.get()?;
        words[0] = address.addr() as u64;
        map.put(words)
    }
}
