//! What the private tables ask of the driver whose tables they are.

use core::ffi::c_void;
use std::sync::OnceLock;

/// `CUresult`.
pub(crate) type Result = i32;
pub(crate) const SUCCESS: Result = 0;
pub(crate) const INVALID_VALUE: Result = 1;
pub(crate) const NOT_INITIALIZED: Result = 3;
pub(crate) const INVALID_CONTEXT: Result = 201;
pub(crate) const INVALID_HANDLE: Result = 400;
pub(crate) const NOT_SUPPORTED: Result = 801;

/// `CUcontext`, null for none.
pub type Context = *mut c_void;

/// What the private tables ask of the driver. Set once, in `cuInit`.
pub struct Driver {
    /// The handle of a device's primary context, which need not be active, or a `CUresult` if there is no
    /// such device. It must be the handle that `cuDevicePrimaryCtxRetain` gives out for this device.
    pub primary_context: fn(device: i32) -> core::result::Result<Context, i32>,
    /// The calling thread's current context, or null.
    pub current_context: fn() -> Context,
    /// Whether a context of this handle exists.
    pub is_context: fn(context: Context) -> bool,
    /// Loads a module into the current context as `cuModuleLoadData` does and stores its handle; the image
    /// is a fatbin wrapper (magic 0x466243b1) or a fatbin (0xba55ed50). Answers a `CUresult`.
    pub load_module: unsafe fn(module: *mut *mut c_void, image: *const c_void) -> i32,
    /// As `cuDriverGetVersion`.
    pub version: fn() -> u32,
    /// As `cuDeviceGetUuid` and the PCI attributes have it, for every device in the order of `cuDeviceGet`.
    pub identities: fn() -> Vec<Identity>,
}

/// By what a device is known to the integrity check; the public functions must say the same.
pub struct Identity {
    /// As `cuDeviceGetUuid`, in its first version: of an instance it is that of the whole device.
    pub uuid: [u8; 16],
    /// As `PCI_DOMAIN_ID`, `PCI_BUS_ID`, `PCI_DEVICE_ID`.
    pub pci: [i32; 3],
}

/// The driver behind the tables.
pub static DRIVER: OnceLock<Driver> = OnceLock::new();
