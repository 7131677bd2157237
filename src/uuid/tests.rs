//! UUIDs as NVML writes them.
//!
//! # Safety
//! These tests may use `unsafe` because all-zero bytes are an empty record.
#![allow(unsafe_code)]

use super::Uuid;
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_region::layout::{Device, UUID_BYTES};
use std::boxed::Box;

const BYTES: [u8; 16] =
    [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

fn uuid(prefix: &str) -> Uuid {
    let mut uuid = Uuid::default();
    uuid.push(prefix.as_bytes());
    uuid.push_groups(&BYTES);
    uuid
}

fn record(uuid: &Uuid) -> Box<Device> {
    // SAFETY: all-zero bytes are an empty record.
    let record: Box<Device> = unsafe { Box::new(core::mem::zeroed()) };
    record.uuid.iter().zip(uuid.words()).for_each(|(stored, word)| stored.store(word, Relaxed));
    record
}

#[test]
fn sixteen_bytes_are_written_in_groups_as_nvml_writes_them() {
    let uuid = uuid("GPU-");
    assert_eq!(uuid.text(), b"GPU-00112233-4455-6677-8899-aabbccddeeff");
    assert_eq!(uuid.as_c_str(), c"GPU-00112233-4455-6677-8899-aabbccddeeff");
}

#[test]
fn an_index_replaces_a_missing_uuid_with_two_digits() {
    for (index, text) in [(0, &b"CUDA-ordinal-00"[..]), (7, b"CUDA-ordinal-07"), (31, b"CUDA-ordinal-31")] {
        let mut uuid = Uuid::default();
        uuid.push_index(index);
        assert_eq!(uuid.text(), text);
    }
}

#[test]
fn a_record_gives_the_text_back_that_was_written() {
    for written in [uuid("GPU-"), uuid("MIG-"), uuid("")] {
        let read = Uuid::of(&record(&written));
        assert_eq!(read.text(), written.text());
        assert!(read.matches(&record(&written)));
    }
}

#[test]
fn an_instance_matches_the_device_with_its_number() {
    let (whole, instance) = (uuid("GPU-"), uuid("MIG-"));
    assert!(instance.is_instance() && !whole.is_instance());
    assert_eq!(whole.as_mig().text(), instance.text());
    assert!(whole.matches(&record(&instance)) && instance.matches(&record(&whole)));
    let mut other = uuid("GPU-");
    other.bytes[30] ^= 1;
    assert!(!other.matches(&record(&whole)));
}

#[test]
fn a_text_that_does_not_fit_is_cut() {
    let mut uuid = Uuid::default();
    uuid.push(&[b'x'; UUID_BYTES + 20]);
    uuid.push(b"more");
    assert_eq!(uuid.text(), [b'x'; UUID_BYTES]);
    assert_eq!(uuid.words().count(), UUID_BYTES / 8);
    // The text leaves no space for the NUL that C needs.
    assert_eq!(uuid.as_c_str(), c"");
    assert_eq!(Uuid::default().as_mig().text(), b"MIG");
}
