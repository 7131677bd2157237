//! The driver of this environment, whichever it is, asked as programs ask it.
//!
//! # Safety
//! Calls functions of two libraries by their documented signatures, with pointers to locals of this room; and every one
//! by a signature of its own with nothing but nulls, which may crash and is therefore done in a process for it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::io::Write;
use std::ptr::{null, null_mut};

use cuda_shim_symbols::{PER_THREAD_DEFAULT_STREAM, ROWS, Row, Stream};

/// A loaded library.
#[derive(Clone, Copy)]
pub struct Library(*mut c_void);

impl Library {
    /// Loads it; the dynamic linker's own words where that fails.
    pub fn load(name: &str) -> Result<Library, String> {
        let text = CString::new(name).map_err(|_| format!("{name:?} is no file name"))?;
        // SAFETY: a C string; libraries run their constructors, as in every program that loads them.
        let handle = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: dlerror answers a C string after a failure.
            return Err(unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy().into_owned());
        }
        Ok(Library(handle))
    }

    fn symbol(self, name: &str) -> Option<*mut c_void> {
        let name = CString::new(name).ok()?;
        // SAFETY: the handle is never closed; a C string.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    }
}

/// Declares a function of a library, called by its name: `None` without it, else its answer.
macro_rules! functions {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {
        impl Library {
            $(#[allow(non_snake_case)]
            fn $name(self, $($argument: $kind),*) -> Option<i32> {
                let found = self.symbol(stringify!($name))?;
                // SAFETY: NVIDIA's signature, and the callers pass pointers to their own locals.
                unsafe {
                    let call = std::mem::transmute::<*mut c_void, extern "C" fn($($kind),*) -> i32>(found);
                    Some(call($($argument),*))
                }
            })*
        }
    };
}

functions! {
    cuInit(flags: u32);
    cuDriverGetVersion(version: *mut i32);
    cuDeviceGetCount(count: *mut i32);
    cuDeviceGetName(name: *mut c_char, length: i32, device: i32);
    cuDeviceTotalMem_v2(bytes: *mut usize, device: i32);
    cuDeviceGetAttribute(value: *mut i32, id: i32, device: i32);
    cuDeviceGetPCIBusId(text: *mut c_char, length: i32, device: i32);
    cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: i32);
    cuCtxSetCurrent(context: *mut c_void);
    cuMemGetAllocationGranularity(bytes: *mut usize, properties: *const [u64; 4], option: u32);
    cuGetProcAddress_v2(name: *const c_char, found: *mut *mut c_void, version: i32, flags: u64, status: *mut u32);
    nvmlInit_v2();
    nvmlSystemGetDriverVersion(text: *mut c_char, length: u32);
    nvmlDeviceGetHandleByPciBusId_v2(address: *const c_char, device: *mut *mut c_void);
    nvmlDeviceGetPciInfo_v3(device: *mut c_void, info: *mut [u32; 17]);
    nvmlDeviceGetPowerManagementLimit(device: *mut c_void, milliwatts: *mut u32);
    nvmlDeviceGetMemoryInfo(device: *mut c_void, total_free_used: *mut [u64; 3]);
    nvmlDeviceGetComputeRunningProcesses_v3(device: *mut c_void, count: *mut u32, infos: *mut [u64; 3]);
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Attributes are asked for up to this number.
const ATTRIBUTES: i32 = cuda_shim_device::spec::ATTRIBUTES as i32;

/// Where a device stands on its bus; not recorded, because each machine puts its devices in their places.
const PLACES: [i32; 3] = [33, 34, 50];

/// What can be known of a device from outside.
#[derive(PartialEq, Eq)]
pub struct Device {
    pub name: String,
    pub bytes: u64,
    /// Number and value of those that the driver knows.
    pub attributes: Vec<(i32, i32)>,
    /// Of memory behind handles.
    pub granularity: Option<u64>,
    /// What a context takes of the memory, where NVML tells.
    pub context_bytes: Option<u64>,
    /// What a context takes besides, and NVML counts to no process.
    pub unlisted_bytes: Option<u64>,
    pub pci_id: Option<u32>,
    pub power_mw: Option<u32>,
}

/// CUDA and, where it is there, NVML.
pub struct Driver {
    cuda: Library,
    nvml: Option<Library>,
}

impl Driver {
    /// The libraries that this environment, or a folder, has.
    pub fn load(folder: Option<&str>) -> Result<Driver, String> {
        let path = |name: &str| folder.map_or(name.to_owned(), |folder| format!("{folder}/{name}"));
        let cuda = Library::load(&path("libcuda.so.1"))?;
        let nvml =
            Library::load(&path("libnvidia-ml.so.1")).ok().filter(|nvml| nvml.nvmlInit_v2() == Some(0));
        Ok(Driver { cuda, nvml })
    }

    /// The CUDA version that it supports.
    pub fn cuda_version(&self) -> Option<i32> {
        let mut version = 0;
        (self.cuda.cuDriverGetVersion(&mut version) == Some(0)).then_some(version)
    }

    /// Its own version.
    pub fn version(&self) -> Option<String> {
        let mut version = [0u8; 80];
        let told = self.nvml?.nvmlSystemGetDriverVersion(version.as_mut_ptr().cast(), 80);
        (told == Some(0)).then(|| text(&version))
    }

    /// The exports of [`ROWS`] that it does not hand out.
    pub fn lacks(&self) -> Vec<&'static str> {
        ROWS.iter().filter(|row| !self.has(row)).map(|row| row.export).collect()
    }

    fn has(&self, row: &Row) -> bool {
        let Ok(name) = CString::new(row.name) else { return false };
        let flags = if row.stream == Stream::PerThread { PER_THREAD_DEFAULT_STREAM } else { 0 };
        let (mut found, mut status) = (null_mut(), 0);
        let told =
            self.cuda.cuGetProcAddress_v2(name.as_ptr(), &mut found, row.version as i32, flags, &mut status);
        told == Some(0) && !found.is_null() && Some(found) == self.cuda.symbol(row.export)
    }

    /// Its devices; none if it cannot be initialised.
    pub fn devices(&self) -> Vec<Device> {
        let mut count = 0;
        if self.cuda.cuInit(0) == Some(0) {
            self.cuda.cuDeviceGetCount(&mut count);
        }
        (0..count).map(|device| self.device(device)).collect()
    }

    fn device(&self, device: i32) -> Device {
        let mut name = [0u8; 256];
        let mut bytes = 0;
        self.cuda.cuDeviceGetName(name.as_mut_ptr().cast(), 256, device);
        self.cuda.cuDeviceTotalMem_v2(&mut bytes, device);
        let attributes = (1..ATTRIBUTES).filter(|id| !PLACES.contains(id)).filter_map(|id| {
            let mut value = 0;
            (self.cuda.cuDeviceGetAttribute(&mut value, id, device) == Some(0)).then_some((id, value))
        });
        // Pinned memory of this device.
        let properties = [1, 1 | (device as u64) << 32, 0, 0];
        let mut granularity = 0;
        let told = self.cuda.cuMemGetAllocationGranularity(&mut granularity, &properties, 0);
        let (nvml, handle) = self
            .nvml
            .zip(self.handle(device))
            .map_or((None, null_mut()), |(nvml, handle)| (Some(nvml), handle));
        let (context_bytes, unlisted_bytes) =
            nvml.and_then(|nvml| self.context_bytes(nvml, handle, device)).unzip();
        let (mut pci, mut power) = ([0; 17], 0);
        let pci_told = nvml.is_some_and(|nvml| nvml.nvmlDeviceGetPciInfo_v3(handle, &mut pci) == Some(0));
        let power_told =
            nvml.is_some_and(|nvml| nvml.nvmlDeviceGetPowerManagementLimit(handle, &mut power) == Some(0));
        Device {
            name: text(&name),
            bytes: bytes as u64,
            attributes: attributes.collect(),
            granularity: (told == Some(0)).then_some(granularity as u64),
            context_bytes,
            unlisted_bytes,
            pci_id: pci_told.then_some(pci[7]),
            power_mw: power_told.then_some(power),
        }
    }

    /// NVML's handle of a device of CUDA's.
    fn handle(&self, device: i32) -> Option<*mut c_void> {
        let mut address = [0u8; 32];
        let mut handle = null_mut();
        let told = self.cuda.cuDeviceGetPCIBusId(address.as_mut_ptr().cast(), 32, device);
        let found = self.nvml?.nvmlDeviceGetHandleByPciBusId_v2(address.as_ptr().cast(), &mut handle);
        (told == Some(0) && found == Some(0)).then_some(handle)
    }

    /// What this process holds of a device once it has a context there and nothing else, and what the device has given out for
    /// that besides.
    fn context_bytes(&self, nvml: Library, handle: *mut c_void, device: i32) -> Option<(u64, u64)> {
        let mut context = null_mut();
        let used = || {
            let mut memory = [0u64; 3];
            (nvml.nvmlDeviceGetMemoryInfo(handle, &mut memory) == Some(0)).then_some(memory[2])
        };
        let before = used();
        let (mut infos, mut count) = ([[0u64; 3]; 128], 128);
        if self.cuda.cuDevicePrimaryCtxRetain(&mut context, device) != Some(0)
            || nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle, &mut count, infos.as_mut_ptr()) != Some(0)
        {
            return None;
        }
        let own = u64::from(std::process::id());
        let own = infos.iter().take(count as usize).find(|info| info[0] & 0xffff_ffff == own)?;
        let listed = Some(own[1]).filter(|bytes| *bytes != 0 && *bytes != u64::MAX)?;
        let grown = used().zip(before).and_then(|(after, before)| after.checked_sub(before));
        Some((listed, grown.unwrap_or(0).saturating_sub(listed)))
    }

    /// Calls every export from the `first` on with nulls, and tells the answer of each before it goes on to the next.
    pub fn call_with_nulls(&self, first: usize, with_context: bool) -> Result<(), String> {
        if with_context {
            self.cuda.cuInit(0);
        }
        let mut out = std::io::stdout();
        for (place, row) in ROWS.iter().enumerate().skip(first) {
            if row.name == "cuInit" {
                continue;
            }
            let Some(function) = self.cuda.symbol(row.export) else { continue };
            // Some calls take the context away; the next one finds it again.
            let mut context = null_mut();
            if with_context
                && (self.cuda.cuDevicePrimaryCtxRetain(&mut context, 0) != Some(0)
                    || self.cuda.cuCtxSetCurrent(context) != Some(0))
            {
                return Err(format!("{place} finds no context"));
            }
            let told = |error: std::io::Error| error.to_string();
            write!(out, "{place} ").and_then(|()| out.flush()).map_err(told)?;
            // SAFETY: an alarm ends a call that waits for ever. More arguments than the function takes do no harm by the
            // platform's calling convention; that nulls may crash is the point.
            let answer = unsafe {
                libc::alarm(10);
                type Nulls = extern "C" fn(
                    *const c_void,
                    *const c_void,
                    *const c_void,
                    *const c_void,
                    *const c_void,
                    *const c_void,
                    *const c_void,
                    *const c_void,
                    *const c_void,
                    *const c_void,
                    *const c_void,
                    *const c_void,
                ) -> i32;
                let call = std::mem::transmute::<*mut c_void, Nulls>(function);
                let none = null();
                call(none, none, none, none, none, none, none, none, none, none, none, none)
            };
            writeln!(out, "{answer}").map_err(told)?;
        }
        Ok(())
    }
}
