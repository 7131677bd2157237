//! The cache of handles.
//!
//! # Safety
//! These tests may use `unsafe` because all-zero bytes are an empty table.
#![allow(unsafe_code)]

use super::{CAPACITY, Handles};
use std::boxed::Box;

fn empty() -> Box<Handles> {
    // SAFETY: all-zero bytes are an empty table.
    unsafe { Box::new(core::mem::zeroed()) }
}

#[test]
fn a_handle_is_found_until_it_is_removed() {
    let handles = empty();
    handles.insert(0xabc, 0);
    handles.insert(0xdef, 31);
    assert_eq!((handles.get(0xabc), handles.get(0xdef), handles.get(1)), (Some(0), Some(31), None));
    handles.remove(0xabc);
    assert_eq!((handles.get(0xabc), handles.get(0xdef)), (None, Some(31)));
    // The driver may reuse the handle for another device.
    handles.insert(0xabc, 5);
    assert_eq!(handles.get(0xabc), Some(5));
}

#[test]
fn the_first_insertion_of_a_handle_holds() {
    let handles = empty();
    handles.insert(7, 1);
    handles.insert(7, 2);
    assert_eq!(handles.get(7), Some(1));
    // A handle takes one entry, however often it is inserted.
    (0..CAPACITY).for_each(|_| handles.insert(7, 1));
    handles.insert(8, 3);
    assert_eq!(handles.get(8), Some(3));
    handles.remove(7);
    assert_eq!(handles.get(7), None);
}

#[test]
fn zero_is_never_found() {
    let handles = empty();
    handles.insert(0, 3);
    handles.insert(9, 4);
    handles.remove(0);
    assert_eq!((handles.get(0), handles.get(9)), (None, Some(4)));
}

#[test]
fn a_full_table_takes_no_further_handle_and_loses_none() {
    let handles = empty();
    let all = 1..=CAPACITY as u64;
    all.clone().for_each(|handle| handles.insert(handle, handle as u8));
    handles.insert(1000, 1);
    assert_eq!(handles.get(1000), None);
    assert!(all.clone().all(|handle| handles.get(handle) == Some(handle as u8)));
    handles.remove(20);
    handles.insert(1000, 1);
    assert_eq!((handles.get(20), handles.get(1000)), (None, Some(1)));
}

#[test]
fn threads_that_meet_handles_at_once_find_each_of_them() {
    let handles = empty();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let handles = &handles;
            scope.spawn(move || {
                for handle in (0..8).map(|index| 1 + thread * 8 + index) {
                    handles.insert(handle, handle as u8);
                    assert_eq!(handles.get(handle), Some(handle as u8));
                }
            });
        }
    });
    assert!((1..=32).all(|handle| handles.get(handle) == Some(handle as u8)));
}
