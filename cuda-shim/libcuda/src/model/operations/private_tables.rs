//! The private tables by which libcudart and its libraries know a driver, and what they ask of it. They are a crate of their
//! own, which the feature `integrity` joins; without it the driver has no private tables, and libcudart does not start.
//!
//! # Safety
//! Stores one handle where a private table wants it.
#![cfg_attr(feature = "integrity", allow(unsafe_code))]

#[cfg(not(feature = "integrity"))]
pub use absent::{connect, context_gone, export_table};
#[cfg(feature = "integrity")]
pub use joined::{connect, context_gone, export_table};

#[cfg(feature = "integrity")]
mod joined {
    use std::ffi::c_void;

    use cuda_shim_integrity::{DRIVER, Driver, Identity};

    use crate::model::objects::handle::{ContextHandle, Handle};
    use crate::model::objects::thread;
    use crate::model::operations::modules;
    use crate::model::world::{Device, world};
    use crate::tools::status::{INVALID_VALUE, Status};

    pub use cuda_shim_integrity::export_table;

    fn pointer(handle: ContextHandle) -> *mut c_void {
        std::ptr::without_provenance_mut(handle.raw() as usize)
    }

    /// Tells the tables what driver they belong to.
    pub fn connect(version: fn() -> i32) {
        static VERSION: std::sync::OnceLock<fn() -> i32> = std::sync::OnceLock::new();
        let _ = VERSION.set(version);
        let _ = DRIVER.set(Driver {
            primary_context,
            current_context: || pointer(thread::current()),
            is_context: |handle| {
                world().is_ok_and(|world| world.contexts.get(Handle::of(handle.addr() as u64)).is_ok())
            },
            load_module,
            version: || VERSION.get().map_or(0, |version| version() as u32),
            identities,
        });
    }

    /// Forgets what the runtime keeps with a context, before that ends.
    pub fn context_gone(handle: ContextHandle) {
        cuda_shim_integrity::context_gone(pointer(handle));
    }

    /// The primary context's handle, active or not.
    fn primary_context(device: i32) -> Result<*mut c_void, i32> {
        let handle = world().and_then(|world| Ok(world.device(device)?.1.primary));
        handle.map(pointer).map_err(Status::code)
    }

    /// `cuModuleLoadData` as the runtime's private table calls it.
    ///
    /// # Safety
    /// `out` is null or valid for writing, `image` null or an image.
    unsafe fn load_module(out: *mut *mut c_void, image: *const c_void) -> i32 {
        if out.is_null() {
            return INVALID_VALUE.code();
        }
        match modules::load(image.expose_provenance()) {
            Ok(module) => {
                // SAFETY: not null; valid by the caller's word.
                unsafe { out.write(std::ptr::without_provenance_mut(module.raw() as usize)) };
                0
            }
            Err(status) => status.code(),
        }
    }

    fn identities() -> Vec<Identity> {
        let Ok(world) = world() else { return Vec::new() };
        let identity = |device: &Device| Identity {
            uuid: world.first_uuid(device),
            pci: [device.spec.pci_domain, device.spec.pci_bus, device.spec.pci_device].map(|id| id as i32),
        };
        world.devices.iter().map(identity).collect()
    }
}

#[cfg(not(feature = "integrity"))]
mod absent {
    use std::ffi::c_void;

    use crate::model::objects::handle::ContextHandle;

    /// There are no tables to tell anything.
    pub fn connect(_version: fn() -> i32) {}

    /// Nothing is kept with a context.
    pub fn context_gone(_handle: ContextHandle) {}

    /// Every table is refused.
    pub fn export_table(_id: &[u8; 16]) -> Option<*const c_void> {
        None
    }
}
