//! A process's numbers of devices, and the lower of two limits.
//!
//! # Safety
//! These tests may use `unsafe` because all-zero bytes are valid: a process that has met no device.
#![allow(unsafe_code)]

use super::{BY_UUID, Devices, ORDINALS, effective_limit};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::boxed::Box;
use std::string::String;
use std::vec::Vec;

/// The entries that CUDA_VISIBLE_DEVICES gives the first ordinals: index + 1, `BY_UUID`, or 0 for none.
fn read(value: Option<&str>, count: usize) -> Vec<u8> {
    // SAFETY: all-zero bytes are valid.
    let devices: Box<Devices> = unsafe { Box::new(core::mem::zeroed()) };
    devices.read_visible(value.map(str::as_bytes));
    devices.visible.iter().take(count).map(|visible| visible.load(Relaxed)).collect()
}

#[test]
fn numbers_and_names_are_taken_in_their_order() {
    assert_eq!(read(Some("2,0"), 3), [3, 1, 0]);
    assert_eq!(read(Some(" 1 , 3 "), 3), [2, 4, 0]);
    assert_eq!(read(Some("GPU-8932f937,1,MIG-x"), 4), [BY_UUID, 2, BY_UUID, 0]);
}

#[test]
fn an_unset_or_empty_variable_gives_no_entry() {
    assert_eq!(read(None, 2), [0, 0]);
    assert_eq!(read(Some(""), 2), [0, 0]);
}

#[test]
fn the_list_ends_where_cuda_ends_it() {
    assert_eq!(read(Some("1,-1,2"), 3), [2, 0, 0]);
    assert_eq!(read(Some("1,,2"), 3), [2, 0, 0]);
    assert_eq!(read(Some("NoDevFiles"), 2), [0, 0]);
    assert_eq!(read(Some("0x1"), 2), [0, 0]);
    assert_eq!(read(Some("1,300,2"), 3), [2, 0, 0]);
}

#[test]
fn entries_beyond_the_table_are_left_off() {
    let all: String = (0..100).map(|_| "5,").collect();
    assert_eq!(read(Some(&all), ORDINALS), [6; ORDINALS]);
}

#[test]
fn the_lower_of_two_limits_holds() {
    let ceilings = core::array::from_fn(|at| AtomicU64::new([0, 1, 101].get(at).copied().unwrap_or(0)));
    assert_eq!(effective_limit(0, &ceilings, 0), None);
    assert_eq!(effective_limit(50, &ceilings, 0), Some(50));
    // A ceiling of nothing is one.
    assert_eq!(effective_limit(50, &ceilings, 1), Some(0));
    assert_eq!(effective_limit(0, &ceilings, 1), Some(0));
    assert_eq!(effective_limit(50, &ceilings, 2), Some(50));
    assert_eq!(effective_limit(500, &ceilings, 2), Some(100));
    assert_eq!(effective_limit(0, &ceilings, 2), Some(100));
}
