//! How contexts begin and end.

use cuda_shim_device::Seat;

use crate::model::objects::context::Context;
use crate::model::objects::handle::ContextHandle;
use crate::model::objects::stamps::Stamps;
use crate::model::objects::stream::Stream;
use crate::model::objects::time::Mark;
use crate::model::operations::captures;
use crate::model::world::World;
use crate::tools::status::{OUT_OF_MEMORY, Outcome};

impl World {
    /// Brings a context to life: its overhead, a seat at the device, its legacy stream.
    pub fn activate(&mut self, handle: ContextHandle) -> Outcome {
        let ordinal = self.contexts.get(handle)?.device;
        let device = &self.devices[ordinal];
        let (index, overhead) = (device.index, device.spec.context_bytes);
        self.state.reap_sometimes();
        if self.state.memory(index).charge_context(overhead).is_err() {
            self.state.reap();
            self.state.memory(index).charge_context(overhead).map_err(|_| OUT_OF_MEMORY)?;
        }
        if self.enter(ordinal).is_none() {
            self.state.memory(index).release_context(overhead);
            return Err(OUT_OF_MEMORY);
        }
        // From now on this process is company to others.
        self.state.reap();
        let id = self.new_id();
        let stream = Stream::legacy(handle, id);
        let legacy = self.streams.add(stream);
        let id = self.new_id();
        let context = self.contexts.get_mut(handle)?;
        context.legacy = legacy;
        context.id = id;
        context.active = true;
        Ok(())
    }

    /// Takes a seat at a device and puts bytes behind its addresses, if that is not done yet.
    fn enter(&mut self, ordinal: usize) -> Option<()> {
        let device = &mut self.devices[ordinal];
        device.heap.open()?;
        if device.seat.is_none() {
            device.queue = vec![0; self.state.machine().launch_queue.max(1) as usize];
            device.seat = Some(Box::leak(Box::new(Seat::take(self.state, device.index)?)));
        }
        Some(())
    }

    /// Takes everything away that lives in a context, and its share of the device.
    pub fn deactivate(&mut self, handle: ContextHandle) -> Outcome {
        let context = self.contexts.get(handle)?;
        let (ordinal, primary, flags) = (context.device, context.primary, context.flags);
        self.free_all(handle);
        for stream in self.streams.select(|stream| stream.context == handle) {
            captures::forget_stream(self, stream);
            let _ = self.streams.remove(stream);
        }
        for event in self.events.select(|event| event.context == handle) {
            let _ = self.remove_event(event);
        }
        for module in self.modules.select(|module| module.context == handle) {
            self.unload_module(module);
        }
        let fresh = Context { flags, ..Context::new(ordinal, primary, flags) };
        if primary {
            *self.contexts.get_mut(handle)? = fresh;
        } else {
            self.contexts.remove(handle)?;
        }
        let device = &self.devices[ordinal];
        self.state.memory(device.index).release_context(device.spec.context_bytes);
        if !self.contexts.iter().any(|(_, context)| context.active && context.device == ordinal)
            && let Some(seat) = self.devices[ordinal].seat.take()
        {
            seat.leave();
            self.devices[ordinal].queue.fill(0);
            self.devices[ordinal].stamps = Stamps::default();
        }
        Ok(())
    }

    /// Frees everything that lives in a context.
    fn free_all(&mut self, context: ContextHandle) {
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

    /// The end of all work of a context.
    pub fn end_of(&self, handle: ContextHandle) -> Outcome<Mark> {
        let context = self.active(handle)?;
        Ok(context.all.mark(self.seat(context.device)?))
    }

    /// Remembers that `mark` of a context was waited for.
    pub fn note_over(&mut self, handle: ContextHandle, mark: &Mark) {
        if let Ok(context) = self.contexts.get_mut(handle)
            && context.active
        {
            context.over = context.over.max(mark.time);
        }
    }

    pub fn primary_of(&self, device: i32) -> Outcome<(usize, ContextHandle)> {
        let (ordinal, device) = self.device(device)?;
        Ok((ordinal, device.primary))
    }
}
