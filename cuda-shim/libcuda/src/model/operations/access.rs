//! Who owns an address, and what of it may be read and written.

use crate::model::objects::heap::REACH;
use crate::model::objects::op::Op;
use crate::model::objects::region::Backing;
use crate::model::world::World;

impl Op {
    /// Notes which device memory it writes, so that it reads zero when it is dealt out again.
    pub fn touch(&self, world: &mut World) {
        match self {
            Op::Copy(copy) => world.touch(copy.to, copy.reach()),
            Op::Fill(fill) => world.touch(fill.to, fill.reach()),
            Op::Alloc(address, bytes) => world.touch(*address, *bytes),
            _ => {}
        }
    }
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

    /// Begin and length of the allocation, mapping or registration that covers `address`.
    pub fn range_of(&mut self, address: u64) -> Option<(u64, u64)> {
        match self.heap_of(address) {
            Some(ordinal) => self.devices[ordinal].heap.find(address).map(|(begin, it)| (begin, it.size)),
            None => self.regions.find(address).map(|region| (region.start, region.length)),
        }
    }
}
