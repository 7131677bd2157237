//! The agent's search of a directory that a tenant can write: any names, and a region damaged in any way, alone and beside others.
//! And whose a region is, by its path, a cgroup and what the sources of names say: none of them is believed.
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
    mod owners;
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

#[allow(dead_code)]
#[path = "../../gpuquota/src/agent/identity"]
mod identity {
    pub mod cgroup;
    pub mod facts;
    pub mod path;
}

use arbitrary::Arbitrary;
use gpuquota_fuzz::{Damage, Unnamed};
use gpuquota_region::layout::{self, DEVICE_READY};
use identity::cgroup::Cgroup;
use identity::facts::{Fact, Facts};
use identity::path;
use libfuzzer_sys::fuzz_target;
use regions::{Has, Index, Places};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::mem::offset_of;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
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

/// Where its process says whether it has its slot.
const STATE: usize = layout::OURS + offset_of!(layout::Ours, slots) + offset_of!(layout::Slot, state);

/// Where the tenant's files are: in memory, because most of an input's time would else be the disk's.
static ROOT: LazyLock<PathBuf> =
    LazyLock::new(|| PathBuf::from(format!("/dev/shm/gpuquota-fuzz-{}", std::process::id())));

#[derive(Arbitrary, Debug)]
struct Input<'i> {
    damage: Damage<'i>,
    /// One region in so many has a dead process: to settle it a process is started, which takes a hundred times as long as all else.
    alive: u8,
    /// Names: of a container's directory, or of a file where it says so.
    names: Vec<(&'i [u8], bool)>,
    name: &'i [u8],
    /// A region's path, and the cgroup of who holds it.
    path: &'i str,
    cgroup: &'i str,
    /// What a source says: container's id, pod's UID, namespace, pod, container, a name as runtimes give it.
    facts: Vec<[&'i str; 6]>,
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

/// Names the container of a region; whatever was said, nothing that no container can be called becomes a name.
fn name_container(input: &Input) {
    let facts = input.facts.iter().take(8).flat_map(|[id, uid, namespace, pod, container, name]| {
        let some = |text: &&str| Some((*text).to_owned()).filter(|text| !text.is_empty());
        let fact = Fact {
            container_id: some(id),
            pod_uid: some(uid),
            namespace: (*namespace).to_owned(),
            pod: (*pod).to_owned(),
            container: (*container).to_owned(),
            ..Fact::default()
        };
        [fact.checked(), Fact::of_kubernetes_name(name)].into_iter().flatten()
    });
    let facts: Vec<Fact> = facts.collect();
    let clue = path::clue(Path::new(input.path));
    assert!(clue.pod_uid.iter().all(|uid| path::is_pod_uid(uid)));
    let cgroup = Cgroup::parse(input.cgroup);
    let (named, _) = Facts::of([facts.as_slice()].into_iter()).name("label", &clue, &cgroup, &["GPU-1"]);
    let is_name = |name: &String| name.is_empty() || path::is_name(name, 253);
    assert!([&named.namespace, &named.pod, &named.container].into_iter().all(is_name), "{named:?}");
}

fuzz_target!(init: be_settler(), |input: Input| {
    name_container(&input);
    let _ = fs::remove_dir_all(&*ROOT);
    fs::create_dir(&*ROOT).expect("a directory");
    for (bytes, is_file) in input.names.iter().take(8) {
        let Some(name) = name(bytes) else { continue };
        let path = ROOT.join(name);
        // Two names may be one.
        let _ = if *is_file { fs::write(path, bytes) } else { fs::create_dir(path) };
    }
    let mut sample = SAMPLE.lock().expect("nobody else is here");
    let state = if input.alive == 1 { layout::SLOT_TAKEN } else { layout::SLOT_FREE };
    sample[STATE..STATE + 4].copy_from_slice(&state.to_le_bytes());
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
