//! The driver, NVML, and what the library knows of them.

use super::elf::{self, Elf};
use super::finding::Finding;
use super::surface::{Standing, Surface, is_api};
use crate::agent::card::Card;
use crate::regions::shown;
use crate::run::driver;
use crate::tools::messages::{
    ABSENT_DEVICE, CARD_LOST, COVERED, DRIVER_FINE, MIG, MPS, MPS_ABSENT, NO_DRIVER, NO_NVML,
    UNKNOWN_ENTRIES, WSL,
};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Names that are listed.
const LISTED: usize = 5;
/// Where MPS has its pipes where nothing says otherwise.
const PIPES: &str = "tmp/nvidia-mps";

/// What is there.
pub fn look(system: &Path) -> Vec<Finding> {
    let mut findings = nvml();
    if driver::is_there() {
        let mapped = mapped();
        for name in ["libcuda.so", "libnvidia-ml.so"] {
            let path = mapped.iter().find(|path| file_name(path).starts_with(name.as_bytes()));
            findings.extend(path.and_then(|path| coverage(path)));
        }
    } else {
        findings.push(Finding::warning(&NO_DRIVER, "libcuda.so.1 is not found."));
    }
    findings.extend(mps(system));
    if system.join("dev/dxg").exists() {
        findings.push(Finding::note(&WSL, format!("{} is there.", shown(&system.join("dev/dxg")))));
    }
    findings
}

fn nvml() -> Vec<Finding> {
    let card = match Card::open() {
        Ok(card) => card,
        Err(error) => return vec![Finding::warning(&NO_NVML, format!("NVML says: {error}."))],
    };
    let devices = card.devices(&[]);
    let library = card.library();
    let many = library.device_count().unwrap_or(0);
    let mut findings = Vec::new();
    for index in (0..many).filter(|index| !devices.iter().any(|device| device.index == *index)) {
        findings.push(Finding::error(&CARD_LOST, format!("Card {index} does not answer.")));
    }
    let split = |index: u32| {
        let device = library.device_by_index(index).ok()?;
        device.mig_device_count().ok().filter(|_| device.mig_device_by_index(0).is_ok())
    };
    for (index, most) in (0..many).filter_map(|index| Some((index, split(index)?))) {
        findings.push(Finding::note(&MIG, format!("Card {index} has MIG instances, at most {most}.")));
    }
    let named: Vec<String> =
        devices.iter().map(|device| format!("{} {}", device.index, device.name)).collect();
    findings.push(Finding::fine(&DRIVER_FINE, format!("Driver {}: {}.", card.driver(), named.join(", "))));
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    for word in visible.split(',').map(str::trim).filter(|word| word.starts_with("GPU-")) {
        // CUDA takes a part of a UUID too.
        if !devices.iter().any(|device| device.uuid.starts_with(word)) {
            let says = format!("CUDA_VISIBLE_DEVICES names {word}; there are {} cards.", devices.len());
            findings.push(Finding::error(&ABSENT_DEVICE, says));
        }
    }
    findings
}

pub fn file_name(path: &Path) -> &[u8] {
    path.file_name().unwrap_or_default().as_bytes()
}

/// The files that this process has mapped, the driver's among them.
pub fn mapped() -> BTreeSet<PathBuf> {
    let maps = std::fs::read("/proc/self/maps").unwrap_or_default();
    let lines = maps.split(|byte| *byte == b'\n');
    let paths = lines.filter_map(|line| line.iter().position(|byte| *byte == b'/').map(|at| &line[at..]));
    paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
}

fn coverage(path: &Path) -> Option<Finding> {
    let all = Elf::parse(&elf::read(path).ok()?)?.exports();
    let surface = Surface::of_library()?;
    let is_unknown = |name: &&String| is_api(name) && surface.standing(name) == Standing::Unknown;
    let unknown: Vec<&String> = all.iter().filter(is_unknown).collect();
    Some(if unknown.is_empty() {
        Finding::fine(&COVERED, format!("{} exports {} names.", shown(path), all.len()))
    } else {
        let some: Vec<&str> = unknown.iter().take(LISTED).map(|name| name.as_str()).collect();
        let says = format!("{} of {}, among them {}.", unknown.len(), shown(path), some.join(", "));
        Finding::warning(&UNKNOWN_ENTRIES, says)
    })
}

fn mps(system: &Path) -> Option<Finding> {
    let named = std::env::var_os("CUDA_MPS_PIPE_DIRECTORY").filter(|path| !path.is_empty());
    let folder = named.as_ref().map_or_else(|| system.join(PIPES), PathBuf::from);
    let is_there = folder.join("control").exists();
    match (is_there, named) {
        (true, _) => Some(Finding::note(&MPS, format!("{} has a control pipe.", shown(&folder)))),
        (false, Some(_)) => {
            let says = format!("CUDA_MPS_PIPE_DIRECTORY is {}, where no control pipe is.", shown(&folder));
            Some(Finding::warning(&MPS_ABSENT, says))
        }
        (false, None) => None,
    }
}
