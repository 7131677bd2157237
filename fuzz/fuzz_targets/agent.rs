//! The agent's search of a directory that a tenant can write: any names, and a region damaged in any way, alone and beside others.
#![no_main]

#[allow(dead_code)]
#[path = "../../gpuquota/src/regions"]
mod regions {
    mod asked;
    mod directory;
    mod events;
    mod index;
    mod kinds;
    mod look;
    mod names;
    mod place;
    mod read;
    mod reap;
    mod refusals;
    mod report;
    mod unreadable;
    mod watch;

    pub use index::{Has, Index};
    pub use place::Places;
    pub use reap::{SETTLE, settle};
}

use arbitrary::Arbitrary;
use gpuquota_fuzz::{Damage, Unnamed};
use gpuquota_region::layout::{self, DEVICE_READY};
use libfuzzer_sys::fuzz_target;
use regions::{Has, Index, Places};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{LazyLock, Mutex};

/// A region with a device, a process and an event.
static SAMPLE: LazyLock<Mutex<Vec<u8>>> = LazyLock::new(|| {
    let file = Unnamed::new(&[]);
    file.opened(|region| {
        let region = region.expect("an empty file becomes a region");
        let ours = region.ours();
        ours.devices[0].state.store(DEVICE_READY, Relaxed);
        ours.slots[0].state.store(layout::SLOT_TAKEN, Relaxed);
        ours.slots[0].pid.store(u32::MAX, Relaxed);
        ours.header.slot_high.store(1, Relaxed);
        region.event(layout::EVENT_DENIED, 0, 10, 20, 25);
    });
    Mutex::new(file.contents())
});

/// Where the tenant's files are: in memory, because most of an input's time would else be the disk's.
static ROOT: LazyLock<PathBuf> =
    LazyLock::new(|| PathBuf::from(format!("/dev/shm/gpuquota-fuzz-{}", std::process::id())));

#[derive(Arbitrary, Debug)]
struct Input<'i> {
    damage: Damage<'i>,
    /// Names: of a container's directory, or of a file where it says so.
    names: Vec<(&'i [u8], bool)>,
    name: &'i [u8],
}

/// A name that a file can have.
fn name(bytes: &[u8]) -> Option<&OsStr> {
    let is_name = !bytes.is_empty() && bytes.len() < 200 && !bytes.contains(&0) && !bytes.contains(&b'/');
    (is_name && bytes != b"." && bytes != b"..").then(|| OsStr::from_bytes(bytes))
}

/// The agent settles dead processes by a process of its own program, which is this one here.
fn be_settler() {
    if std::env::args_os().next().is_some_and(|name| name == regions::SETTLE) {
        std::process::exit(i32::from(!regions::settle()));
    }
}

fuzz_target!(init: be_settler(), |input: Input| {
    let _ = fs::remove_dir_all(&*ROOT);
    fs::create_dir(&*ROOT).expect("a directory");
    for (bytes, is_file) in input.names.iter().take(8) {
        let Some(name) = name(bytes) else { continue };
        let path = ROOT.join(name);
        // Two names may be one.
        let _ = if *is_file { fs::write(path, bytes) } else { fs::create_dir(path) };
    }
    let mut sample = SAMPLE.lock().expect("nobody else is here");
    input.damage.shown(&mut sample, |bytes| {
        let mut file_name = name(input.name).unwrap_or(OsStr::new("a")).to_owned();
        file_name.push(".cache");
        let _ = fs::write(ROOT.join(file_name), bytes);
    });
    drop(sample);
    let index = Index::new(Places::only(std::slice::from_ref(&*ROOT)));
    let (found, _) = index.search();
    let names: HashSet<&String> = found.iter().map(|found| &found.container).collect();
    assert_eq!(names.len(), found.len(), "no two containers have one name");
    assert!(names.iter().all(|name| !name.chars().any(char::is_control)));
    let _ = index.living(|_| Has::Nothing);
});
