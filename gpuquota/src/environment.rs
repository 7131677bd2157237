//! The environment of this process as `quota::limits` asks for it.

use crate::error::Error;
use crate::limits_file;
use gpuquota_quota::limits::{self, DEFAULT_REGION};
use gpuquota_quota::text::Line;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Names and values.
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// The environment that this process was given.
    pub fn inherited() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// An environment of these variables alone.
    pub fn of(variables: &[(&'static str, OsString)]) -> Self {
        Self(variables.iter().map(|(name, value)| (OsString::from(name), value.clone())).collect())
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_bytes())
    }

    /// The region of the container that we are in, if a limits file or the environment says that we are in one.
    pub fn region(&self) -> Result<Option<PathBuf>, Error> {
        self.region_below(Path::new("/"))
    }

    /// The same, with the limits files below a folder that stands for `/`.
    pub fn region_below(&self, system: &Path) -> Result<Option<PathBuf>, Error> {
        let file = limits_file::find(system).ok().flatten();
        if let Some(path) = file.and_then(|file| file.region()) {
            return Ok(Some(path));
        }
        let region = limits::region_path(&|name| self.get(name)).map_err(|problem| {
            let mut line = Line::<512>::new();
            problem.write(&mut line, limits::Consequence::Ignored);
            Error::Asked(line.to_string())
        })?;
        let path = Path::new(OsStr::from_bytes(region.path.as_bytes()));
        let path = if region.may_fall_back && !path.exists() { Path::new(DEFAULT_REGION) } else { path };
        Ok((path != Path::new(DEFAULT_REGION)).then(|| path.to_path_buf()))
    }
}
