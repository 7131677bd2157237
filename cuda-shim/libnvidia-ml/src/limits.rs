//! Limits of memory by cgroup, as drivers from 615 on have them. Both back-ends are here; which one works is told by the cgroup.
//!
//! - *dmem*: a directory with `dmem.max`. The kernel holds the limits in its files, one line for each device, and a soft limit is
//!   added to that of each directory above it that has one. A directory without the files has what the next one above has.
//! - *misc*: any other directory. The driver holds the limits, one for each directory, and the nearest one counts. A real driver
//!   forgets them with the directory; so does this one, which keeps them in a hidden file there. A directory without any is
//!   `NVML_ERROR_NOT_SUPPORTED`, as where there is no back-end at all.
//!
//! No allocation is held to them.

use core::ffi::c_char;
use std::fs;
use std::path::{Path, PathBuf};

use crate::abi::{Answer, Error, Out, Text};
use crate::export::nvml;
use crate::library::{Device, Handle};
use crate::types::{GetLimits, SetLimits};

/// `NVML_DEVICE_MEMORY_LIMIT_MAX`: no hard limit.
const NO_LIMIT: u64 = u64::MAX;
/// The first driver that has them.
const SINCE: u32 = 615;
/// Where the misc back-end's limits lie.
const HIDDEN: &str = ".cuda-sim-memory-limits";

/// The device, and its driver has limits.
fn device(device: Handle) -> Result<Device, Error> {
    let device = device.unsplit()?;
    let version =
        device.state.machine().driver_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if version >= Some(SINCE) { Ok(device) } else { Err(Error::NotSupported) }
}

fn directory(name: *const c_char) -> Result<PathBuf, Error> {
    let path = PathBuf::from(Text::of(name).get()?);
    if path.is_absolute() && path.is_dir() { Ok(path) } else { Err(Error::OperatingSystem) }
}

/// What the kernel calls the device in its files.
fn key(device: &Device) -> String {
    format!("nvidia/{}", device.spec.pci_bus_id().to_lowercase())
}

/// The words behind a key in a file of lines.
fn line(file: &Path, key: &str) -> Option<Vec<u64>> {
    let text = fs::read_to_string(file).ok()?;
    let words = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    words
        .split_whitespace()
        .map(|word| if word == "max" { Some(NO_LIMIT) } else { word.parse().ok() })
        .collect()
}

/// Replaces them.
fn put_line(file: &Path, key: &str, words: &[u64]) -> Answer {
    let text = fs::read_to_string(file).unwrap_or_default();
    let others =
        text.lines().filter(|line| !line.strip_prefix(key).is_some_and(|rest| rest.starts_with(' ')));
    let words = words.iter().map(|word| if *word == NO_LIMIT { "max".to_owned() } else { word.to_string() });
    let own = format!("{key} {}", words.collect::<Vec<_>>().join(" "));
    let lines: Vec<&str> = others.chain([own.as_str()]).collect();
    fs::write(file, lines.join("\n") + "\n").map_err(|_| Error::OperatingSystem)
}

fn is_dmem(directory: &Path) -> bool {
    directory.join("dmem.max").exists()
}

fn first(file: PathBuf, key: &str) -> Option<u64> {
    line(&file, key)?.first().copied()
}

fn set(device: &Device, directory: &Path, soft: u64, hard: u64) -> Answer {
    let total = device.spec.total_bytes;
    let is_wrong = soft > hard || soft > total || hard > total && hard != NO_LIMIT;
    if is_wrong {
        return Err(Error::InvalidArgument);
    }
    if !is_dmem(directory) {
        return put_line(&directory.join(HIDDEN), &device.spec.uuid_string(), &[soft, hard]);
    }
    let key = key(device);
    let before = first(directory.join("dmem.min"), &key).unwrap_or(0);
    put_line(&directory.join("dmem.max"), &key, &[hard])?;
    put_line(&directory.join("dmem.min"), &key, &[soft])?;
    for above in directory.ancestors().skip(1).take_while(|above| above.join("dmem.min").exists()) {
        let file = above.join("dmem.min");
        let of_tree = first(file.clone(), &key).unwrap_or(0);
        put_line(&file, &key, &[of_tree.saturating_sub(before).saturating_add(soft)])?;
    }
    Ok(())
}

/// Soft and hard limit and what is in use.
fn get(device: &Device, directory: &Path) -> Result<[u64; 3], Error> {
    let key = key(device);
    if let Some(own) = directory.ancestors().find(|above| is_dmem(above)) {
        let of = |file: &str, unset: u64| first(own.join(file), &key).unwrap_or(unset);
        return Ok([of("dmem.min", 0), of("dmem.max", NO_LIMIT), of("dmem.current", 0)]);
    }
    let uuid = device.spec.uuid_string();
    let nearest = directory.ancestors().find_map(|above| line(&above.join(HIDDEN), &uuid));
    match nearest.as_deref() {
        Some([soft, hard]) => Ok([*soft, *hard, 0]),
        _ => Err(Error::NotSupported),
    }
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
