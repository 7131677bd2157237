//! The region that programs would use which are started here.

use super::finding::Finding;
use crate::environment::Environment;
use crate::regions::{self, EventKind, shown};
use crate::tools::messages::{
    NO_REGION, REGION_FINE, REGION_LOCKED, REGION_TOLD, REGION_UNFIT, REGION_WRONG,
};
use gpuquota_quota::limits::DEFAULT_REGION;
use rustix::fs::{Access, access};
use std::path::{Path, PathBuf};

/// The region and its rights.
pub fn look(system: &Path) -> Vec<Finding> {
    let path = match Environment::inherited().region_below(system) {
        Ok(path) => path.unwrap_or_else(|| PathBuf::from(DEFAULT_REGION)),
        Err(error) => return vec![Finding::error(&REGION_WRONG, error.to_string())],
    };
    let name = shown(&path);
    if !path.exists() {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let says = format!("{name} does not exist");
        return vec![match access(folder, Access::WRITE_OK) {
            Ok(()) => Finding::note(&NO_REGION, says + "."),
            Err(error) => Finding::error(&REGION_LOCKED, format!("{says}, and {}: {error}.", shown(folder))),
        }];
    }
    let region = match regions::read_path(&path) {
        Ok(region) => region,
        Err(why) => return vec![Finding::error(&REGION_UNFIT, format!("{name}: {why}."))],
    };
    if let Err(error) = access(&path, Access::READ_OK | Access::WRITE_OK) {
        return vec![Finding::error(&REGION_LOCKED, format!("{name}: {error}."))];
    }
    let told = region.events.iter().filter_map(|event| match event.kind {
        EventKind::BadLimits { problems } => Some(format!("{problems} limits were not understood")),
        EventKind::TwoRegions { .. } => Some("there are two regions of this path".to_owned()),
        EventKind::Shared { user, .. } => Some(format!("it is shared with user {user} or another container")),
        _ => None,
    });
    let told: std::collections::BTreeSet<String> = told.collect();
    let living = region.alive().count();
    if told.is_empty() {
        vec![Finding::fine(&REGION_FINE, format!("{name} has {living} living processes."))]
    } else {
        let told: Vec<String> = told.into_iter().collect();
        vec![Finding::warning(&REGION_TOLD, format!("{name}: {}.", told.join("; ")))]
    }
}
