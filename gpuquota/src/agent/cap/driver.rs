//! The driver's own limits by cgroup: NVML of CUDA 13.4, drivers from 615 on.
//!
//! Setting is believed only when reading tells the same: of a driver with the back-end "misc" the answer NOT_SUPPORTED means
//! both "not set" and "there is no such thing". The soft limit is left at zero, so nothing of it stays with the cgroups above
//! when the container's goes; one that somebody else has set is kept below the cap, and taken back by a reset.
//!
//! # Safety
//! This file may use `unsafe` because it calls two functions of NVML that nvml-wrapper does not know. Their types are those of
//! nvml.h of CUDA 13.5.
#![allow(unsafe_code)]

use super::backend::{Backend, Cap, Wanted};
use super::leaf::own;
use crate::agent::card::Card;
use crate::regions::Device;
use std::ffi::{CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `NVML_DEVICE_MEMORY_LIMIT_MAX`: no hard limit.
const NO_LIMIT: u64 = u64::MAX;
/// The kernel counts in pages, the largest of which are of 64 KiB.
const PAGE: u64 = 64 << 10;
/// What NVML answers, `nvmlReturn_t`.
const SUCCESS: u32 = 0;
const NO_PERMISSION: u32 = 4;
const NOT_SUPPORTED: u32 = 3;
const NOT_FOUND: u32 = 6;
const OPERATING_SYSTEM: u32 = 17;

/// `nvmlSetMemoryLimits_v1_t`.
#[repr(C)]
struct SetLimits {
    name_space: *const c_char,
    soft: u64,
    hard: u64,
}

/// `nvmlGetMemoryLimits_v1_t`.
#[repr(C)]
struct GetLimits {
    name_space: *const c_char,
    soft: u64,
    hard: u64,
    used: u64,
}

type Set = unsafe extern "C" fn(*mut c_void, *mut SetLimits) -> u32;
type Get = unsafe extern "C" fn(*mut c_void, *mut GetLimits) -> u32;

/// Soft and hard limit.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Limits {
    soft: u64,
    hard: u64,
}

const NONE: Limits = Limits { soft: 0, hard: NO_LIMIT };

/// The driver's limits of one container.
pub struct Driver {
    card: Card,
    cgroup: PathBuf,
}

fn refused(code: u32) -> String {
    match code {
        NO_PERMISSION => "the driver lets only root set limits".to_owned(),
        NOT_SUPPORTED => "this driver, or this device, has no limits by cgroup".to_owned(),
        NOT_FOUND => "the cgroup has no dmem controller: enable it in the one above".to_owned(),
        OPERATING_SYSTEM => "the driver cannot open the cgroup".to_owned(),
        code => format!("NVML answers {code}"),
    }
}

impl Driver {
    /// Those of the container whose own cgroup this is.
    pub fn of(cgroup: &Path) -> Result<Self, String> {
        Ok(Self { card: Card::open()?, cgroup: own(cgroup)? })
    }

    fn call<F: Copy>(&self, name: &str, device: &Device) -> Result<(F, *mut c_void), String> {
        let nvml = self.card.library();
        // SAFETY: `F` is the type of that function in nvml.h, and the library stays open as long as `self`.
        let function = unsafe { nvml.lib().__library.get::<F>(name.as_bytes()) };
        let function = *function.map_err(|_| refused(NOT_SUPPORTED))?;
        let handle =
            nvml.device_by_uuid(&*device.uuid).map_err(|error| format!("{}: {error}", device.uuid))?;
        // SAFETY: the handle is used while NVML is open.
        Ok((function, unsafe { handle.handle() }.cast()))
    }

    fn write(&self, device: &Device, limits: Limits) -> Result<(), String> {
        let (set, handle) = self.call::<Set>("nvmlDeviceSetMemoryLimits_v1\0", device)?;
        let name = c_path(&self.cgroup)?;
        let mut limits = SetLimits { name_space: name.as_ptr(), soft: limits.soft, hard: limits.hard };
        // SAFETY: a handle of this NVML, and a structure that lives as long as the call, with a string that does.
        match unsafe { set(handle, &mut limits) } {
            SUCCESS => Ok(()),
            code => Err(refused(code)),
        }
    }

    /// What the driver says of a cgroup; `None` where nothing is set, or nothing can be.
    fn read(&self, device: &Device, cgroup: &Path) -> Result<Option<Limits>, String> {
        let (get, handle) = self.call::<Get>("nvmlDeviceGetMemoryLimits_v1\0", device)?;
        let name = c_path(cgroup)?;
        let mut told = GetLimits { name_space: name.as_ptr(), soft: 0, hard: 0, used: 0 };
        // SAFETY: as in `write`.
        match unsafe { get(handle, &mut told) } {
            SUCCESS => Ok(Some(Limits { soft: told.soft, hard: told.hard }).filter(|limits| *limits != NONE)),
            NOT_SUPPORTED | NOT_FOUND => Ok(None),
            code => Err(refused(code)),
        }
    }

    /// Whether the container's own cgroup has limits, and not only one above it.
    fn has_own(&self) -> bool {
        self.cgroup.join("dmem.max").exists()
    }
}

fn c_path(path: &Path) -> Result<CString, String> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| "there is a NUL in the cgroup's name".to_owned())
}

impl Backend for Driver {
    fn name(&self) -> &'static str {
        "driver"
    }

    fn set(&self, device: &Device, wanted: &Wanted) -> Result<(), String> {
        let hard = match wanted.memory {
            Some(bytes) => bytes,
            None if wanted.reset => NO_LIMIT,
            None => return Ok(()),
        };
        let before = self.read(device, &self.cgroup)?.unwrap_or(NONE);
        let soft = if wanted.reset || matches!(self.cap(device)?, Cap::Above(..)) {
            0
        } else {
            before.soft.min(hard)
        };
        self.write(device, Limits { soft, hard })?;
        let after = self.read(device, &self.cgroup)?;
        let holds = match after {
            None => hard == NO_LIMIT,
            Some(after) => after.hard <= hard && hard - after.hard < PAGE,
        };
        if holds {
            Ok(())
        } else {
            Err("the driver took the limit and does not tell it again: it does not hold".to_owned())
        }
    }

    fn cap(&self, device: &Device) -> Result<Cap, String> {
        let own = self.read(device, &self.cgroup)?.map_or(NO_LIMIT, |limits| limits.hard);
        // A cgroup without a limit of its own is told as having that of the nearest one above, unless it has the kernel's
        // files: then only its own.
        let mut found = (own, self.cgroup.clone());
        for above in self.cgroup.ancestors().skip(1) {
            let Some(limits) = self.read(device, above).ok().flatten() else { break };
            let is_nearer = limits.hard == found.0 && !self.has_own();
            if limits.hard < found.0 || is_nearer {
                found = (limits.hard, above.to_path_buf());
            }
        }
        Ok(match found {
            (NO_LIMIT, _) => Cap::Unset,
            (bytes, at) if at == self.cgroup => Cap::Of(bytes),
            (bytes, at) => Cap::Above(bytes, at),
        })
    }
}
