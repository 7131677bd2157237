//! Loading code, and finding kernels and variables in it.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use crate::model::objects::contents::Contents;
use crate::model::objects::handle::{ContextHandle, Handle, KernelHandle, LibraryHandle, ModuleHandle};
use crate::model::objects::heap::Use;
use crate::model::objects::image;
use crate::model::objects::kernel::{Kernel, Kernels, Loaded, Module};
use crate::model::objects::op::{Launch, Op};
use crate::model::objects::request::Request;
use crate::model::operations::{latency, memory};
use crate::model::world::{World, driver, world};
use crate::tools::ffi::Text;
use crate::tools::status::{NOT_FOUND, Outcome};

/// Size of a variable that the image does not tell, generous enough for every client seen.
const UNKNOWN_SIZE: u64 = 64 << 10;

/// `NOT_FOUND` for a name that the code is known not to have.
fn check(contents: &Contents, name: &CStr) -> Outcome {
    let found = !name.is_empty() && contents.may_have_kernel(&name.to_string_lossy());
    if found { Ok(()) } else { Err(NOT_FOUND) }
}

/// All names that code is known to have, in order.
fn names(contents: &Contents) -> Vec<CString> {
    let mut names: Vec<_> =
        contents.kernels.iter().filter_map(|name| CString::new(name.as_str()).ok()).collect();
    names.sort();
    names
}

/// All kernels of a module that are known.
pub fn module_kernels(world: &mut World, handle: ModuleHandle) -> Outcome<Vec<KernelHandle>> {
    let contents = world.modules.get(handle)?.contents.clone();
    names(&contents).into_iter().map(|name| module_kernel(world, handle, name)).collect()
}

/// All kernels of a library that are known.
pub fn library_kernels(world: &mut World, handle: LibraryHandle) -> Outcome<Vec<KernelHandle>> {
    let contents = world.libraries.get(handle)?.contents.clone();
    names(&contents).into_iter().map(|name| library_kernel(world, handle, name)).collect()
}

/// The kernel of this name in a module, made on the first demand.
pub fn module_kernel(world: &mut World, handle: ModuleHandle, name: CString) -> Outcome<KernelHandle> {
    let module = world.modules.get(handle)?;
    if !module.library.is_null() {
        return library_kernel(world, module.library, name);
    }
    if let Some(known) = module.kernels.get(&name) {
        return Ok(*known);
    }
    check(&module.contents, &name)?;
    let mut kernel = Kernel::new(name.clone(), world.state.machine(), handle, Handle::NULL);
    let module = world.modules.get(handle)?;
    if module.library.is_null() {
        kernel.context = module.context;
    }
    let kernel = world.kernels.add(kernel);
    world.modules.get_mut(handle)?.kernels.insert(name, kernel);
    Ok(kernel)
}

/// The kernel of this name in a library, made on the first demand.
pub fn library_kernel(world: &mut World, handle: LibraryHandle, name: CString) -> Outcome<KernelHandle> {
    let library = world.libraries.get(handle)?;
    if let Some(known) = library.kernels.get(&name) {
        return Ok(*known);
    }
    check(&library.contents, &name)?;
    let kernel = Kernel::new(name.clone(), world.state.machine(), Handle::NULL, handle);
    let kernel = world.kernels.add(kernel);
    world.libraries.get_mut(handle)?.kernels.insert(name, kernel);
    Ok(kernel)
}

/// Takes a module away with its kernels and variables.
pub fn unload_module(world: &mut World, handle: ModuleHandle) {
    let Ok(module) = world.modules.remove(handle) else { return };
    for kernel in module.kernels.into_values() {
        let _ = world.kernels.remove(kernel);
    }
    for (address, _) in module.variables.into_values() {
        let _ = memory::free(world, address);
    }
    if let Ok(library) = world.libraries.get_mut(module.library) {
        library.modules.retain(|known| *known != handle);
    }
}

/// The work that a request comes to on a device.
pub fn kernel_op(world: &World, ordinal: usize, request: &Request) -> Outcome<Op> {
    let timing = request.timing(world.kernels.get(request.kernel)?, &world.devices[ordinal].spec)?;
    let Request { kernel, grid, block, shared, params, extra, .. } = *request;
    Ok(Op::Kernel(Launch { kernel, grid, block, shared, params, extra, timing }))
}

/// A library's part in a context, loaded on the first demand.
pub fn library_module(world: &mut World, library: LibraryHandle) -> Outcome<ModuleHandle> {
    let context = world.current()?;
    let parts = &world.libraries.get(library)?.modules;
    let known = parts.iter().find(|part| world.modules.get(**part).is_ok_and(|it| it.context == context));
    if let Some(known) = known {
        return Ok(*known);
    }
    let contents = world.libraries.get(library)?.contents.clone();
    let module = world.modules.add(new_module(context, library, contents));
    world.libraries.get_mut(library)?.modules.push(module);
    Ok(module)
}

/// Address and size of a module's variable. A name that the image is known not to have is not found.
pub fn variable(world: &mut World, handle: ModuleHandle, name: &str) -> Outcome<(u64, u64)> {
    let module = world.modules.get(handle)?;
    if let Some(known) = module.variables.get(name) {
        return Ok(*known);
    }
    let size = module.contents.variable(name).ok_or(NOT_FOUND)?.unwrap_or(UNKNOWN_SIZE).max(1);
    let context = module.context;
    let ordinal = world.contexts.get(context)?.device;
    let address = memory::allocate(world, ordinal, size, context, Use::Internal)?;
    world.modules.get_mut(handle)?.variables.insert(name.to_owned(), (address, size));
    Ok((address, size))
}

pub fn load(image: usize) -> Outcome<ModuleHandle> {
    let driver = driver()?;
    let context = driver.world().current()?;
    let device = |world: &mut World| world.device_of(context);
    let contents = latency::spend_on(driver, device, || image::contents(image), |latency| latency.module_ns);
    let contents = Arc::new(contents?);
    let mut world = driver.world();
    Ok(world.modules.add(new_module(context, Handle::NULL, contents)))
}

fn new_module(context: ContextHandle, library: LibraryHandle, contents: Arc<Contents>) -> Module {
    Module {
        context,
        library,
        kernels: Kernels::new(),
        variables: HashMap::new(),
        contents,
        loaded: Loaded::default(),
    }
}

/// The same by the name as a caller passes it; the module is looked at first.
pub fn named_variable(module: ModuleHandle, name: Text) -> Outcome<(u64, u64)> {
    let mut world = world()?;
    world.modules.get(module)?;
    variable(&mut world, module, &name.lossy()?)
}
