//! Modules, libraries, and what they hold: every image is taken, every name is found.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};

use crate::context::Context;
use crate::ffi::{Out, Outcome, Text, export, result};
use crate::heap::Use;
use crate::kernel::{Kernel, Library, Module, named_duration};
use crate::status::{INVALID_VALUE, NOT_FOUND};
use crate::table::Handle;
use crate::world::{World, world};

/// Bytes of a variable whose image is not read.
const GLOBAL_BYTES: u64 = 64 << 10;

impl World {
    fn new_module(&mut self, context: Handle<Context>) -> Handle<Module> {
        self.modules.add(Module { context, kernels: Default::default(), globals: Default::default() })
    }

    fn new_kernel(
        &mut self,
        name: &std::ffi::CStr,
        library: Handle<Library>,
        module: Handle<Module>,
    ) -> Handle<Kernel> {
        let duration = named_duration(self.state.machine(), &name.to_string_lossy());
        let attributes = Default::default();
        self.kernels.add(Kernel { name: name.to_owned(), library, module, attributes, duration })
    }

    /// Takes a module away with its kernels and variables.
    pub fn unload_module(&mut self, handle: Handle<Module>) {
        let Ok(module) = self.modules.remove(handle) else { return };
        for kernel in module.kernels.into_values() {
            let _ = self.kernels.remove(kernel);
        }
        for (address, _) in module.globals.into_values() {
            let _ = self.free(address);
        }
    }

    /// Libraries outlive contexts, their modules in a context do not.
    pub fn forget_library_modules(&mut self, context: Handle<Context>) {
        for handle in self.libraries.select(|library| library.modules.contains_key(&context.raw())) {
            if let Ok(library) = self.libraries.get_mut(handle) {
                library.modules.remove(&context.raw());
            }
        }
    }

    fn module_of(&mut self, library: Handle<Library>) -> Outcome<Handle<Module>> {
        let context = self.current()?;
        if let Some(module) = self.libraries.get(library)?.modules.get(&context.raw()) {
            return Ok(*module);
        }
        let module = self.new_module(context);
        self.libraries.get_mut(library)?.modules.insert(context.raw(), module);
        Ok(module)
    }

    fn global(&mut self, module: Handle<Module>, name: Text, address: Out<u64>, bytes: Out<u64>) -> Outcome {
        let name = name.lossy()?;
        let known = self.modules.get(module)?.globals.get(&name).copied();
        let (at, size) = match known {
            Some(known) => known,
            None => {
                let context = self.modules.get(module)?.context;
                let ordinal = self.contexts.get(context)?.device;
                let at = self.allocate(ordinal, GLOBAL_BYTES, context, Use::Internal)?;
                self.modules.get_mut(module)?.globals.insert(name, (at, GLOBAL_BYTES));
                (at, GLOBAL_BYTES)
            }
        };
        address.put_if(at);
        bytes.put_if(size);
        Ok(())
    }
}

fn load(out: Out<Handle<Module>>) -> Outcome {
    out.required()?;
    let mut world = world()?;
    let context = world.current()?;
    out.put(world.new_module(context))
}

/// For the runtime's private table.
///
/// # Safety
/// `out` is null or can be written.
pub unsafe fn load_for_runtime(out: *mut *mut c_void, _image: *const c_void) -> i32 {
    let loaded = || -> Outcome {
        let mut world = world()?;
        let context = world.current()?;
        let module = world.new_module(context);
        if out.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null; the caller vouches for the rest.
        unsafe { *out = std::ptr::without_provenance_mut(module.raw() as usize) };
        Ok(())
    };
    result(loaded())
}

export! {
    fn cuModuleLoad(out: Out<Handle<Module>>, path: Text) {
        path.get()?;
        load(out)
    }

    fn cuModuleLoadData(out: Out<Handle<Module>>, image: *const c_void) {
        if image.is_null() { Err(INVALID_VALUE) } else { load(out) }
    }

    fn cuModuleLoadFatBinary(out: Out<Handle<Module>>, image: *const c_void) {
        if image.is_null() { Err(INVALID_VALUE) } else { load(out) }
    }

    fn cuModuleLoadDataEx(
        out: Out<Handle<Module>>, image: *const c_void, count: u32, options: *const c_void, values: *const c_void,
    ) {
        let _ = (count, options, values);
        if image.is_null() { Err(INVALID_VALUE) } else { load(out) }
    }

    fn cuModuleUnload(module: Handle<Module>) {
        let mut world = world()?;
        world.modules.get(module)?;
        world.unload_module(module);
        Ok(())
    }

    fn cuModuleGetLoadingMode(mode: Out<u32>) {
        // Lazy.
        mode.put(2)
    }

    fn cuModuleGetFunction(out: Out<Handle<Kernel>>, module: Handle<Module>, name: Text) {
        out.required()?;
        let mut world = world()?;
        let text = name.get()?;
        let key = name.lossy()?;
        if key.is_empty() {
            return Err(NOT_FOUND);
        }
        let kernel = match world.modules.get(module)?.kernels.get(&key) {
            Some(kernel) => *kernel,
            None => {
                let kernel = world.new_kernel(text, Handle::NULL, module);
                world.modules.get_mut(module)?.kernels.insert(key, kernel);
                kernel
            }
        };
        out.put(kernel)
    }

    fn cuModuleGetGlobal = cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<u64>, module: Handle<Module>, name: Text) {
        world()?.global(module, name, address, bytes)
    }

    fn cuLibraryLoadData(
        out: Out<Handle<Library>>, image: *const c_void, options: *const c_void, values: *const c_void, count: u32,
        library_options: *const c_void, library_values: *const c_void, library_count: u32,
    ) {
        let _ = (options, values, count, library_options, library_values, library_count);
        out.required()?;
        if image.is_null() {
            return Err(INVALID_VALUE);
        }
        out.put(world()?.libraries.add(Library::default()))
    }

    fn cuLibraryUnload(library: Handle<Library>) {
        let mut world = world()?;
        let library = world.libraries.remove(library)?;
        for module in library.modules.into_values() {
            world.unload_module(module);
        }
        for kernel in library.kernels.into_values() {
            let _ = world.kernels.remove(kernel);
        }
        Ok(())
    }

    fn cuLibraryGetKernel(out: Out<Handle<Kernel>>, library: Handle<Library>, name: Text) {
        out.required()?;
        let mut world = world()?;
        let text = name.get()?;
        let key = name.lossy()?;
        let kernel = match world.libraries.get(library)?.kernels.get(&key) {
            Some(kernel) => *kernel,
            None => {
                let kernel = world.new_kernel(text, library, Handle::NULL);
                world.libraries.get_mut(library)?.kernels.insert(key, kernel);
                kernel
            }
        };
        out.put(kernel)
    }

    fn cuLibraryGetModule(out: Out<Handle<Module>>, library: Handle<Library>) {
        out.required()?;
        let mut world = world()?;
        let module = world.module_of(library)?;
        out.put(module)
    }

    fn cuLibraryGetGlobal(address: Out<u64>, bytes: Out<u64>, library: Handle<Library>, name: Text) {
        let mut world = world()?;
        let module = world.module_of(library)?;
        world.global(module, name, address, bytes)
    }

    fn cuKernelGetFunction(out: Out<Handle<Kernel>>, kernel: Handle<Kernel>) {
        world()?.kernels.get(kernel)?;
        out.put(kernel)
    }

    fn cuKernelGetLibrary(out: Out<Handle<Library>>, kernel: Handle<Kernel>) {
        let world = world()?;
        out.put(world.kernels.get(kernel)?.library)
    }

    fn cuKernelGetName = cuFuncGetName(name: Out<*const c_char>, kernel: Handle<Kernel>) {
        let world = world()?;
        name.put(world.kernels.get(kernel)?.name.as_ptr())
    }

    fn cuFuncGetModule(out: Out<Handle<Module>>, kernel: Handle<Kernel>) {
        let mut world = world()?;
        let (library, module) = world.kernels.get(kernel).map(|kernel| (kernel.library, kernel.module))?;
        let module = if module.is_null() { world.module_of(library)? } else { module };
        out.put(module)
    }

    fn cuFuncLoad(kernel: Handle<Kernel>) {
        world()?.kernels.get(kernel).map(|_| ())
    }

    fn cuFuncIsLoaded(state: Out<u32>, kernel: Handle<Kernel>) {
        world()?.kernels.get(kernel)?;
        state.put(1)
    }

    fn cuFuncGetAttribute(value: Out<i32>, attribute: i32, kernel: Handle<Kernel>) {
        attribute_of(value, attribute, kernel)
    }

    fn cuKernelGetAttribute(value: Out<i32>, attribute: i32, kernel: Handle<Kernel>, device: i32) {
        world()?.device(device)?;
        attribute_of(value, attribute, kernel)
    }

    fn cuFuncSetAttribute(kernel: Handle<Kernel>, attribute: i32, value: i32) {
        set_attribute(kernel, attribute, value)
    }

    fn cuKernelSetAttribute(attribute: i32, value: i32, kernel: Handle<Kernel>, device: i32) {
        world()?.device(device)?;
        set_attribute(kernel, attribute, value)
    }

    fn cuFuncSetCacheConfig = cuFuncSetSharedMemConfig(kernel: Handle<Kernel>, config: u32) {
        let _ = config;
        world()?.kernels.get(kernel).map(|_| ())
    }

    fn cuKernelSetCacheConfig(kernel: Handle<Kernel>, config: u32, device: i32) {
        let _ = (config, device);
        world()?.kernels.get(kernel).map(|_| ())
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: Out<i32>, kernel: Handle<Kernel>, size: i32, shared: u64) {
        occupancy(blocks, kernel, size, shared)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<i32>, kernel: Handle<Kernel>, size: i32, shared: u64, flags: u32,
    ) {
        let _ = flags;
        occupancy(blocks, kernel, size, shared)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: Out<u64>, kernel: Handle<Kernel>, blocks: i32, size: i32) {
        let _ = size;
        world()?.kernels.get(kernel)?;
        if blocks <= 0 {
            return Err(INVALID_VALUE);
        }
        bytes.put((227 << 10) / blocks as u64)
    }
}

fn occupancy(blocks: Out<i32>, kernel: Handle<Kernel>, size: i32, _shared: u64) -> Outcome {
    world()?.kernels.get(kernel)?;
    if size <= 0 {
        return Err(INVALID_VALUE);
    }
    blocks.put((2048 / size).clamp(1, 32))
}

fn attribute_of(value: Out<i32>, attribute: i32, kernel: Handle<Kernel>) -> Outcome {
    let world = world()?;
    let set = world.kernels.get(kernel)?.attributes.get(&attribute).copied();
    // Threads per block, registers, PTX and binary version; all else is nothing by default.
    let default = match attribute {
        0 => 1024,
        4 => 32,
        5 | 6 => 90,
        8 => 48 << 10,
        1..=3 | 7 | 9..=15 => 0,
        _ => return Err(INVALID_VALUE),
    };
    value.put(set.unwrap_or(default))
}

fn set_attribute(kernel: Handle<Kernel>, attribute: i32, value: i32) -> Outcome {
    world()?.kernels.get_mut(kernel)?.attributes.insert(attribute, value);
    Ok(())
}
