//! Pools whose memory other processes reach. The pool's own process pays for it. What others have opened stays on the device when
//! that process has freed it or ended, until they destroy the pool or end, and is in nobody's figure (an H200, driver 580).

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use cuda_shim_device::SharedKey;

use crate::model::objects::handle::PoolHandle;
use crate::model::objects::heap::Use;
use crate::model::objects::ipc_handle::IpcHandle;
use crate::model::objects::region::Backing;
use crate::model::operations::{access, sharing};
use crate::model::world::World;
use crate::tools::bytes::BLOCK;
use crate::tools::status::{INVALID_VALUE, OUT_OF_MEMORY, Outcome};

/// The first word of an exported allocation.
const MAGIC: u64 = u64::from_le_bytes(*b"simpool\x01");

fn inode_of(file: &File) -> Outcome<u64> {
    file.metadata().map(|metadata| metadata.ino()).map_err(|_| INVALID_VALUE)
}

/// Closes an allocation of another process's pool that begins at `address`; `None` if there is none.
pub fn give_back_lent(world: &mut World, address: u64) -> Option<Outcome> {
    let backing = world.regions.at(address)?.backing;
    matches!(backing, Backing::Opened { lent: true, .. }).then(|| sharing::close(world, address))
}

pub fn export_allocation(world: &mut World, address: u64) -> Outcome<IpcHandle> {
    let ordinal = access::heap_of(world, address).ok_or(INVALID_VALUE)?;
    let device = &mut world.devices[ordinal];
    let (begin, allocation) = device.heap.find(address).ok_or(INVALID_VALUE)?;
    let (size, purpose, offered) = (allocation.size, allocation.purpose, allocation.shared);
    let Use::Pool(pool) = purpose else { return Err(INVALID_VALUE) };
    if begin != address || world.pools.get(pool)?.handle_types == 0 {
        return Err(INVALID_VALUE);
    }
    allocation.shared = true;
    let (file, offset) = device.heap.content(begin).ok_or(INVALID_VALUE)?;
    let inode = inode_of(file)?;
    if !offered {
        let physical = size.next_multiple_of(BLOCK);
        let key = SharedKey { inode, offset };
        if !world.state.memory(device.index).offer_pooled(key, physical) {
            return Err(OUT_OF_MEMORY);
        }
    }
    Ok(IpcHandle::of([MAGIC, inode, offset, size, 0, 0]))
}

pub fn import_allocation(world: &mut World, handle: PoolHandle, data: &IpcHandle) -> Outcome<u64> {
    let context = world.current()?;
    let [magic, inode, offset, length, ..] = data.words();
    let pool = world.pools.get(handle)?;
    let (ordinal, file) = (pool.device, pool.lender.as_ref().ok_or(INVALID_VALUE)?);
    if magic != MAGIC || inode_of(file)? != inode {
        return Err(INVALID_VALUE);
    }
    if let Some(start) = world.regions.open_again((inode, offset)) {
        return Ok(start);
    }
    let file = file.try_clone().map_err(|_| OUT_OF_MEMORY)?;
    let key = SharedKey { inode, offset };
    if !world.state.memory(world.devices[ordinal].index).join(key) {
        return Err(INVALID_VALUE);
    }
    world.pools.get_mut(handle)?.borrowed.push(key);
    let backing = Backing::Opened { ordinal, inode, offset, times: 1, lent: true };
    sharing::attach(world, &file, length, context, backing)
}
