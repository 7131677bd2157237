//! What the tests of the command line share: the program itself, a scratch directory and sample regions.

// Every test file is a crate of its own and uses its part of this.
#![allow(dead_code)]

pub mod agent;
pub mod exposition;

use gpuquota_region::{Region, layout, slot};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub const UUID: &str = "GPU-8f3a1c2d-0000-4a5b-9c6d-001122334455";

/// A library that changes nothing: the C library, which every command has anyway.
pub fn harmless_library() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    maps.split_whitespace().find(|word| word.ends_with("libc.so.6")).expect("a libc").to_owned()
}

/// The program, with that library.
pub fn gpuquota() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpuquota"));
    for name in ["GPUQUOTA_REGION", "CUDA_DEVICE_MEMORY_SHARED_CACHE", "POD_UID", "LD_PRELOAD"] {
        command.env_remove(name);
    }
    command.env("GPUQUOTA_LIBRARY", harmless_library());
    // Whatever agent runs on this machine is not of the test.
    command.env("GPUQUOTA_AGENT", "none");
    command
}

pub fn output(command: &mut Command) -> Output {
    command.output().expect("gpuquota starts")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// A directory that goes with this value.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gpuquota-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// A region with one device: 2 GiB and 30 %, half of the memory used.
pub fn sample(path: &Path) -> Region {
    let region = Region::open(&c_path(path), 1).expect("a region");
    let device = &region.ours().devices[0];
    for (word, bytes) in device.uuid.iter().zip(UUID.as_bytes().chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_le_bytes(padded), Relaxed);
    }
    device.memory_limit.store(2 << 30, Relaxed);
    device.core_limit.store(30, Relaxed);
    device.used.store(1 << 30, Relaxed);
    device.peak.store(3 << 29, Relaxed);
    device.denied.store(5, Relaxed);
    region.ours().header.refusals[0][layout::REFUSED_MEMORY_LIMIT].store(5, Relaxed);
    device.gpu_time_ns.store(2_500_000_000, Relaxed);
    device.waited_ns.store(500_000_000, Relaxed);
    device.launches.store(9, Relaxed);
    device.state.store(layout::DEVICE_READY, Relaxed);
    region
}

/// This test's own process as one of the region's, holding a quarter of a GiB.
pub fn join(region: &Region, path: &Path) -> usize {
    struct Nothing;
    impl slot::SettleSlot for Nothing {
        fn settle_slot(&mut self, _: &Region, _: usize, _: bool) -> bool {
            true
        }
    }
    let index = slot::claim(region, &c_path(path), &gpuquota_region::kept::RegionFile::new(), &mut Nothing)
        .expect("a slot");
    region.ours().slots[index].journal_device[0].store(1, Relaxed);
    region.ours().journals[index][0].held.store((1 << 28) << layout::HELD_SHIFT, Relaxed);
    region.ours().slots[index].pending_ns[0].store(4_000_000, Relaxed);
    index
}

/// The value of a series.
pub fn value<'t>(text: &'t str, series: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
}

/// Reasons and counts of the files that were not taken.
pub fn errors(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| {
            line.strip_prefix("gpuquota_region_parse_errors_total{reason=\"")?.split_once("\"} ")
        })
        .collect()
}
