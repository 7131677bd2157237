//! What is known of an address.

use crate::model::objects::heap::Use;
use crate::model::objects::region::Backing;
use crate::model::operations::access;
use crate::model::world::World;

/// `CU_MEMORYTYPE_HOST` and `_DEVICE`.
const HOST: u32 = 1;
pub const DEVICE: u32 = 2;

/// All that is known of an address.
#[derive(Default)]
pub struct Known {
    pub context: u64,
    pub memory: u32,
    pub ordinal: i32,
    pub id: u64,
    pub start: u64,
    pub length: u64,
    pub host: bool,
    pub managed: bool,
    pub pool: u64,
    /// Whether `cuIpcGetMemHandle` takes it, and what a handle to it may be exported as.
    pub legacy_ipc: bool,
    pub handle_types: u32,
}

pub fn describe(world: &mut World, address: u64) -> Option<Known> {
    let region = world.regions.find(address).copied();
    if let Some(ordinal) = access::heap_of(world, address) {
        let (start, allocation) = world.devices[ordinal].heap.find(address)?;
        let pool = if let Use::Pool(pool) = allocation.purpose { pool.raw() } else { 0 };
        return Some(Known {
            context: allocation.context.raw(),
            memory: DEVICE,
            ordinal: ordinal as i32,
            // Unique across the devices of the process.
            id: (ordinal as u64 + 1) << 48 | allocation.id,
            start,
            length: allocation.size,
            host: region.is_some(),
            managed: region.is_some(),
            pool,
            legacy_ipc: allocation.purpose == Use::Plain,
            handle_types: 0,
        });
    }
    let region = region?;
    let (mapped, ordinal, handle_types) = match region.backing {
        Backing::Mapped { physical, .. } => {
            let physical = world.physicals.get(physical).ok()?;
            (physical.device.is_some(), physical.device.unwrap_or(0), physical.handle_types())
        }
        Backing::Opened { ordinal, .. } => (true, ordinal, 0),
        _ => (false, world.contexts.get(region.context).ok()?.device, 0),
    };
    Some(Known {
        context: region.context.raw(),
        memory: if mapped { DEVICE } else { HOST },
        ordinal: ordinal as i32,
        id: region.start,
        start: region.start,
        length: region.length,
        host: !mapped,
        handle_types,
        ..Known::default()
    })
}
