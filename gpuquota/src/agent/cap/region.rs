//! The region: the operator's row of it outranks what processes bring.

use super::backend::{Backend, Cap, Wanted};
use crate::regions::{self, Device};
use gpuquota_region::Region;
use gpuquota_region::layout::OPERATOR_ROW;
use gpuquota_region::limits::{Asked, AskedLimits};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The region of a container.
pub struct InRegion {
    path: PathBuf,
    region: Region,
}

impl InRegion {
    /// The one at this path.
    pub fn at(path: &Path) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_bytes());
        let name = name.map_err(|_| "there is a NUL in its name".to_owned())?;
        let region = Region::existing(&name).map_err(|why| why.to_string())?;
        Ok(Self { path: path.to_path_buf(), region })
    }
}

impl Backend for InRegion {
    fn name(&self) -> &'static str {
        "region"
    }

    fn set(&self, device: &Device, wanted: &Wanted) -> Result<(), String> {
        let asked = |value: u64| Asked { value, from_file: false };
        let before = self.region.asked_limits(OPERATOR_ROW, device.index);
        let before = before.filter(|_| !wanted.reset).unwrap_or_default();
        let set = AskedLimits {
            memory: wanted.memory.map(asked).or(before.memory),
            cores: wanted.cores.map(|percent| asked(percent.into())).or(before.cores),
            request: wanted.request.map(|percent| asked(percent.into())).or(before.request),
            ..before
        };
        self.region.change_limits(OPERATOR_ROW, device.index, set.any().then_some(set));
        Ok(())
    }

    fn cap(&self, device: &Device) -> Result<Cap, String> {
        let region = regions::read_path(&self.path).map_err(|why| why.to_string())?;
        let of_device = region.devices.iter().find(|own| own.index == device.index);
        Ok(of_device.and_then(|device| device.memory_limit).map_or(Cap::Unset, Cap::Of))
    }
}
