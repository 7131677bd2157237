//! How contexts begin and end.

use cuda_shim_device::{SEATS, Seat, tell};

use crate::model::objects::context::Context;
use crate::model::objects::handle::ContextHandle;
use crate::model::objects::stamps::Stamps;
use crate::model::objects::stream::Order;
use crate::model::objects::time::Mark;
use crate::model::operations::{
    arrays, captures, events, host_memory, memory, modules, pools, sharing, streams,
};
use crate::model::world::World;
use crate::tools::status::{OUT_OF_MEMORY, Outcome};

/// Brings a context to life: its overhead, a seat at the device, its legacy stream.
pub fn activate(world: &mut World, handle: ContextHandle) -> Outcome {
    let ordinal = world.contexts.get(handle)?.device;
    let device = &world.devices[ordinal];
    let (index, overhead) = (device.index, device.spec.context_cost());
    world.state.reap_sometimes();
    if world.state.memory(index).charge_context(overhead).is_err() {
        world.state.reap();
        world.state.memory(index).charge_context(overhead).map_err(|_| OUT_OF_MEMORY)?;
    }
    if enter(world, ordinal).is_none() {
        tell(format_args!(
            "simulated libcuda: device {index} has no place for this process: at most {SEATS} processes work on one device"
        ));
        world.state.memory(index).release_context(overhead);
        return Err(OUT_OF_MEMORY);
    }
    world.state.join_in();
    let legacy = streams::add(world, handle, Order::Legacy, 0)?;
    let id = world.new_id();
    let context = world.contexts.get_mut(handle)?;
    context.legacy = legacy;
    context.id = id;
    context.active = true;
    Ok(())
}

/// Takes a seat at a device and puts bytes behind its addresses, if that is not done yet.
fn enter(world: &mut World, ordinal: usize) -> Option<()> {
    let device = &mut world.devices[ordinal];
    device.heap.open()?;
    if device.seat.is_none() {
        device.queue = vec![0; world.state.machine().launch_queue.max(1) as usize];
        device.seat = Some(Box::leak(Box::new(Seat::take(world.state, device.index)?)));
    }
    Some(())
}

/// Takes everything away that lives in a context, and its share of the device.
pub fn deactivate(world: &mut World, handle: ContextHandle) -> Outcome {
    let context = world.contexts.get(handle)?;
    let (ordinal, primary, flags) = (context.device, context.primary, context.flags);
    free_all(world, handle);
    for stream in world.streams.select(|stream| stream.context == handle) {
        captures::forget_stream(world, stream);
        let _ = world.streams.remove(stream);
    }
    for event in world.events.select(|event| event.context == handle) {
        let _ = events::remove_event(world, event);
    }
    for module in world.modules.select(|module| module.context == handle) {
        modules::unload_module(world, module);
    }
    let fresh = Context { flags, ..Context::new(ordinal, primary, flags) };
    if primary {
        *world.contexts.get_mut(handle)? = fresh;
    } else {
        world.contexts.remove(handle)?;
    }
    let device = &world.devices[ordinal];
    world.state.memory(device.index).release_context(device.spec.context_cost());
    if !world.contexts.iter().any(|(_, context)| context.active && context.device == ordinal)
        && let Some(seat) = world.devices[ordinal].seat.take()
    {
        seat.leave();
        world.devices[ordinal].queue.fill(0);
        world.devices[ordinal].stamps = Stamps::default();
    }
    Ok(())
}

/// Frees everything that lives in a context.
fn free_all(world: &mut World, context: ContextHandle) {
    for mipmap in world.mipmaps.select(|mipmap| mipmap.context == context) {
        let _ = arrays::destroy_mipmap(world, mipmap);
    }
    for array in world.arrays.select(|array| array.context == context) {
        let _ = arrays::destroy_array(world, array);
    }
    for ordinal in 0..world.devices.len() {
        for address in world.devices[ordinal].heap.select(|allocation| allocation.context == context) {
            let _ = memory::free(world, address);
        }
    }
    sharing::close_all(world, context);
    host_memory::free_host_of(world, context);
    if let Ok(context) = world.contexts.get(context) {
        let ordinal = context.device;
        pools::trim_pools(world, ordinal, |_| 0);
    }
}

/// The end of all work of a context.
pub fn end_of(world: &World, handle: ContextHandle) -> Outcome<Mark> {
    let context = world.active(handle)?;
    Ok(context.all.mark(world.seat(context.device)?))
}

/// Remembers that `mark` of a context was waited for.
pub fn note_over(world: &mut World, handle: ContextHandle, mark: &Mark) {
    if let Ok(context) = world.contexts.get_mut(handle)
        && context.active
    {
        context.over = context.over.max(mark.time);
    }
}

pub fn primary_of(world: &World, device: i32) -> Outcome<(usize, ContextHandle)> {
    let (ordinal, device) = world.device(device)?;
    Ok((ordinal, device.primary))
}
