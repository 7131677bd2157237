//! The bytes behind simulated memory: reserving addresses, backing them, moving, zeroing.
//!
//! Device addresses are one reservation, the arena, that no client can read or write, as no host reaches a
//! device's memory by its address. The driver sees the same bytes through a view of its own, as far behind the
//! address as the arena is long. Memory that host and device share is mapped at the address itself as well.
//! Behind device memory lie files without names, which can be at several addresses and in several processes.
//!
//! # Safety
//! Addresses come in as numbers. Device addresses were checked against the heap or the map of regions by the
//! caller; host addresses are a client's word, as with the real driver. Nothing else in the library turns a
//! number into a pointer to data.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The driver's block, and the granularity of everything large.
pub const BLOCK: u64 = 2 << 20;

/// Below this many bytes zeroing in place is cheaper than giving the pages back.
const SMALL: u64 = 128 << 10;

/// Page size of the host.
pub const PAGE: u64 = 4096;

/// Start and length of the arena. Both are stored before the driver is published, and never again.
static ARENA: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn pointer(address: u64) -> *mut libc::c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// A mapping: of `file` from an offset, or of nothing.
fn map_at(address: Option<u64>, length: u64, protection: i32, file: Option<(&File, u64)>) -> Option<u64> {
    let kind = match file {
        Some(_) => libc::MAP_SHARED,
        None => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    };
    let place = if address.is_some() { libc::MAP_FIXED } else { 0 };
    let (descriptor, offset) = file.map_or((-1, 0), |(file, offset)| (file.as_raw_fd(), offset));
    // SAFETY: a fresh mapping at an address of the kernel's choice, or in the arena, which is the driver's.
    let base = unsafe {
        libc::mmap(
            pointer(address.unwrap_or(0)),
            length as usize,
            protection,
            kind | place | libc::MAP_NORESERVE,
            descriptor,
            offset as i64,
        )
    };
    if base == libc::MAP_FAILED {
        return None;
    }
    if place != 0 {
        // A forked child has no device, and copies of its pages would cost the fork.
        // SAFETY: the range was just mapped.
        unsafe { libc::madvise(base, length as usize, libc::MADV_DONTFORK) };
    }
    Some(base.expose_provenance() as u64)
}

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Host memory that reads zero and costs nothing until it is touched.
pub fn map(length: u64) -> Option<u64> {
    map_at(None, length, READ_WRITE, None)
}

/// Gives back what [`map`] gave.
pub fn unmap(address: u64, length: u64) {
    // SAFETY: the caller owns the range and gives it up.
    unsafe { libc::munmap(pointer(address), length as usize) };
}

/// Reserves the arena: `length` addresses for clients and as many for the driver's view of them.
pub fn reserve_arena(length: u64) -> Option<u64> {
    let base = map_at(None, 2 * length + BLOCK, libc::PROT_NONE, None)?;
    let start = base.next_multiple_of(BLOCK);
    ARENA[1].store(length, Relaxed);
    ARENA[0].store(start, Relaxed);
    Some(start)
}

/// Where the driver sees the bytes of an address.
#[inline]
fn view(address: u64) -> u64 {
    let [start, length] = &ARENA;
    let length = length.load(Relaxed);
    if address.wrapping_sub(start.load(Relaxed)) < length { address + length } else { address }
}

/// A file of `length` bytes without a name but for `label`, its descriptor out of the way of programs that count
/// theirs.
pub fn memory_file(label: &str, length: u64) -> Option<File> {
    let label = std::ffi::CString::new(label).ok()?;
    // SAFETY: a valid C string; the descriptor is fresh.
    let low = unsafe { libc::memfd_create(label.as_ptr(), libc::MFD_CLOEXEC) };
    if low < 0 {
        return None;
    }
    // SAFETY: `low` was just created and belongs to nobody else.
    let file = cuda_shim_device::out_of_the_way(unsafe { File::from_raw_fd(low) });
    file.set_len(length).ok()?;
    Some(file)
}

/// Copies `length` bytes of `from`, beginning at `offset`, to the start of `to`; holes stay holes.
pub fn copy_file(from: &File, offset: u64, length: u64, to: &File) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let seek = |position: u64, whence: i32| {
        // SAFETY: moves the offset of a descriptor of ours that nobody else uses.
        let found = unsafe { libc::lseek(from.as_raw_fd(), position as i64, whence) };
        u64::try_from(found).unwrap_or(u64::MAX)
    };
    let (end, mut page) = (offset + length, vec![0; BLOCK as usize]);
    let mut next = seek(offset, libc::SEEK_DATA);
    while next < end {
        let hole = seek(next, libc::SEEK_HOLE).min(end);
        while next < hole {
            let count = (hole - next).min(BLOCK) as usize;
            from.read_exact_at(&mut page[..count], next)?;
            to.write_all_at(&page[..count], next - offset)?;
            next += count as u64;
        }
        next = seek(hole, libc::SEEK_DATA);
    }
    Ok(())
}

/// Puts the bytes of `file` from `offset` behind addresses of the arena.
pub fn back(address: u64, length: u64, file: &File, offset: u64) -> bool {
    map_at(Some(view(address)), length, READ_WRITE, Some((file, offset))).is_some()
}

/// Puts them at the addresses themselves as well, for the host.
pub fn show(address: u64, length: u64, file: &File, offset: u64) -> bool {
    map_at(Some(address), length, READ_WRITE, Some((file, offset))).is_some()
}

/// Takes away what [`show`] gave.
pub fn hide(address: u64, length: u64) {
    map_at(Some(address), length, libc::PROT_NONE, None);
}

/// Takes away what [`back`] and [`show`] gave.
pub fn unback(address: u64, length: u64) {
    map_at(Some(view(address)), length, libc::PROT_NONE, None);
    hide(address, length);
}

/// Makes device memory read zero again.
pub fn zero(address: u64, length: u64) {
    if length < SMALL {
        return set(address, length, 0);
    }
    let first = address.next_multiple_of(PAGE);
    let last = (address + length) / PAGE * PAGE;
    set(address, first - address, 0);
    set(last, address + length - last, 0);
    // SAFETY: whole pages of the driver's view, which are shared mappings of files.
    let gone =
        unsafe { libc::madvise(pointer(view(first)), (last - first) as usize, libc::MADV_REMOVE) } == 0;
    if !gone {
        set(first, last - first, 0);
    }
}

fn set(address: u64, length: u64, byte: u8) {
    // SAFETY: the caller checked the range.
    unsafe { pointer(view(address)).cast::<u8>().write_bytes(byte, length as usize) };
}

/// Repeats `pattern` over `length` bytes.
pub fn fill(address: u64, length: u64, pattern: &[u8]) {
    match pattern {
        [0] if view(address) != address => zero(address, length),
        [byte] => set(address, length, *byte),
        _ => {
            let start = pointer(view(address)).cast::<u8>();
            for offset in (0..length as usize).step_by(pattern.len().max(1)) {
                let count = pattern.len().min(length as usize - offset);
                // SAFETY: the caller checked the range; `offset + count` stays within it.
                unsafe { start.add(offset).copy_from_nonoverlapping(pattern.as_ptr(), count) };
            }
        }
    }
}

/// The word at an address that is aligned to it.
fn word_at(address: u64) -> &'static AtomicU64 {
    // SAFETY: the caller checked the word, which stays mapped for as long as the world is locked, and its alignment.
    unsafe { AtomicU64::from_ptr(pointer(view(address)).cast()) }
}

/// Reads an aligned word of device memory.
pub fn word(address: u64) -> u64 {
    word_at(address).load(Relaxed)
}

/// Writes one.
pub fn put_word(address: u64, value: u64) {
    word_at(address).store(value, Relaxed);
}

/// Adds one to one, as a kernel's `atomicAdd` does, and answers what it was.
pub fn count(address: u64) -> u64 {
    word_at(address).fetch_add(1, Relaxed)
}

/// Moves bytes; the ranges may overlap.
pub fn copy(destination: u64, source: u64, length: u64) {
    let from = pointer(view(source)).cast::<u8>().cast_const();
    let to = pointer(view(destination)).cast::<u8>();
    // SAFETY: the caller checked device ranges; host ranges are the client's word.
    unsafe { to.copy_from(from, length as usize) };
}
