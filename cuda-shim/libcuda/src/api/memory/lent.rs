//! Pools whose memory other processes reach: a pool goes over as a file descriptor, its allocations one by one as data that
//! programs pass around. The pool's own process pays for it, and is asked to free last.
//!
//! # Safety
//! Exports symbols; takes over descriptors that a caller hands out and in.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;

use crate::abi::IpcHandle;
use crate::ffi::{In, Out, Outcome, export};
use crate::heap::Use;
use crate::memory::physical::FILE_DESCRIPTOR;
use crate::memory::pool::Pool;
use crate::memory::region::Backing;
use crate::status::{INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY};
use crate::table::Handle;
use crate::world::{World, world};

/// The first word of an exported allocation.
const MAGIC: u64 = u64::from_le_bytes(*b"simpool\x01");

fn inode_of(file: &File) -> Outcome<u64> {
    file.metadata().map(|metadata| metadata.ino()).map_err(|_| INVALID_VALUE)
}

impl World {
    /// Closes an allocation of another process's pool that begins at `address`; `None` if there is none.
    pub fn give_back_lent(&mut self, address: u64) -> Option<Outcome> {
        let backing = self.regions.at(address)?.backing;
        matches!(backing, Backing::Opened { lent: true, .. }).then(|| self.close(address))
    }

    fn export_allocation(&mut self, address: u64) -> Outcome<IpcHandle> {
        let ordinal = self.heap_of(address).ok_or(INVALID_VALUE)?;
        let heap = &mut self.devices[ordinal].heap;
        let (begin, allocation) = heap.find(address).ok_or(INVALID_VALUE)?;
        let (size, purpose) = (allocation.size, allocation.purpose);
        let Use::Pool(pool) = purpose else { return Err(INVALID_VALUE) };
        let (file, offset) = heap.content(begin).ok_or(INVALID_VALUE)?;
        let inode = inode_of(file)?;
        if begin != address || self.pools.get(pool)?.handle_types == 0 {
            return Err(INVALID_VALUE);
        }
        Ok(IpcHandle::of([MAGIC, inode, offset, size, 0, 0]))
    }

    fn import_allocation(&mut self, pool: Handle<Pool>, data: &IpcHandle) -> Outcome<u64> {
        let context = self.current()?;
        let [magic, inode, offset, length, ..] = data.words();
        let pool = self.pools.get(pool)?;
        let (ordinal, file) = (pool.device, pool.lender.as_ref().ok_or(INVALID_VALUE)?);
        if magic != MAGIC || inode_of(file)? != inode {
            return Err(INVALID_VALUE);
        }
        if let Some(start) = self.regions.open_again((inode, offset)) {
            return Ok(start);
        }
        let file = file.try_clone().map_err(|_| OUT_OF_MEMORY)?;
        let backing = Backing::Opened { ordinal, inode, offset, times: 1, lent: true };
        self.attach(&file, length, context, backing)
    }
}

export! {
    fn cuMemPoolExportToShareableHandle(out: Out<i32>, handle: Handle<Pool>, kind: u32, flags: u64) {
        out.required()?;
        let mut world = world()?;
        let pool = world.pools.get(handle)?;
        if kind != FILE_DESCRIPTOR || pool.handle_types & kind == 0 || pool.lender.is_some() || flags != 0 {
            return Err(INVALID_VALUE);
        }
        let ordinal = pool.device;
        let heap = &mut world.devices[ordinal].heap;
        heap.open().ok_or(OUT_OF_MEMORY)?;
        let file = heap.file().ok_or(OUT_OF_MEMORY)?;
        // The descriptor is the caller's, who closes it.
        out.put(file.try_clone().map_err(|_| OUT_OF_MEMORY)?.into_raw_fd())
    }

    fn cuMemPoolImportFromShareableHandle(out: Out<Handle<Pool>>, descriptor: usize, kind: u32, flags: u64) {
        out.required()?;
        let mut world = world()?;
        let descriptor = i32::try_from(descriptor).ok().filter(|number| *number >= 0).ok_or(INVALID_VALUE)?;
        if kind != FILE_DESCRIPTOR {
            return Err(NOT_SUPPORTED);
        }
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        // SAFETY: borrowed for the copy only; a number that is no descriptor makes the copy fail.
        let theirs = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let file = File::from(theirs.try_clone_to_owned().map_err(|_| INVALID_VALUE)?);
        let label = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let label = label.map_err(|_| INVALID_VALUE)?.to_string_lossy().into_owned();
        let index = crate::heap::index_in(&label).ok_or(INVALID_VALUE)?;
        let ordinal = world.devices.iter().position(|device| device.index == index).ok_or(INVALID_VALUE)?;
        let pool = Pool::of_lender(ordinal, cuda_shim_device::out_of_the_way(file));
        out.put(world.pools.add(pool))
    }

    fn cuMemPoolExportPointer(out: Out<IpcHandle>, address: u64) {
        out.required()?;
        out.put(world()?.export_allocation(address)?)
    }

    fn cuMemPoolImportPointer(out: Out<u64>, pool: Handle<Pool>, data: In<IpcHandle>) {
        out.required()?;
        let data = data.get()?;
        out.put(world()?.import_allocation(pool, &data)?)
    }
}
