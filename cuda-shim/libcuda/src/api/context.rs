//! Contexts: primary ones, which a device has one of and which are counted, and those that clients create.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::c_void;

use cuda_shim_device::Seat;

use crate::abi::CtxCreateParams;
use crate::capture;
use crate::dark;
use crate::ffi::{In, Out, Outcome, export};
use crate::stamps::Stamps;
use crate::status::{
    CONTEXT_IS_DESTROYED, INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, NOT_SUPPORTED, OUT_OF_MEMORY,
    PRIMARY_CONTEXT_ACTIVE, Status, UNSUPPORTED_LIMIT,
};
use crate::stream::Stream;
use crate::table::{Handle, Kind};
use crate::thread;
use crate::time::{Mark, Timeline};
use crate::world::{World, world};

/// `CUlimit` has this many kinds.
const LIMITS: usize = 11;
/// Flags that a context may be created with (`CU_CTX_FLAGS_MASK`).
const FLAGS_MASK: u32 = 0xff;
/// `CUstream` priorities go from 0 to this.
const GREATEST_PRIORITY: i32 = -5;

/// A context.
pub struct Context {
    pub device: usize,
    pub primary: bool,
    /// False for a primary context that nobody retains.
    pub active: bool,
    pub flags: u32,
    pub id: u64,
    limits: [u64; LIMITS],
    cache_config: u32,
    shared_config: u32,
    pub legacy: Handle<Stream>,
    /// The per-thread default streams, by thread.
    pub per_thread: Vec<(u64, Handle<Stream>)>,
    pub peers: Vec<usize>,
    /// End of the work in the legacy stream: every blocking stream waits for it.
    pub legacy_tail: u64,
    /// Ends of the work in the blocking streams: the legacy stream waits for them.
    pub blocking: Timeline,
    /// Ends of the work in all streams.
    pub all: Timeline,
    /// Seat time that is known to be over.
    pub over: u64,
}

impl Kind for Context {
    const TAG: u64 = 1;
    const WRONG: Status = INVALID_CONTEXT;
}

impl Context {
    fn new(device: usize, primary: bool, flags: u32) -> Context {
        Context {
            device,
            primary,
            active: false,
            flags,
            id: 0,
            limits: [1024, 1 << 20, 8 << 20, 2, 2048, 128, 0, 0, 0, 0, 0],
            cache_config: 0,
            shared_config: 0,
            legacy: Handle::NULL,
            per_thread: Vec::new(),
            peers: Vec::new(),
            legacy_tail: 0,
            blocking: Timeline::default(),
            all: Timeline::default(),
            over: 0,
        }
    }

    /// Whether it is known without asking the clock that all work here is done.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.all.tail <= self.over && self.all.hosts.is_empty()
    }

    /// A device's primary context, not yet active.
    pub fn primary(device: usize) -> Context {
        Context::new(device, true, 0)
    }
}

/// The primary context's handle, active or not.
pub fn primary_handle(device: i32) -> Result<*mut c_void, i32> {
    let handle = world().and_then(|world| Ok(world.device(device)?.1.primary));
    handle.map(|handle| std::ptr::without_provenance_mut(handle.raw() as usize)).map_err(Status::code)
}

impl World {
    /// Brings a context to life: its overhead, a seat at the device, its legacy stream.
    fn activate(&mut self, handle: Handle<Context>) -> Outcome {
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
    fn deactivate(&mut self, handle: Handle<Context>) -> Outcome {
        let context = self.contexts.get(handle)?;
        let (ordinal, primary, flags) = (context.device, context.primary, context.flags);
        self.free_all(handle);
        for stream in self.streams.select(|stream| stream.context == handle) {
            capture::forget_stream(self, stream);
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

    /// The end of all work of a context.
    pub fn end_of(&self, handle: Handle<Context>) -> Outcome<Mark> {
        let context = self.active(handle)?;
        Ok(context.all.mark(self.seat(context.device)?))
    }

    /// Remembers that `mark` of a context was waited for.
    pub fn note_over(&mut self, handle: Handle<Context>, mark: &Mark) {
        if let Ok(context) = self.contexts.get_mut(handle)
            && context.active
        {
            context.over = context.over.max(mark.time);
        }
    }

    fn primary_of(&self, device: i32) -> Outcome<(usize, Handle<Context>)> {
        let (ordinal, device) = self.device(device)?;
        Ok((ordinal, device.primary))
    }
}

/// Waits for a context's work, then ends it. Its private data goes first, while the handle still means it.
fn end(handle: Handle<Context>) -> Outcome {
    let mark = world()?.end_of(handle)?;
    mark.wait();
    dark::context_gone(std::ptr::without_provenance_mut(handle.raw() as usize));
    world()?.deactivate(handle)
}

fn release_primary(device: i32) -> Outcome {
    let handle = {
        let mut world = world()?;
        let (ordinal, handle) = world.primary_of(device)?;
        let retained = &mut world.devices[ordinal].retained;
        *retained = retained.checked_sub(1).ok_or(INVALID_CONTEXT)?;
        if *retained > 0 {
            return Ok(());
        }
        handle
    };
    end(handle)
}

fn set_primary_flags(device: i32, flags: u32) -> Outcome {
    let mut world = world()?;
    let (ordinal, handle) = world.primary_of(device)?;
    if flags & !FLAGS_MASK != 0 {
        return Err(INVALID_VALUE);
    }
    world.devices[ordinal].primary_flags = flags;
    world.contexts.get_mut(handle)?.flags = flags;
    Ok(())
}

fn create(out: Out<Handle<Context>>, flags: u32, device: i32) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let (ordinal, _) = world.device(device)?;
    if flags & !FLAGS_MASK != 0 {
        return Err(INVALID_VALUE);
    }
    let handle = world.contexts.add(Context::new(ordinal, false, flags));
    if let Err(status) = world.activate(handle) {
        let _ = world.contexts.remove(handle);
        return Err(status);
    }
    thread::push(handle)?;
    out.put(handle)
}

fn synchronize(handle: Handle<Context>) -> Outcome {
    let mark = {
        let mut world = world()?;
        capture::forbid_context_wait(&mut world, handle)?;
        let mark = world.end_of(handle)?;
        world.trim_pools_of(handle);
        mark
    };
    mark.wait();
    world()?.note_over(handle, &mark);
    Ok(())
}

fn or_current(world: &World, handle: Handle<Context>) -> Outcome<Handle<Context>> {
    if handle.is_null() { world.current() } else { world.active(handle).map(|_| handle) }
}

export! {
    fn cuDevicePrimaryCtxRetain(out: Out<Handle<Context>>, device: i32) {
        out.required()?;
        let mut world = world()?;
        let (ordinal, handle) = world.primary_of(device)?;
        if world.devices[ordinal].retained == 0 {
            world.contexts.get_mut(handle)?.flags = world.devices[ordinal].primary_flags;
            world.activate(handle)?;
        }
        world.devices[ordinal].retained += 1;
        out.put(handle)
    }

    fn cuDevicePrimaryCtxRelease = cuDevicePrimaryCtxRelease_v2(device: i32) {
        release_primary(device)
    }

    fn cuDevicePrimaryCtxReset = cuDevicePrimaryCtxReset_v2(device: i32) {
        let handle = {
            let mut world = world()?;
            let (ordinal, handle) = world.primary_of(device)?;
            if !world.contexts.get(handle)?.active {
                return Ok(());
            }
            world.devices[ordinal].retained = 0;
            handle
        };
        end(handle)
    }

    fn cuDevicePrimaryCtxSetFlags(device: i32, flags: u32) {
        // Before CUDA 11 the flags of a context that is there could not be changed.
        let active = {
            let world = world()?;
            let (_, handle) = world.primary_of(device)?;
            world.contexts.get(handle)?.active
        };
        if active { Err(PRIMARY_CONTEXT_ACTIVE) } else { set_primary_flags(device, flags) }
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: i32, flags: u32) {
        set_primary_flags(device, flags)
    }

    early fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) {
        flags.required()?;
        let world = world()?;
        let (ordinal, handle) = world.primary_of(device)?;
        flags.put(world.devices[ordinal].primary_flags)?;
        active.put(i32::from(world.contexts.get(handle)?.active))
    }

    fn cuCtxCreate = cuCtxCreate_v2(out: Out<Handle<Context>>, flags: u32, device: i32) {
        create(out, flags, device)
    }

    fn cuCtxCreate_v3(out: Out<Handle<Context>>, affinity: In<u64>, count: i32, flags: u32, device: i32) {
        // Execution affinity needs MPS.
        if count != 0 && !affinity.is_null() {
            return Err(NOT_SUPPORTED);
        }
        create(out, flags, device)
    }

    fn cuCtxCreate_v4(out: Out<Handle<Context>>, params: In<CtxCreateParams>, flags: u32, device: i32) {
        if !params.is_null() && params.get()?.affinity_count != 0 {
            return Err(NOT_SUPPORTED);
        }
        create(out, flags, device)
    }

    early fn cuCtxDestroy = cuCtxDestroy_v2(handle: Handle<Context>) {
        handle.given().map_err(|_| INVALID_VALUE)?;
        if world()?.active(handle)?.primary {
            return Err(INVALID_CONTEXT);
        }
        end(handle)?;
        if thread::current() == handle {
            thread::pop()?;
        }
        Ok(())
    }

    fn cuCtxAttach(out: Out<Handle<Context>>, flags: u32) {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        out.put(world()?.current()?)
    }

    fn cuCtxDetach(handle: Handle<Context>) {
        world()?.active(handle)?;
        Ok(())
    }

    fn cuCtxPushCurrent = cuCtxPushCurrent_v2(handle: Handle<Context>) {
        handle.given().map_err(|_| INVALID_VALUE)?;
        world()?.contexts.get(handle)?;
        thread::push(handle)
    }

    fn cuCtxPopCurrent = cuCtxPopCurrent_v2(out: Out<Handle<Context>>) {
        world()?;
        let popped = thread::pop()?;
        out.put_if(popped);
        Ok(())
    }

    fn cuCtxSetCurrent(handle: Handle<Context>) {
        let world = world()?;
        if !handle.is_null() {
            world.contexts.get(handle)?;
        }
        thread::set_current(handle);
        Ok(())
    }

    fn cuCtxGetCurrent(out: Out<Handle<Context>>) {
        crate::world::driver()?;
        out.put(thread::current())
    }

    early fn cuCtxGetDevice(device: Out<i32>) {
        device.required()?;
        let world = world()?;
        let handle = thread::current();
        device.put(world.contexts.get(handle)?.device as i32)
    }

    early fn cuCtxGetDevice_v2(device: Out<i32>, handle: Handle<Context>) {
        device.required()?;
        let world = world()?;
        let handle = if handle.is_null() { thread::current() } else { handle };
        device.put(world.contexts.get(handle)?.device as i32)
    }

    early fn cuCtxGetFlags(flags: Out<u32>) {
        flags.required()?;
        let world = world()?;
        let handle = world.current()?;
        flags.put(world.contexts.get(handle)?.flags)
    }

    fn cuCtxSetFlags(flags: u32) {
        let mut world = world()?;
        let handle = world.current()?;
        if flags & !FLAGS_MASK != 0 {
            return Err(INVALID_VALUE);
        }
        world.contexts.get_mut(handle)?.flags = flags;
        Ok(())
    }

    early fn cuCtxGetId(handle: Handle<Context>, id: Out<u64>) {
        id.required()?;
        let world = world()?;
        let handle = or_current(&world, handle)?;
        id.put(world.contexts.get(handle)?.id)
    }

    fn cuCtxSynchronize() {
        let handle = world()?.current()?;
        synchronize(handle)
    }

    fn cuCtxSynchronize_v2(handle: Handle<Context>) {
        let handle = or_current(&*world()?, handle)?;
        synchronize(handle)
    }

    fn cuCtxSetLimit(limit: u32, value: u64) {
        let mut world = world()?;
        let handle = world.current()?;
        let context = world.contexts.get_mut(handle)?;
        let place = context.limits.get_mut(limit as usize).ok_or(UNSUPPORTED_LIMIT)?;
        *place = value;
        Ok(())
    }

    fn cuCtxGetLimit(value: Out<u64>, limit: u32) {
        value.required()?;
        let world = world()?;
        let handle = world.current()?;
        value.put(*world.contexts.get(handle)?.limits.get(limit as usize).ok_or(UNSUPPORTED_LIMIT)?)
    }

    fn cuCtxGetCacheConfig(config: Out<u32>) {
        let world = world()?;
        let handle = world.current()?;
        config.put(world.contexts.get(handle)?.cache_config)
    }

    fn cuCtxSetCacheConfig(config: u32) {
        let mut world = world()?;
        let handle = world.current()?;
        world.contexts.get_mut(handle)?.cache_config = config;
        Ok(())
    }

    fn cuCtxGetSharedMemConfig(config: Out<u32>) {
        let world = world()?;
        let handle = world.current()?;
        config.put(world.contexts.get(handle)?.shared_config)
    }

    fn cuCtxSetSharedMemConfig(config: u32) {
        let mut world = world()?;
        let handle = world.current()?;
        world.contexts.get_mut(handle)?.shared_config = config;
        Ok(())
    }

    fn cuCtxGetApiVersion(handle: Handle<Context>, version: Out<u32>) {
        let world = world()?;
        or_current(&world, handle)?;
        version.put(3020)
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        world()?.current()?;
        least.put_if(0);
        greatest.put_if(GREATEST_PRIORITY);
        Ok(())
    }

    fn cuCtxResetPersistingL2Cache() {
        world()?.current().map(|_| ())
    }

    fn cuCtxGetExecAffinity(affinity: Out<u64>, kind: u32) {
        affinity.required()?;
        world()?.current()?;
        let _ = kind;
        Err(NOT_SUPPORTED)
    }

    fn cuCtxEnablePeerAccess(peer: Handle<Context>, flags: u32) {
        let mut world = world()?;
        let handle = world.current()?;
        let peer = world.active(peer)?.device;
        let context = world.contexts.get_mut(handle)?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        if peer == context.device {
            return Err(INVALID_DEVICE);
        }
        if context.peers.contains(&peer) {
            return Err(crate::status::PEER_ACCESS_ALREADY_ENABLED);
        }
        context.peers.push(peer);
        Ok(())
    }

    fn cuCtxDisablePeerAccess(peer: Handle<Context>) {
        let mut world = world()?;
        let handle = world.current()?;
        let peer = world.active(peer)?.device;
        let peers = &mut world.contexts.get_mut(handle)?.peers;
        let place = peers.iter().position(|known| *known == peer);
        peers.remove(place.ok_or(crate::status::PEER_ACCESS_NOT_ENABLED)?);
        Ok(())
    }
}

/// A stream handle's context must be alive for anything to run there.
pub fn alive(world: &World, handle: Handle<Context>) -> Outcome {
    world.active(handle).map(|_| ()).map_err(|_| CONTEXT_IS_DESTROYED)
}
