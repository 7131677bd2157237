//! Loading code and finding kernels and variables in it.
//!
//! # Safety
//! Exports symbols; stores one handle where the runtime's private table wants it.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use crate::api::export::export;
use crate::model::objects::handle::{KernelHandle, LibraryHandle, ModuleHandle};
use crate::model::objects::image;
use crate::model::objects::kernel::{Kernels, Library, Loaded};
use crate::model::operations::latency;
use crate::model::operations::modules::{self, load};
use crate::model::world::{World, driver, world};
use crate::tools::ffi::{In, Out, Text};
use crate::tools::status::{FILE_NOT_FOUND, INVALID_IMAGE, INVALID_VALUE, NOT_FOUND, NOT_SUPPORTED, Outcome};

/// `CU_MODULE_LAZY_LOADING`.
const LAZY: u32 = 2;

/// Reads a file of code; kept for good, as images are.
fn read_file(name: Text) -> Outcome<usize> {
    let mut bytes = std::fs::read(name.lossy()?).map_err(|_| FILE_NOT_FOUND)?;
    if bytes.len() < 4 {
        return Err(INVALID_IMAGE);
    }
    bytes.push(0);
    Ok(bytes.leak().as_ptr().expose_provenance())
}

fn load_library(out: Out<LibraryHandle>, image: usize) -> Outcome {
    out.required()?;
    let driver = driver()?;
    // A library belongs to no context: where none is current it is read for the first device.
    let device = |world: &mut World| world.current_device().or(Ok(0));
    let contents = latency::spend_on(driver, device, || image::contents(image), |latency| latency.module_ns);
    let contents = Arc::new(contents?);
    let mut world = driver.world();
    let library =
        Library { kernels: Kernels::new(), modules: Vec::new(), contents, loaded: Loaded::default() };
    let library = world.libraries.add(library);
    out.put(library)
}

fn put_variable(address: Out<u64>, size: Out<u64>, found: (u64, u64)) -> Outcome {
    if address.is_null() && size.is_null() {
        return Err(INVALID_VALUE);
    }
    address.put_if(found.0);
    size.put_if(found.1);
    Ok(())
}

/// The device that a question about a kernel is about.
fn device_for(world: &World, device: Option<i32>) -> Outcome<usize> {
    match device {
        Some(device) => Ok(world.device(device)?.0),
        None => world.current_device(),
    }
}

fn get_attribute(value: Out<i32>, attribute: i32, kernel: KernelHandle, device: Option<i32>) -> Outcome {
    value.required()?;
    let world = world()?;
    let spec = &world.devices[device_for(&world, device)?].spec;
    let kernel = world.kernels.get(kernel)?;
    // Threads per block, registers, PTX and binary version, dynamic shared memory, its carve-out.
    let usual = match attribute {
        0 => 1024,
        4 => 32,
        5 | 6 => (spec.cc_major * 10 + spec.cc_minor) as i32,
        8 => 48 << 10,
        9 => -1,
        1..=17 => 0,
        _ => return Err(INVALID_VALUE),
    };
    value.put(kernel.set.get(&attribute).copied().unwrap_or(usual))
}

fn set_attribute(attribute: i32, value: i32, kernel: KernelHandle, device: Option<i32>) -> Outcome {
    let mut world = world()?;
    let most = world.devices[device_for(&world, device)?].spec.shared_per_block_optin as i32;
    let kernel = world.kernels.get_mut(kernel)?;
    let valid = match attribute {
        8 => (0..=most).contains(&value),
        9 => (-1..=100).contains(&value),
        11..=15 => value >= 0,
        _ => false,
    };
    if !valid {
        return Err(INVALID_VALUE);
    }
    kernel.set.insert(attribute, value);
    Ok(())
}

export! {
    fn cuModuleGetLoadingMode(mode: Out<u32>) {
        driver()?;
        mode.put(LAZY)
    }

    fn cuModuleLoad(out: Out<ModuleHandle>, name: Text) {
        out.required()?;
        world()?.current()?;
        out.put(load(read_file(name)?)?)
    }

    fn cuModuleLoadData = cuModuleLoadFatBinary(out: Out<ModuleHandle>, image: In<u8>) {
        out.required()?;
        out.put(load(image.exposed())?)
    }

    fn cuModuleLoadDataEx(
        out: Out<ModuleHandle>, image: In<u8>, count: u32, options: In<u32>, values: In<u64>,
    ) {
        let _ = (count, options, values);
        out.required()?;
        out.put(load(image.exposed())?)
    }

    fn cuModuleUnload(module: ModuleHandle) {
        let mut world = world()?;
        world.current()?;
        world.modules.get(module)?;
        modules::unload_module(&mut world, module);
        Ok(())
    }

    fn cuModuleGetFunction(out: Out<KernelHandle>, module: ModuleHandle, name: Text) {
        let mut world = world()?;
        world.modules.get(module)?;
        out.required()?;
        let name = name.get()?.to_owned();
        out.put(modules::module_kernel(&mut world, module, name)?)
    }

    early fn cuModuleGetFunctionCount(count: Out<u32>, module: ModuleHandle) {
        count.required()?;
        let kernels = modules::module_kernels(&mut *world()?, module)?;
        count.put(kernels.len() as u32)
    }

    early fn cuModuleEnumerateFunctions(out: Out<KernelHandle>, count: u32, module: ModuleHandle) {
        out.required()?;
        let kernels = modules::module_kernels(&mut *world()?, module)?;
        out.put_all(kernels.into_iter().take(count as usize));
        Ok(())
    }

    fn cuModuleGetGlobal_v2(address: Out<u64>, size: Out<u64>, module: ModuleHandle, name: Text) {
        put_variable(address, size, modules::named_variable(module, name)?)
    }

    early fn cuLibraryLoadData(
        out: Out<LibraryHandle>, image: In<u8>, jit_options: In<u32>, jit_values: In<u64>, jit_count: u32,
        options: In<u32>, values: In<u64>, count: u32,
    ) {
        let _ = (jit_options, jit_values, jit_count, options, values, count);
        load_library(out, image.exposed())
    }

    early fn cuLibraryLoadFromFile(
        out: Out<LibraryHandle>, name: Text, jit_options: In<u32>, jit_values: In<u64>, jit_count: u32,
        options: In<u32>, values: In<u64>, count: u32,
    ) {
        out.required()?;
        let _ = (jit_options, jit_values, jit_count, options, values, count);
        driver()?;
        load_library(out, read_file(name)?)
    }

    early fn cuLibraryUnload(handle: LibraryHandle) {
        handle.given()?;
        let mut world = world()?;
        let library = world.libraries.remove(handle)?;
        for module in library.modules {
            modules::unload_module(&mut world, module);
        }
        for kernel in library.kernels.into_values() {
            let _ = world.kernels.remove(kernel);
        }
        Ok(())
    }

    early fn cuLibraryGetKernel(out: Out<KernelHandle>, library: LibraryHandle, name: Text) {
        out.required()?;
        let name = name.get()?.to_owned();
        out.put(modules::library_kernel(&mut *world()?, library, name)?)
    }

    early fn cuLibraryGetKernelCount(count: Out<u32>, library: LibraryHandle) {
        count.required()?;
        let kernels = modules::library_kernels(&mut *world()?, library)?;
        count.put(kernels.len() as u32)
    }

    early fn cuLibraryEnumerateKernels(out: Out<KernelHandle>, count: u32, library: LibraryHandle) {
        out.required()?;
        let kernels = modules::library_kernels(&mut *world()?, library)?;
        out.put_all(kernels.into_iter().take(count as usize));
        Ok(())
    }

    early fn cuLibraryGetModule(out: Out<ModuleHandle>, library: LibraryHandle) {
        out.required()?;
        out.put(modules::library_module(&mut *world()?, library)?)
    }

    early fn cuLibraryGetGlobal = cuLibraryGetManaged(address: Out<u64>, size: Out<u64>, library: LibraryHandle, name: Text) {
        address.required()?;
        let mut world = world()?;
        let module = modules::library_module(&mut world, library)?;
        let found = modules::variable(&mut world, module, &name.lossy()?)?;
        put_variable(address, size, found)
    }

    fn cuLibraryGetUnifiedFunction(out: Out<*const c_void>, library: LibraryHandle, name: Text) {
        let _ = name;
        out.required()?;
        world()?.libraries.get(library)?;
        Err(NOT_FOUND)
    }

    early fn cuKernelGetFunction(out: Out<KernelHandle>, kernel: KernelHandle) {
        out.required()?;
        let world = world()?;
        world.current()?;
        world.kernels.get(kernel)?;
        out.put(kernel)
    }

    early fn cuKernelGetLibrary(out: Out<LibraryHandle>, kernel: KernelHandle) {
        out.required()?;
        let world = world()?;
        out.put(world.kernels.get(kernel)?.library)
    }

    fn cuFuncGetModule(out: Out<ModuleHandle>, kernel: KernelHandle) {
        out.required()?;
        let mut world = world()?;
        let kernel = world.kernels.get(kernel)?;
        let (module, library) = (kernel.module, kernel.library);
        out.put(if module.is_null() { modules::library_module(&mut world, library)? } else { module })
    }

    early fn cuKernelGetName = cuFuncGetName(out: Out<*const c_char>, kernel: KernelHandle) {
        out.required()?;
        let world = world()?;
        out.put(world.kernels.get(kernel)?.name.as_ptr())
    }

    early fn cuFuncLoad(kernel: KernelHandle) {
        kernel.given()?;
        let driver = driver()?;
        let context = {
            let world = driver.world();
            let own = world.kernels.get(kernel)?.context;
            if own.is_null() { world.current() } else { Ok(own) }
        };
        match context {
            Ok(context) => latency::spend_and_load(driver, |_| Ok(context), kernel, |_| 0),
            Err(_) => Ok(()),
        }
    }

    early fn cuFuncIsLoaded(state: Out<u32>, kernel: KernelHandle) {
        state.required()?;
        let world = world()?;
        world.kernels.get(kernel)?;
        state.put(1)
    }

    early fn cuFuncGetAttribute(value: Out<i32>, attribute: i32, kernel: KernelHandle) {
        get_attribute(value, attribute, kernel, None)
    }

    early fn cuKernelGetAttribute(value: Out<i32>, attribute: i32, kernel: KernelHandle, device: i32) {
        kernel.given()?;
        get_attribute(value, attribute, kernel, Some(device))
    }

    fn cuFuncSetAttribute(kernel: KernelHandle, attribute: i32, value: i32) {
        set_attribute(attribute, value, kernel, None)
    }

    early fn cuKernelSetAttribute(attribute: i32, value: i32, kernel: KernelHandle, device: i32) {
        kernel.given()?;
        set_attribute(attribute, value, kernel, Some(device))
    }

    fn cuFuncSetCacheConfig = cuFuncSetSharedMemConfig(kernel: KernelHandle, config: u32) {
        let _ = config;
        world()?.kernels.get(kernel).map(|_| ())
    }

    early fn cuKernelSetCacheConfig(kernel: KernelHandle, config: u32, device: i32) {
        kernel.given()?;
        let _ = config;
        let world = world()?;
        world.device(device)?;
        world.kernels.get(kernel).map(|_| ())
    }

    early fn cuKernelGetParamInfo = cuFuncGetParamInfo(
        kernel: KernelHandle, index: u64, offset: Out<u64>, size: Out<u64>,
    ) {
        offset.required()?;
        // Parameters are not read from images.
        let _ = (index, offset, size);
        world()?.kernels.get(kernel)?;
        Err(NOT_SUPPORTED)
    }

    fn cuModuleGetTexRef = cuModuleGetSurfRef(out: Out<u64>, module: ModuleHandle, name: Text) {
        world()?.modules.get(module)?;
        out.required()?;
        name.get()?;
        Err(NOT_FOUND)
    }
}
