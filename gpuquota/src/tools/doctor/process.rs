//! What a running process has mapped.

use super::finding::Finding;
use super::preload::{NAME, is_ours, other_build, other_quota};
use crate::tools::messages::{DELETED, MAPPED_FINE, NO_PROGRAM, NOT_MAPPED, OTHER_QUOTA};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Whether the process is held.
pub fn look(pid: u32) -> Vec<Finding> {
    let maps = match fs::read(format!("/proc/{pid}/maps")) {
        Ok(maps) => maps,
        Err(error) => return vec![Finding::error(&NO_PROGRAM, format!("Process {pid}: {error}."))],
    };
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let who = format!("process {pid} ({})", command.trim());
    let files = files(&maps);
    let mut findings = Vec::new();
    // As the process sees it.
    let root = Path::new("/proc").join(pid.to_string()).join("root");
    let seen = |file: &Path| root.join(file.strip_prefix("/").unwrap_or(file));
    let is_ours = |file: &Path| name(file).starts_with(NAME.as_bytes()) || is_ours(file, &seen(file));
    for whose in files.iter().filter(|file| !is_ours(file)).filter_map(|file| other_quota(file)) {
        findings.push(Finding::error(&OTHER_QUOTA, format!("{who} has {whose}'s library mapped.")));
    }
    let ours = files.iter().find(|file| is_ours(file));
    let has_driver = files.iter().any(|file| name(file).starts_with(b"libcuda.so"));
    match ours {
        Some(file) if name(file).ends_with(b" (deleted)") => {
            findings.push(Finding::warning(&DELETED, format!("{who} has {} mapped.", file.display())));
        }
        Some(file) => {
            let fine = || Finding::fine(&MAPPED_FINE, format!("{who} has {} mapped.", file.display()));
            findings.push(other_build(&seen(file)).unwrap_or_else(fine));
        }
        None if has_driver => {
            findings.push(Finding::error(&NOT_MAPPED, format!("{who} has the driver, and no {NAME}.")));
        }
        None => {
            findings.push(Finding::warning(&NOT_MAPPED, format!("{who} has neither the driver nor {NAME}.")))
        }
    }
    findings
}

fn name(file: &Path) -> &[u8] {
    file.file_name().unwrap_or_default().as_bytes()
}

fn files(maps: &[u8]) -> BTreeSet<PathBuf> {
    let lines = maps.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| line.iter().position(|byte| *byte == b'/').map(|at| &line[at..]))
        .map(|path| PathBuf::from(OsStr::from_bytes(path)))
        .collect()
}
