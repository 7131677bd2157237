//! All objects of this process, behind one lock, and the machine that they live on.

use std::collections::HashMap;
use std::sync::OnceLock;

use cuda_shim_device::{Clock, DeviceSpec, Latency, Seat, State};

use crate::model::objects::array::{Array, Mipmap};
use crate::model::objects::capture::Capture;
use crate::model::objects::context::Context;
use crate::model::objects::event::Event;
use crate::model::objects::exec::GraphExec;
use crate::model::objects::graph::{Graph, Node};
use crate::model::objects::graph_memory::{Block, Usage};
use crate::model::objects::handle::{ContextHandle, PoolHandle};
use crate::model::objects::heap::Heap;
use crate::model::objects::kernel::{Kernel, Library, Module};
use crate::model::objects::physical::Physical;
use crate::model::objects::pool::Pool;
use crate::model::objects::region::Regions;
use crate::model::objects::space::Space;
use crate::model::objects::stamps::Stamps;
use crate::model::objects::stream::Stream;
use crate::model::objects::table::Table;
use crate::model::objects::texture::{Surface, Texture};
use crate::model::objects::thread;
use crate::model::objects::user_object::UserObject;
use crate::tools::spin::{Guard, Spin};
use crate::tools::status::{
    CONTEXT_IS_DESTROYED, INVALID_CONTEXT, INVALID_DEVICE, NOT_INITIALIZED, OUT_OF_MEMORY, Outcome,
};

impl World {
    /// What takes time on a device, if anything does.
    pub fn latency(&self, ordinal: usize) -> Option<&'static Latency> {
        self.state.latency(self.devices.get(ordinal)?.index)
    }

    /// The ordinal of a context's device.
    pub fn device_of(&self, context: ContextHandle) -> Outcome<usize> {
        Ok(self.contexts.get(context)?.device)
    }

    /// The calling thread's current context, which is active.
    #[inline]
    pub fn current_context(&self) -> Outcome<(ContextHandle, &Context)> {
        let handle = thread::current();
        if handle.is_null() {
            return Err(INVALID_CONTEXT);
        }
        Ok((handle, self.active(handle)?))
    }

    /// The handle of the same.
    #[inline]
    pub fn current(&self) -> Outcome<ContextHandle> {
        Ok(self.current_context()?.0)
    }

    /// The context of this handle, if it is active.
    #[inline]
    pub fn active(&self, handle: ContextHandle) -> Outcome<&Context> {
        let context = self.contexts.get(handle)?;
        if context.active { Ok(context) } else { Err(CONTEXT_IS_DESTROYED) }
    }

    /// The ordinal of the current context's device.
    #[inline]
    pub fn current_device(&self) -> Outcome<usize> {
        Ok(self.current_context()?.1.device)
    }

    /// The device of a `CUdevice`.
    pub fn device(&self, ordinal: i32) -> Outcome<(usize, &Device)> {
        let ordinal = usize::try_from(ordinal).map_err(|_| INVALID_DEVICE)?;
        Ok((ordinal, self.devices.get(ordinal).ok_or(INVALID_DEVICE)?))
    }

    /// What the first version of `cuDeviceGetUuid` tells: of an instance the UUID of the whole device.
    pub fn first_uuid(&self, device: &Device) -> [u8; 16] {
        let whole = device.spec.part.and_then(|part| self.state.machine().devices.get(part.of));
        whole.unwrap_or(&device.spec).uuid
    }

    /// The seat at a device with an active context.
    #[inline]
    pub fn seat(&self, ordinal: usize) -> Outcome<&'static Seat> {
        self.devices.get(ordinal).and_then(|device| device.seat).ok_or(INVALID_CONTEXT)
    }

    /// A number that was never given before.
    pub fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Charges memory of a device; once more after giving back what the dead held.
    #[inline(always)]
    pub fn charge(&self, ordinal: usize, requested: u64, physical: u64) -> Outcome {
        let index = self.devices[ordinal].index;
        if self.state.memory(index).charge(requested, physical).is_ok() {
            return Ok(());
        }
        self.state.reap();
        self.state.memory(index).charge(requested, physical).map_err(|_| OUT_OF_MEMORY)
    }

    /// Gives charged memory back.
    #[inline(always)]
    pub fn release(&self, ordinal: usize, requested: u64, physical: u64) {
        self.state.memory(self.devices[ordinal].index).release(requested, physical);
    }
}

/// The initialised driver.
pub struct Driver {
    /// The machine and its state.
    pub state: &'static State,
    world: Spin<World>,
}

/// Everything that calls make and change.
pub struct World {
    pub state: &'static State,
    /// By CUDA ordinal: what `CUDA_VISIBLE_DEVICES` left, in its order.
    pub devices: Vec<Device>,
    pub contexts: Table<Context>,
    pub streams: Table<Stream>,
    pub events: Table<Event>,
    pub captures: Table<Capture>,
    pub graphs: Table<Graph>,
    pub nodes: Table<Node>,
    pub execs: Table<GraphExec>,
    pub user_objects: Table<UserObject>,
    pub libraries: Table<Library>,
    pub modules: Table<Module>,
    pub kernels: Table<Kernel>,
    pub arrays: Table<Array>,
    pub mipmaps: Table<Mipmap>,
    pub textures: Table<Texture>,
    pub surfaces: Table<Surface>,
    pub pools: Table<Pool>,
    pub physicals: Table<Physical>,
    pub regions: Regions,
    /// Addresses for regions that are no heap's.
    pub space: Space,
    /// What graphs allocate, by address.
    pub graph_blocks: HashMap<u64, Block>,
    pub clock: Clock,
    /// Numbers for contexts, streams, captures and nodes, never given twice.
    next_id: u64,
}

/// A device as this process sees it.
pub struct Device {
    /// Its place in the machine.
    pub index: usize,
    pub spec: DeviceSpec,
    pub heap: Heap,
    /// Held while the process has a context here.
    pub seat: Option<&'static Seat>,
    pub primary: ContextHandle,
    pub retained: u32,
    pub primary_flags: u32,
    pub default_pool: PoolHandle,
    pub current_pool: PoolHandle,
    /// What graphs use and hold.
    pub graph_memory: Usage,
    /// Ends of the last launches in seat time, a ring: the hardware queue.
    pub queue: Vec<u64>,
    /// The place in the ring of the next launch.
    pub launches: usize,
    /// Until when each queue to the device is blocked; none where every stream has one of its own.
    pub lanes: Vec<u64>,
    /// Streams that were ever made here.
    pub streams_made: usize,
    /// What its kernels are still to write down.
    pub stamps: Stamps,
}

static DRIVER: OnceLock<Driver> = OnceLock::new();

impl Driver {
    /// Publishes the driver; a second one is dropped.
    pub fn publish(state: &'static State, devices: Vec<Device>, space: Space) {
        let reuse = state.machine().reuses_handles;
        let mut world = World {
            state,
            devices,
            contexts: Table::new(reuse),
            streams: Table::new(reuse),
            events: Table::new(reuse),
            captures: Table::new(reuse),
            graphs: Table::new(reuse),
            nodes: Table::new(reuse),
            execs: Table::new(reuse),
            user_objects: Table::new(reuse),
            libraries: Table::new(reuse),
            modules: Table::new(reuse),
            kernels: Table::new(reuse),
            arrays: Table::new(reuse),
            mipmaps: Table::new(reuse),
            textures: Table::new(reuse),
            surfaces: Table::new(reuse),
            pools: Table::new(reuse),
            physicals: Table::new(reuse),
            regions: Regions::new(),
            space,
            graph_blocks: HashMap::new(),
            clock: Clock::default(),
            next_id: 1,
        };
        for ordinal in 0..world.devices.len() {
            world.devices[ordinal].primary = world.contexts.add(Context::primary(ordinal));
            let pool = world.pools.add(Pool::default_of(ordinal));
            world.devices[ordinal].default_pool = pool;
            world.devices[ordinal].current_pool = pool;
        }
        let _ = DRIVER.set(Driver { state, world: Spin::new(world) });
    }

    /// The world, locked.
    #[inline]
    pub fn world(&self) -> Guard<'_, World> {
        self.world.lock()
    }

    /// Whether this process has a context on a device that is `meant` by its index in the machine.
    pub fn works_on(&self, meant: impl Fn(usize) -> bool) -> bool {
        self.world.lock().devices.iter().any(|device| device.seat.is_some() && meant(device.index))
    }

    /// Whether `cuInit` succeeded in this process or the one that it was forked from.
    pub fn was_published() -> bool {
        DRIVER.get().is_some()
    }
}

/// The driver. `NOT_INITIALIZED` before `cuInit`, and in a forked child for good.
#[inline]
pub fn driver() -> Outcome<&'static Driver> {
    DRIVER.get().filter(|driver| !driver.state.is_forked()).ok_or(NOT_INITIALIZED)
}

/// The world, locked.
#[inline]
pub fn world() -> Outcome<Guard<'static, World>> {
    Ok(driver()?.world())
}
