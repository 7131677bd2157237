//! The answer to libcudart's integrity question: a keyed hash over what it can see of the driver.
//!
//! The hash is HMAC (RFC 2104) over MD2. Key and constants are facts published by ZLUDA; see the crate's head.
//!
//! # Safety
//! Asks the C library for the calling thread's number.
#![allow(unsafe_code)]

use core::ffi::c_void;

use crate::driver::Identity;
use crate::md2::hmac_md2;

const KEY: [u8; 16] = 0x146addae_53a9a752_aa084136_0bf55a9f_u128.to_be_bytes();

/// The fixed answers to the questions whose version ends in 0 and 1.
const FIRST: [u8; 16] = 0x8ed383aa_1f4cd1e8_3341181c_03cb675c_u128.to_le_bytes();
const SECOND: [u8; 16] = 0x8ed383aa_1f4cd1e8_1841181c_03cb675c_u128.to_le_bytes();

/// What is asked, and through which doors.
pub struct Question {
    /// The runtime's version plus 0, 1 or 2.
    pub version: u32,
    /// Seconds since 1970, as the asker sees them.
    pub seconds: u64,
    /// Where the asker got the table CUDART_INTERFACE.
    pub cudart_interface: *const c_void,
    /// Where it got the table INTEGRITY_CHECK.
    pub integrity_check: *const c_void,
    /// The entry of that table that it called.
    pub entry: *const c_void,
}

/// The answer of a driver of this version that shows these devices, in the calling thread.
pub fn answer(question: &Question, driver_version: u32, devices: &[Identity]) -> [u8; 16] {
    match question.version % 10 {
        0 => return FIRST,
        1 => return SECOND,
        _ => {}
    }
    let mut message = Vec::with_capacity(48 + devices.len() * 28);
    for word in [driver_version, question.version, std::process::id(), thread()] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    for address in [question.cudart_interface, question.integrity_check, question.entry] {
        message.extend_from_slice(&address.addr().to_ne_bytes());
    }
    message.extend_from_slice(&question.seconds.to_ne_bytes());
    for device in devices {
        message.extend_from_slice(&device.uuid);
        for number in device.pci {
            message.extend_from_slice(&number.to_ne_bytes());
        }
    }
    hmac_md2(&KEY, &message)
}

/// The low half of what pthread_self tells: that is all that goes into the hash.
fn thread() -> u32 {
    // SAFETY: pthread_self has no conditions.
    let id = unsafe { libc::pthread_self() };
    id as u32
}
