//! Device memory: what programs ask for by itself, who owns an address, what of it may be written.
//!
//! Rooms: [`region`] knows the addresses outside the heaps and [`space`] deals them out, [`pool`] is
//! stream-ordered memory, [`physical`] memory behind handles, which [`vmm`] maps, [`ipc`] is memory of other
//! processes, [`managed`] is reached by the host too, [`host`] is pinned memory, [`copy`] and [`fill`] move
//! and set bytes, [`pointer`] answers what a pointer is.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

pub mod copy;
pub mod fill;
pub mod host;
mod ipc;
mod lent;
mod managed;
pub mod physical;
mod pointer;
pub mod pool;
pub mod region;
pub mod space;
pub mod vmm;

use crate::bytes;
use crate::capture;
use crate::context::Context;
use crate::ffi::{Out, Outcome, export};
use crate::heap::{Allocation, REACH, Spot, UNIT, Use};
use crate::memory::region::Backing;
use crate::status::{INVALID_VALUE, OUT_OF_MEMORY};
use crate::table::Handle;
use crate::world::{World, world};

/// An allocation that was looked for.
pub struct Found {
    ordinal: usize,
    spot: Spot,
    context: Handle<Context>,
    purpose: Use,
}

impl World {
    /// The ordinal of the device whose heap deals out `address`.
    #[inline]
    pub fn heap_of(&self, address: u64) -> Option<usize> {
        // Heaps lie one behind the other, in the order of their devices.
        let offset = address.checked_sub(self.devices.first()?.heap.base())?;
        let ordinal = (offset / REACH) as usize;
        (ordinal < self.devices.len()).then_some(ordinal)
    }

    /// Places and charges `size` bytes of a device that live and die with `context`.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`; nothing is charged then.
    #[inline(always)]
    pub fn allocate(
        &mut self,
        ordinal: usize,
        size: u64,
        context: Handle<Context>,
        purpose: Use,
    ) -> Outcome<u64> {
        let placed = self.devices[ordinal].heap.place(size, context, purpose, 0).ok_or(OUT_OF_MEMORY)?;
        if let Err(status) = self.charge_or_trim(ordinal, size, placed.physical) {
            self.devices[ordinal].heap.remove(placed.address);
            return Err(status);
        }
        Ok(placed.address)
    }

    /// Charges memory, once more after the pools of the device gave back what they do not use.
    #[inline(always)]
    pub fn charge_or_trim(&mut self, ordinal: usize, requested: u64, physical: u64) -> Outcome {
        match self.charge(ordinal, requested, physical) {
            Ok(()) => Ok(()),
            Err(status) if self.trim_pools(ordinal, |_| 0) + self.trim_graph_memory(ordinal) == 0 => {
                Err(status)
            }
            Err(_) => self.charge(ordinal, requested, physical),
        }
    }

    /// Frees the allocation that begins at `address`, whatever it is.
    ///
    /// # Errors
    /// `INVALID_VALUE` if none begins there.
    pub fn free(&mut self, address: u64) -> Outcome {
        let own = self.begins(address)?;
        self.free_at(&own)
    }

    /// Frees what was found.
    #[inline(always)]
    pub fn free_at(&mut self, &Found { ordinal, spot, purpose, .. }: &Found) -> Outcome {
        if purpose == Use::Graph {
            return self.end_graph_memory(spot.begin);
        }
        let heap = &mut self.devices[ordinal].heap;
        let (allocation, physical) = heap.take(spot).ok_or(INVALID_VALUE)?;
        self.forget_stamps(spot.begin, allocation.size);
        match allocation.purpose {
            Use::Pool(pool) => {
                let kept = self.pools.get_mut(pool).map(|pool| pool.give(allocation.size, physical));
                self.release(ordinal, allocation.size, if kept.is_ok() { 0 } else { physical });
                return Ok(());
            }
            Use::Managed => {
                let region = self.regions.remove(spot.begin);
                bytes::hide(spot.begin, allocation.size);
                if matches!(region.map(|region| region.backing), Some(Backing::Managed { on_host: true, .. }))
                {
                    return Ok(());
                }
            }
            _ => {}
        }
        if allocation.shared {
            self.part(ordinal, spot.begin);
            self.release(ordinal, 0, if allocation.is_whole() { 0 } else { physical });
        } else {
            self.release(ordinal, allocation.size, physical);
        }
        Ok(())
    }

    /// The allocation that begins at `address`.
    #[inline(always)]
    fn begins(&mut self, address: u64) -> Outcome<Found> {
        let ordinal = self.heap_of(address).ok_or(INVALID_VALUE)?;
        let heap = &mut self.devices[ordinal].heap;
        let spot = heap.locate(address).filter(|spot| spot.begin == address).ok_or(INVALID_VALUE)?;
        let Allocation { context, purpose, .. } = *heap.at(spot).ok_or(INVALID_VALUE)?;
        Ok(Found { ordinal, spot, context, purpose })
    }

    /// The same, if it is a caller's to free.
    #[inline(always)]
    pub fn callers_own(&mut self, address: u64) -> Outcome<Found> {
        self.begins(address)
            .and_then(|found| if found.purpose.is_callers() { Ok(found) } else { Err(INVALID_VALUE) })
    }

    /// Frees everything that lives in a context.
    pub fn free_all(&mut self, context: Handle<Context>) {
        for mipmap in self.mipmaps.select(|mipmap| mipmap.context == context) {
            let _ = self.destroy_mipmap(mipmap);
        }
        for array in self.arrays.select(|array| array.context == context) {
            let _ = self.destroy_array(array);
        }
        for ordinal in 0..self.devices.len() {
            for address in self.devices[ordinal].heap.select(|allocation| allocation.context == context) {
                let _ = self.free(address);
            }
        }
        self.close_all(context);
        self.free_host_of(context);
        if let Ok(context) = self.contexts.get(context) {
            let ordinal = context.device;
            self.trim_pools(ordinal, |_| 0);
        }
    }

    /// Notes that `length` bytes from `address` are written, for the heap to zero them afterwards.
    #[inline]
    pub fn touch(&mut self, address: u64, length: u64) {
        if length > 0
            && let Some(ordinal) = self.heap_of(address)
            && let Some((_, allocation)) = self.devices[ordinal].heap.find(address)
        {
            allocation.touched = true;
        }
    }

    /// Whether a device may read, or `write`, `length` bytes from `address`.
    #[inline]
    pub fn reaches(&mut self, address: u64, length: u64, write: bool) -> bool {
        if let Some(ordinal) = self.heap_of(address) {
            let found = self.devices[ordinal].heap.find(address);
            return found.is_some_and(|(begin, allocation)| length <= allocation.size - (address - begin));
        }
        self.regions.reaches(address, length, write)
    }

    /// Whether an address means memory of a device, not of the host.
    pub fn on_device(&self, address: u64) -> bool {
        self.heap_of(address).is_some()
            || self.regions.find(address).is_some_and(|region| match region.backing {
                Backing::Mapped { physical, .. } => {
                    self.physicals.get(physical).is_ok_and(|physical| physical.device.is_some())
                }
                Backing::Opened { .. } => true,
                _ => false,
            })
    }

    /// Whether the driver gave out, or knows, this address; every other one is plain host memory.
    pub fn knows(&self, address: u64) -> bool {
        self.heap_of(address).is_some()
            || self.regions.reserved(address)
            || self.regions.find(address).is_some()
    }
}

#[inline]
fn allocate(out: Out<u64>, size: u64) -> Outcome {
    let mut world = world()?;
    out.required()?;
    let (context, ordinal) = world.current_context().map(|(handle, context)| (handle, context.device))?;
    if size == 0 {
        return Err(INVALID_VALUE);
    }
    capture::forbid_unsafe_call(&mut world)?;
    let address = world.allocate(ordinal, size, context, Use::Plain)?;
    out.put(address)
}

/// Free and total bytes of the current context's device.
#[inline]
pub fn info() -> Outcome<(u64, u64)> {
    let world = world()?;
    let device = &world.devices[world.current_device()?];
    world.state.reap_in_company();
    Ok((world.state.free_bytes(device.index), device.spec.total_bytes))
}

/// Bytes between the rows of an allocation with a pitch.
pub fn row_of(width: u64, height: u64, element: u32) -> Outcome<u64> {
    if width == 0 || height == 0 || !matches!(element, 4 | 8 | 16) {
        return Err(INVALID_VALUE);
    }
    width.checked_next_multiple_of(UNIT).ok_or(OUT_OF_MEMORY)
}

/// Frees memory once the work of its context is over, as the call promises.
#[inline]
pub fn free(address: u64) -> Outcome {
    let (context, mark) = {
        let mut world = world()?;
        if address == 0 {
            return Ok(());
        }
        let own = match world.callers_own(address) {
            Ok(own) => own,
            Err(status) => return world.give_back_lent(address).unwrap_or(Err(status)),
        };
        capture::forbid_unsafe_call(&mut world)?;
        // Memory tells where it belongs, so it can be freed where no context is current.
        let current = world.current_context().map(|(handle, context)| (handle, context.is_quiet()));
        let context = match current {
            Ok((current, quiet)) if own.context == current || world.active(own.context).is_err() => {
                if quiet {
                    return world.free_at(&own);
                }
                current
            }
            _ => own.context,
        };
        match world.end_of(context) {
            Ok(mark) => (context, mark),
            Err(_) => return world.free_at(&own),
        }
    };
    mark.wait();
    let mut world = world()?;
    world.note_over(context, &mark);
    let own = world.callers_own(address)?;
    world.free_at(&own)
}

export! {
    early fn cuMemAlloc_v2(out: Out<u64>, size: u64) {
        allocate(out, size)
    }

    fn cuMemAllocPitch_v2(out: Out<u64>, pitch: Out<u64>, width: u64, height: u64, element: u32) {
        out.required()?;
        pitch.required()?;
        let row = row_of(width, height, element)?;
        allocate(out, row.checked_mul(height).ok_or(OUT_OF_MEMORY)?)?;
        pitch.put(row)
    }

    early fn cuMemFree_v2(address: u64) {
        free(address)
    }

    early fn cuMemGetInfo_v2(free: Out<u64>, total: Out<u64>) {
        let (has_free, has_total) = info()?;
        free.put_if(has_free);
        total.put_if(has_total);
        Ok(())
    }

    early fn cuMemGetAddressRange_v2(base: Out<u64>, size: Out<u64>, address: u64) {
        if base.is_null() && size.is_null() {
            return Ok(());
        }
        let mut world = world()?;
        world.current()?;
        let (begin, length) = world.range_of(address).ok_or(crate::status::NOT_FOUND)?;
        base.put_if(begin);
        size.put_if(length);
        Ok(())
    }
}

impl World {
    /// Begin and length of the allocation, mapping or registration that covers `address`.
    pub fn range_of(&mut self, address: u64) -> Option<(u64, u64)> {
        match self.heap_of(address) {
            Some(ordinal) => self.devices[ordinal].heap.find(address).map(|(begin, it)| (begin, it.size)),
            None => self.regions.find(address).map(|region| (region.start, region.length)),
        }
    }
}
