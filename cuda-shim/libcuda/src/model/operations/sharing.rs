//! Memory of other processes, by handles that programs pass around. A handle says in which process and in which
//! of its files the memory lies; as with the real driver, whoever opens it must see that process, in the same
//! PID namespace and under the same user.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use cuda_shim_device::SharedKey;

use crate::model::objects::handle::ContextHandle;
use crate::model::objects::heap::Use;
use crate::model::objects::ipc_handle::IpcHandle;
use crate::model::objects::region::{Backing, Region};
use crate::model::operations::access;
use crate::model::world::World;
use crate::tools::bytes::{self, BLOCK};
use crate::tools::status::{INVALID_CONTEXT, INVALID_VALUE, MAP_FAILED, OUT_OF_MEMORY, Outcome};

/// The first word of a handle.
const MAGIC: u64 = u64::from_le_bytes(*b"simipc\0\x01");

/// What a handle says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place {
    process: u32,
    /// The descriptor of the heap's file in that process.
    descriptor: u32,
    /// The place of the device in the machine.
    index: u64,
    inode: u64,
    offset: u64,
    length: u64,
}

impl Place {
    fn handle(&self) -> IpcHandle {
        let ids = u64::from(self.process) | u64::from(self.descriptor) << 32;
        IpcHandle::of([MAGIC, ids, self.index, self.inode, self.offset, self.length])
    }

    pub fn of(handle: &IpcHandle) -> Outcome<Place> {
        let [magic, ids, index, inode, offset, length] = handle.words();
        let place =
            Place { process: ids as u32, descriptor: (ids >> 32) as u32, index, inode, offset, length };
        if magic == MAGIC { Ok(place) } else { Err(INVALID_VALUE) }
    }

    fn key(&self) -> SharedKey {
        SharedKey { inode: self.inode, offset: self.offset }
    }

    /// The file in which the memory lies, if its process is there and may be looked into.
    fn file(&self) -> Outcome<File> {
        let path = format!("/proc/{}/fd/{}", self.process, self.descriptor);
        let file = File::options().read(true).write(true).open(path).map_err(|_| MAP_FAILED)?;
        let same = file.metadata().is_ok_and(|metadata| metadata.ino() == self.inode);
        if same { Ok(cuda_shim_device::out_of_the_way(file)) } else { Err(MAP_FAILED) }
    }
}

/// The handle of the allocation that covers `address`; from now on it may be shared.
pub fn offer(world: &mut World, address: u64) -> Outcome<IpcHandle> {
    let ordinal = access::heap_of(world, address).ok_or(INVALID_VALUE)?;
    let device = &mut world.devices[ordinal];
    let (begin, allocation) = device.heap.find(address).ok_or(INVALID_VALUE)?;
    if allocation.purpose != Use::Plain {
        return Err(INVALID_VALUE);
    }
    let (size, offered) = (allocation.size, std::mem::replace(&mut allocation.shared, true));
    // A small allocation shares its block with others: only its request moves to the shared account.
    let physical = if allocation.is_whole() { size.next_multiple_of(BLOCK) } else { 0 };
    let (file, offset) = device.heap.content(begin).ok_or(INVALID_VALUE)?;
    let place = Place {
        process: std::process::id(),
        descriptor: file.as_raw_fd() as u32,
        index: device.index as u64,
        inode: file.metadata().map_err(|_| INVALID_VALUE)?.ino(),
        offset,
        length: size,
    };
    if !offered && !world.state.memory(device.index).offer(place.key(), size, physical) {
        return Err(OUT_OF_MEMORY);
    }
    Ok(place.handle())
}

/// Lets go of an allocation of this process that others may hold.
pub fn part(world: &World, ordinal: usize, address: u64) {
    let device = &world.devices[ordinal];
    if let Some((file, offset)) = device.heap.content(address)
        && let Ok(metadata) = file.metadata()
    {
        world.state.memory(device.index).part(SharedKey { inode: metadata.ino(), offset });
    }
}

pub fn open(world: &mut World, place: &Place) -> Outcome<u64> {
    let context = world.current()?;
    if place.process == std::process::id() {
        return Err(INVALID_CONTEXT);
    }
    if let Some(start) = world.regions.open_again((place.inode, place.offset)) {
        return Ok(start);
    }
    let found = world.devices.iter().position(|device| device.index as u64 == place.index);
    let ordinal = found.ok_or(INVALID_VALUE)?;
    let file = place.file()?;
    if !world.state.memory(world.devices[ordinal].index).join(place.key()) {
        return Err(INVALID_VALUE);
    }
    let backing =
        Backing::Opened { ordinal, inode: place.inode, offset: place.offset, times: 1, lent: false };
    let attached = attach(world, &file, place.length, context, backing);
    if attached.is_err() {
        world.state.memory(world.devices[ordinal].index).part(place.key());
    }
    attached
}

/// Puts memory of another process, `length` bytes of a file from the offset that `backing` says, behind addresses.
pub fn attach(
    world: &mut World,
    file: &File,
    length: u64,
    context: ContextHandle,
    backing: Backing,
) -> Outcome<u64> {
    let Backing::Opened { offset, .. } = backing else { return Err(INVALID_VALUE) };
    // What is mapped begins and ends with pages; what is answered is the allocation.
    let lead = offset % BLOCK;
    let whole = (lead + length).next_multiple_of(BLOCK);
    let base = world.space.take(whole, BLOCK).ok_or(OUT_OF_MEMORY)?;
    if !bytes::back(base, whole, file, offset - lead) {
        world.space.give(base, whole);
        return Err(MAP_FAILED);
    }
    let start = base + lead;
    world.regions.add(Region { start, length, context, backing });
    Ok(start)
}

/// Lets go of memory of another process once, for good after the last time that it was opened.
pub fn close(world: &mut World, address: u64) -> Outcome {
    let region = *world.regions.at(address).ok_or(INVALID_VALUE)?;
    let Backing::Opened { ordinal, inode, offset, times, lent } = region.backing else {
        return Err(INVALID_VALUE);
    };
    if times > 1 {
        let backing = Backing::Opened { ordinal, inode, offset, times: times - 1, lent };
        world.regions.add(Region { backing, ..region });
        return Ok(());
    }
    world.regions.remove(address);
    let base = address - address % BLOCK;
    let whole = (address - base + region.length).next_multiple_of(BLOCK);
    bytes::unback(base, whole);
    world.space.give(base, whole);
    // Memory of a pool stays with whoever has opened the pool.
    if !lent {
        world.state.memory(world.devices[ordinal].index).part(SharedKey { inode, offset });
    }
    Ok(())
}

/// Closes what was opened in a context.
pub fn close_all(world: &mut World, context: ContextHandle) {
    for region in world.regions.of(context) {
        if let Backing::Opened { ordinal, inode, offset, lent, .. } = region.backing {
            let backing = Backing::Opened { ordinal, inode, offset, times: 1, lent };
            world.regions.add(Region { backing, ..region });
            let _ = close(world, region.start);
        }
    }
}
