//! Pools whose memory other processes reach: a pool goes over as a file descriptor, its allocations one by one as data that
//! programs pass around. The pool's own process pays for it, and is asked to free last.
//!
//! # Safety
//! Exports symbols; takes over descriptors that a caller hands out and in.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};

use crate::api::export::export;
use crate::model::objects::handle::PoolHandle;
use crate::model::objects::heap::index_in;
use crate::model::objects::ipc_handle::IpcHandle;
use crate::model::objects::pool::Pool;
use crate::model::operations::lending;
use crate::model::operations::physicals::FILE_DESCRIPTOR;
use crate::model::world::world;
use crate::tools::ffi::{In, Out};
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY};

export! {
    fn cuMemPoolExportToShareableHandle(out: Out<i32>, handle: PoolHandle, kind: u32, flags: u64) {
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

    fn cuMemPoolImportFromShareableHandle(out: Out<PoolHandle>, descriptor: usize, kind: u32, flags: u64) {
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
        let index = index_in(&label).ok_or(INVALID_VALUE)?;
        let ordinal = world.devices.iter().position(|device| device.index == index).ok_or(INVALID_VALUE)?;
        let pool = Pool::of_lender(ordinal, cuda_shim_device::out_of_the_way(file));
        out.put(world.pools.add(pool))
    }

    fn cuMemPoolExportPointer(out: Out<IpcHandle>, address: u64) {
        out.required()?;
        out.put(lending::export_allocation(&mut *world()?, address)?)
    }

    fn cuMemPoolImportPointer(out: Out<u64>, pool: PoolHandle, data: In<IpcHandle>) {
        out.required()?;
        let data = data.get()?;
        out.put(lending::import_allocation(&mut *world()?, pool, &data)?)
    }
}
