//! nvidia-smi lists processes, and reads samples of what they do, through a private table of NVML's, not through the public
//! functions.
//!
//! An identifier selects the table. The table begins with its size in bytes, and new drivers only append to it. In the
//! drivers that we have examined (535: 245 words, 550: 251, 555: 255) its entries 213, 214 and 215 are the lists of compute,
//! graphics and MPS processes: `(device, count, records of 4,128 bytes that begin with pid and bytes)`. There the caller
//! gets a copy with our own three functions. Entry 145 gives the samples; nvidia-smi prints those of processes that the lists
//! name, so the library only has to refuse samples whose pids are not of the lists' kind. It leaves a table of any other length
//! as it is.
//!
//! # Safety
//! This file may use `unsafe` because it copies a table that NVML gave, of the length that it says, and calls its
//! entries as nvidia-smi does.
#![allow(unsafe_code)]

use super::processes::{ProcessRecord, keep_own};
use super::utilisation::sees_own_work;
use super::{SUCCESS, sys};
use crate::driver::nvml::pids;
use crate::driver::sys::undeclared;
use crate::hook::hooks;
use core::ffi::{c_uint, c_void};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use sys::{nvmlDevice_t, nvmlReturn_t};

/// The table's identifier, c4fe3e6c-c98f-6c4e-a327-ee696e12f7c4.
const IDENTIFIER: [u8; 16] = 0xc4fe3e6c_c98f_6c4e_a327_ee696e12f7c4_u128.to_be_bytes();
/// Lengths, in words, of the tables that we have examined.
const EXAMINED: [usize; 3] = [245, 251, 255];
const LONGEST: usize = 255;
/// The index of the first of the three lists.
const LISTS: usize = 213;

/// The index of the samples.
const SAMPLES: usize = 145;

/// A record: pid and bytes, and then the process's name.
#[repr(C)]
struct PrivateRecord {
    pid: c_uint,
    bytes: u64,
    rest: [u64; 514],
}

const _: () = assert!(size_of::<PrivateRecord>() == 4128);

impl ProcessRecord for PrivateRecord {
    fn pid(&self) -> c_uint {
        self.pid
    }

    fn set_bytes(&mut self, bytes: u64) {
        self.bytes = bytes;
    }
}

type Samples = unsafe extern "C" fn(nvmlDevice_t, u64, *mut c_void, *mut c_uint, *mut c_void) -> nvmlReturn_t;
type List = unsafe extern "C" fn(nvmlDevice_t, *mut c_uint, *mut PrivateRecord) -> nvmlReturn_t;

/// Our copy of the table: word 0 is the size.
static COPY: [AtomicPtr<c_void>; LONGEST] = [const { AtomicPtr::new(core::ptr::null_mut()) }; LONGEST];
/// The table that was copied; 0: none yet.
static ORIGINAL: AtomicUsize = AtomicUsize::new(0);

fn export_table(table: *mut *const c_void, identifier: *const c_void, answer: nvmlReturn_t) -> nvmlReturn_t {
    if answer != SUCCESS || table.is_null() || identifier.is_null() {
        return answer;
    }
    // SAFETY: NVML has read the one and written the other.
    let (requested, given) = unsafe { (identifier.cast::<[u8; 16]>().read_unaligned(), *table) };
    if requested == IDENTIFIER && !given.is_null() && copy(given.cast()) {
        // SAFETY: as above.
        unsafe { *table = COPY.as_ptr().cast() };
    }
    answer
}

/// Copies the table, and puts our own functions into the copy. False where the table's length is not an examined one.
fn copy(given: *const *mut c_void) -> bool {
    if ORIGINAL.load(Acquire) == given as usize {
        return true;
    }
    // SAFETY: word 0 of a table is its size.
    let words = unsafe { given.read() } as usize / size_of::<usize>();
    if !EXAMINED.contains(&words) || ORIGINAL.load(Relaxed) != 0 {
        return false;
    }
    for (at, word) in COPY.iter().enumerate().take(words) {
        // SAFETY: within the table's own length.
        word.store(unsafe { given.wrapping_add(at).read() }, Relaxed);
    }
    let ours = [list::<0> as *mut c_void, list::<1> as *mut c_void, list::<2> as *mut c_void];
    for (word, own) in COPY.iter().skip(LISTS).zip(ours) {
        word.store(own, Relaxed);
    }
    if let Some(word) = COPY.get(SAMPLES) {
        word.store(samples as *mut c_void, Relaxed);
    }
    ORIGINAL.store(given as usize, Release);
    true
}

/// The samples: calls the driver's, unless their pids may by chance be those of processes of ours.
unsafe extern "C" fn samples(
    device: nvmlDevice_t,
    last_seen: u64,
    kind: *mut c_void,
    count: *mut c_uint,
    records: *mut c_void,
) -> nvmlReturn_t {
    let original = ORIGINAL.load(Acquire) as *const *mut c_void;
    // SAFETY: the table that was copied has an examined length, and this calls its entry as the caller would have.
    unsafe {
        let _guard = crate::thread::HookGuard::enter();
        if sees_own_work(device).is_some() && !pids::of_samples_are_ours() {
            return nvmlReturn_t::NVML_ERROR_NOT_SUPPORTED;
        }
        let entry = original.wrapping_add(SAMPLES).read();
        core::mem::transmute_copy::<*mut c_void, Samples>(&entry)(device, last_seen, kind, count, records)
    }
}

/// One of the three lists: calls the driver's, and leaves the container's records.
unsafe extern "C" fn list<const WHICH: usize>(
    device: nvmlDevice_t,
    count: *mut c_uint,
    infos: *mut PrivateRecord,
) -> nvmlReturn_t {
    let original = ORIGINAL.load(Acquire) as *const *mut c_void;
    // SAFETY: the table that was copied has an examined length, and this calls its entry as the caller would have.
    unsafe {
        let entry = original.wrapping_add(LISTS.wrapping_add(WHICH)).read();
        let entry = core::mem::transmute_copy::<*mut c_void, List>(&entry);
        let answer = entry(device, count, infos);
        if answer == SUCCESS && !count.is_null() && !infos.is_null() {
            let _guard = crate::thread::HookGuard::enter();
            let entries = core::slice::from_raw_parts_mut(infos, *count as usize);
            *count = keep_own(device, entries) as c_uint;
        }
        answer
    }
}

hooks! { undeclared;
    nvmlInternalGetExportTable: fn(table: *mut *const c_void, identifier: *const c_void) -> nvmlReturn_t
        = |real| export_table(table, identifier, real());
}
