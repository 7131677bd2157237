//! What a container is given so that a quota holds it: the library, its line in the loader's list, a limits file, and a region.
//!
//! Whoever gives it, the files are the same: the NRI plugin as the runtime makes a container, the DRA driver for a claim, the
//! device plugin for what the kubelet allocates.

mod files;

pub use files::{BY_ANNOTATIONS, BY_CLAIMS, BY_UNITS, Files, Given, Region, unusable};

use crate::library::{PRELOAD, limits_file};
use crate::regions::PREPARED;
use std::path::{Path, PathBuf};

/// Where regions are made unless something else is said.
pub const REGIONS: &str = "/run/gpuquota";
/// The region's directory in the container.
const DIRECTORY: &str = "/run/gpuquota";

/// The region's place in a container.
pub fn region() -> String {
    format!("{DIRECTORY}/{PREPARED}")
}

/// A file or a directory of the node at a place in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub source: PathBuf,
    pub destination: String,
    pub is_read_only: bool,
}

/// All of them.
///
/// The region's directory is mounted without write access and its file with it, so that no process of the container takes the
/// file away. The library has the same path on both sides.
pub fn binds(library: &Path, preload: &Path, given: &Given) -> [Bind; 5] {
    let bind = |source: &Path, destination: &str, is_read_only| Bind {
        source: source.to_owned(),
        destination: destination.to_owned(),
        is_read_only,
    };
    [
        bind(library, &library.to_string_lossy(), true),
        bind(preload, PRELOAD, true),
        bind(&given.limits, limits_file(), true),
        bind(&given.directory, DIRECTORY, true),
        bind(&given.directory.join(PREPARED), &region(), false),
    ]
}
