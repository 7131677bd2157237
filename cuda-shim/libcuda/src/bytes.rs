//! The bytes behind simulated memory: reserving, mapping, moving, zeroing.
//!
//! # Safety
//! Addresses come in as numbers. Device addresses were checked against the heap or the map of regions by the
//! caller; host addresses are a client's word, as with the real driver. Nothing else in the library turns a
//! number into a pointer to data.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

/// Below this many bytes zeroing in place is cheaper than giving the pages back.
const SMALL: u64 = 128 << 10;
/// Page size of the host.
pub const PAGE: u64 = 4096;

fn map_anonymous(length: u64, protection: i32) -> Option<u64> {
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length as usize,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    (base != libc::MAP_FAILED).then(|| base.expose_provenance() as u64)
}

/// Host memory that reads zero and costs nothing until it is touched.
pub fn map(length: u64) -> Option<u64> {
    map_anonymous(length, libc::PROT_READ | libc::PROT_WRITE)
}

/// Addresses without memory.
pub fn reserve(length: u64) -> Option<u64> {
    map_anonymous(length, libc::PROT_NONE)
}

/// Gives back what [`map`] or [`reserve`] gave, whole or in part.
pub fn unmap(address: u64, length: u64) {
    // SAFETY: the caller owns the range and gives it up.
    unsafe { libc::munmap(std::ptr::without_provenance_mut(address as usize), length as usize) };
}

/// Puts the bytes of `file` from `offset` at reserved addresses, not yet accessible.
pub fn place_file(address: u64, length: u64, file: RawFd, offset: u64) -> bool {
    // SAFETY: replaces part of a reservation of ours.
    let placed = unsafe {
        libc::mmap(
            std::ptr::without_provenance_mut(address as usize),
            length as usize,
            libc::PROT_NONE,
            libc::MAP_SHARED | libc::MAP_FIXED,
            file,
            offset as i64,
        )
    };
    placed != libc::MAP_FAILED
}

/// Makes reserved addresses bare again.
pub fn unplace(address: u64, length: u64) {
    // SAFETY: replaces part of a reservation of ours.
    unsafe {
        libc::mmap(
            std::ptr::without_provenance_mut(address as usize),
            length as usize,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
            -1,
            0,
        )
    };
}

/// Allows or forbids access to mapped addresses.
pub fn protect(address: u64, length: u64, read: bool, write: bool) {
    let protection = if read { libc::PROT_READ } else { 0 } | if write { libc::PROT_WRITE } else { 0 };
    // SAFETY: changes the protection of a mapping of ours.
    unsafe {
        libc::mprotect(std::ptr::without_provenance_mut(address as usize), length as usize, protection)
    };
}

/// A file of `length` bytes without a name, its descriptor out of the way of programs that count theirs.
pub fn memory_file(length: u64) -> Option<RawFd> {
    // SAFETY: a valid C string; the descriptors are ours.
    unsafe {
        let low = libc::memfd_create(c"cuda-sim".as_ptr(), libc::MFD_CLOEXEC);
        if low < 0 || libc::ftruncate(low, length as i64) != 0 {
            return None;
        }
        let high = libc::fcntl(low, libc::F_DUPFD_CLOEXEC, 480);
        if high < 0 {
            return Some(low);
        }
        libc::close(low);
        Some(high)
    }
}

/// Makes device memory read zero again.
pub fn zero(address: u64, length: u64) {
    if length < SMALL {
        fill(address, length, &[0]);
        return;
    }
    let first = address.next_multiple_of(PAGE);
    let last = (address + length) / PAGE * PAGE;
    fill(address, first - address, &[0]);
    fill(last, address + length - last, &[0]);
    // SAFETY: whole pages within an anonymous private mapping of ours.
    unsafe {
        let start = std::ptr::without_provenance_mut(first as usize);
        libc::madvise(start, (last - first) as usize, libc::MADV_DONTNEED);
    }
}

/// Repeats `pattern` over `length` bytes.
pub fn fill(address: u64, length: u64, pattern: &[u8]) {
    let start: *mut u8 = std::ptr::with_exposed_provenance_mut(address as usize);
    if let [byte] = pattern {
        // SAFETY: the caller checked the range.
        unsafe { start.write_bytes(*byte, length as usize) };
        return;
    }
    for offset in (0..length as usize).step_by(pattern.len().max(1)) {
        let count = pattern.len().min(length as usize - offset);
        // SAFETY: the caller checked the range; `offset + count` stays within it.
        unsafe { start.add(offset).copy_from_nonoverlapping(pattern.as_ptr(), count) };
    }
}

/// Moves bytes; the ranges may overlap.
pub fn copy(destination: u64, source: u64, length: u64) {
    let from: *const u8 = std::ptr::with_exposed_provenance(source as usize);
    let to: *mut u8 = std::ptr::with_exposed_provenance_mut(destination as usize);
    // SAFETY: the caller checked device ranges; host ranges are the client's word.
    unsafe { to.copy_from(from, length as usize) };
}
