//! Limits of memory by cgroup: setting and telling them. [`cuda_shim_device::cgroup`] holds allocations to them.
//!
//! A soft limit of *dmem* is added to that of each directory above it that has one, and a directory without the files has what the
//! next one above has. A directory without limits of *misc* is `NVML_ERROR_NOT_SUPPORTED`, as where there is no back-end at all.

use core::ffi::c_char;
use std::path::{Path, PathBuf};

use cuda_shim_device::cgroup::{self, NO_LIMIT, first, is_dmem, key, misc_limits, put_line, set_misc_limits};

use crate::abi::{Answer, Error, Out, Text};
use crate::export::nvml;
use crate::library::{Device, Handle};
use crate::types::{GetLimits, SetLimits};

/// The device, and its driver has limits.
fn device(device: Handle) -> Result<Device, Error> {
    let device = device.unsplit()?;
    if cgroup::has_limits(device.state.machine()) { Ok(device) } else { Err(Error::NotSupported) }
}

fn directory(name: *const c_char) -> Result<PathBuf, Error> {
    let path = PathBuf::from(Text::of(name).get()?);
    if path.is_absolute() && path.is_dir() { Ok(path) } else { Err(Error::OperatingSystem) }
}

fn set(device: &Device, directory: &Path, soft: u64, hard: u64) -> Answer {
    let total = device.spec.total_bytes;
    let is_wrong = soft > hard || soft > total || hard > total && hard != NO_LIMIT;
    if is_wrong {
        return Err(Error::InvalidArgument);
    }
    let failed = |_| Error::OperatingSystem;
    if !is_dmem(directory) {
        return set_misc_limits(directory, device.spec, [soft, hard]).map_err(failed);
    }
    let key = key(device.spec);
    let before = first(&directory.join("dmem.min"), &key).unwrap_or(0);
    put_line(&directory.join("dmem.max"), &key, &[hard]).map_err(failed)?;
    put_line(&directory.join("dmem.min"), &key, &[soft]).map_err(failed)?;
    for above in directory.ancestors().skip(1).take_while(|above| above.join("dmem.min").exists()) {
        let file = above.join("dmem.min");
        let of_tree = first(&file, &key).unwrap_or(0);
        put_line(&file, &key, &[of_tree.saturating_sub(before).saturating_add(soft)]).map_err(failed)?;
    }
    Ok(())
}

/// Soft and hard limit and what is in use.
fn get(device: &Device, directory: &Path) -> Result<[u64; 3], Error> {
    let used = |of: &Path| cgroup::id(of).map_or(0, |id| device.state.bytes_of_cgroup(device.index, id));
    if let Some(own) = directory.ancestors().find(|above| is_dmem(above)) {
        let of = |file: &str, unset: u64| first(&own.join(file), &key(device.spec)).unwrap_or(unset);
        return Ok([of("dmem.min", 0), of("dmem.max", NO_LIMIT), used(own)]);
    }
    let mut above = directory.ancestors();
    let nearest = above.find_map(|above| Some((above, misc_limits(above, device.spec)?)));
    let (own, [soft, hard]) = nearest.ok_or(Error::NotSupported)?;
    Ok([soft, hard, used(own)])
}

nvml! {
    /// Sets both limits of a cgroup.
    fn nvmlDeviceSetMemoryLimits_v1(handle: Handle, limits: Out<SetLimits>) {
        let device = device(handle)?;
        let SetLimits { name_space, soft, hard } = limits.get()?;
        set(&device, &directory(name_space)?, soft, hard)
    }

    /// Those that hold there.
    fn nvmlDeviceGetMemoryLimits_v1(handle: Handle, limits: Out<GetLimits>) {
        let device = device(handle)?;
        let asked = limits.get()?;
        let [soft, hard, used] = get(&device, &directory(asked.name_space)?)?;
        limits.put(GetLimits { soft, hard, used, ..asked })
    }
}
