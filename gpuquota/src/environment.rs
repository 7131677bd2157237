//! The environment of this process as `quota::limits` asks for it.

use crate::error::Error;
use gpuquota_quota::limits::{self, DEFAULT_REGION, LIMITS_FILE};
use gpuquota_quota::text::Line;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The longest limits file that is read.
const MOST_BYTES: u64 = 8192;

/// The limits file. Whatever lies there, nothing waits for it.
fn limits_file() -> io::Result<Vec<u8>> {
    let path = OsStr::from_bytes(LIMITS_FILE.to_bytes());
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut text = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

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

    /// The region of the container that we are in, if the limits file or the environment says that we are in one.
    pub fn region(&self) -> Result<Option<PathBuf>, Error> {
        let file = limits_file().unwrap_or_default();
        if let Some(path) = limits::read(&|_| None, Some(&file)).region {
            return Ok(Some(OsStr::from_bytes(path.as_bytes()).into()));
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
