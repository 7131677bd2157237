//! Where the container's region is: the same rule for every process, so that all of them share one.

use super::knob::{CONTAINER_NAME, HAMI_REGION, KNOBS, POD_UID, REGION, VGPU_MOUNT};
use super::problem::{Origin, Problem, Reason};
use super::types::Env;
use crate::text::Fixed;
use core::ffi::CStr;

/// Where HAMi's library keeps the region by default.
pub const DEFAULT_REGION: &str = "/tmp/cudevshr.cache";

/// The limits file: the operator mounts it read-only, and it outranks the environment.
pub const LIMITS_FILE: &CStr = c"/etc/gpuquota/limits";
/// It, and any file of limits, must be shorter than this.
pub const LIMITS_FILE_BYTES: usize = 8192;

const DEFAULT_MOUNT: &[u8] = b"/usr/local/vgpu";

/// A path with its NUL.
pub type Path = Fixed<1024>;

/// The region's path, and whether another one may replace it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionPath {
    /// The file, absolute.
    pub path: Path,
    /// Whether [`DEFAULT_REGION`] is used when this one cannot be opened.
    pub may_fall_back: bool,
}

/// Finds the region's path where the limits file names none. An empty variable counts as absent.
///
/// # Errors
/// The chosen path is relative (every process would have its own region) or longer than 1023 bytes.
pub fn region_path(env: Env<'_, '_>) -> Result<RegionPath, Problem> {
    let given = |name| env(name).filter(|value| !value.is_empty());
    for name in [REGION, HAMI_REGION] {
        if let Some(path) = given(name) {
            return absolute(name, path, &[path], false);
        }
    }
    match (given(POD_UID), given(CONTAINER_NAME)) {
        (Some(pod), Some(container)) => {
            let mount = given(VGPU_MOUNT).unwrap_or(DEFAULT_MOUNT);
            absolute(VGPU_MOUNT, mount, &[mount, b"/containers/", pod, b"_", container], true)
        }
        _ => absolute(REGION, b"", &[DEFAULT_REGION.as_bytes()], false),
    }
}

/// A region's path as it is given.
pub(super) fn checked(path: &[u8]) -> Result<Path, Reason> {
    joined(&[path])
}

fn joined(parts: &[&[u8]]) -> Result<Path, Reason> {
    let mut path = Path::new();
    let fits = parts.iter().all(|part| path.push(part));
    match path.as_bytes().first() {
        _ if !fits => Err(Reason::PathTooLong),
        Some(b'/') => Ok(path),
        _ => Err(Reason::PathRelative),
    }
}

fn absolute(
    name: &'static str,
    value: &[u8],
    parts: &[&[u8]],
    may_fall_back: bool,
) -> Result<RegionPath, Problem> {
    joined(parts).map(|path| RegionPath { path, may_fall_back }).map_err(|wrong| {
        let origin = Origin::Env(Fixed::copy_of(name.as_bytes()).unwrap_or_default());
        let instead = KNOBS.iter().find(|knob| knob.name == name).map_or("", |knob| knob.write);
        Problem::new(origin, value, wrong, instead)
    })
}
