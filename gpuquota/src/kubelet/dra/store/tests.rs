//! Promises of what is prepared: all of it or nothing, whatever is killed when.

use super::*;
use crate::regions::PREPARED;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const UID: &str = "4d7c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f";
const OTHER: &str = "7777cccc-5a6b-4c7d-8e9f-0a1b2c3d4e5f";

struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gpuquota-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a scratch directory");
        fs::create_dir(path.join("plugin")).expect("a directory");
        Self(path)
    }

    fn common(&self) -> Common {
        Common::of_test(&self.0.join("regions"), Path::new("/l/libgpuquota.so"))
    }

    /// A driver that starts, with a disk that may fail.
    fn open(&self, disk: Disk) -> io::Result<Store> {
        let common = self.common();
        let files = Files::at(&common.root, ".dra", disk.clone())?;
        Store::open(&self.0.join("plugin/checkpoint.json"), &self.0.join("cdi"), &common, files, disk)
    }

    /// Every file, but for what is shared by all claims.
    fn left(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![self.0.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(&self.0).expect("below").display().to_string();
                if path.is_dir() {
                    open.push(path);
                } else if !name.ends_with("ld.so.preload") && name != "plugin/checkpoint.json" {
                    found.push(name);
                }
            }
        }
        found.retain(|name| !name.ends_with(".new"));
        found.sort();
        found
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn wanted(memory: u64) -> Wanted {
    let part = Part { uuid: "GPU-aaaa".to_owned(), memory, cores: Some(30), cores_limit: None };
    Wanted {
        namespace: "team".to_owned(),
        name: "web".to_owned(),
        limits: crate::kubelet::common::limits("dra", std::slice::from_ref(&part), &[]),
        parts: vec![part],
        devices: vec![Claimed {
            requests: vec!["gpu".to_owned()],
            pool: "node".to_owned(),
            device: "gpu-0".to_owned(),
            uuid: "GPU-aaaa".to_owned(),
        }],
    }
}

/// What there is of a claim that is prepared.
fn whole(uid: &str) -> Vec<String> {
    let mut all = vec![
        format!("cdi/gpuquota.dev-claim-{uid}.json"),
        format!("regions/.dra/{uid}/limits"),
        format!("regions/.dra/{uid}/region"),
        format!("regions/{uid}_claim/{PREPARED}"),
    ];
    all.sort();
    all
}

#[test]
fn a_claim_becomes_a_cdi_device_and_goes_without_a_trace() {
    let home = Home::new();
    let mut store = home.open(Disk::default()).expect("open");
    store.prepare(UID, wanted(1 << 30)).expect("prepared");
    assert_eq!(home.left(), whole(UID));
    let spec =
        Spec::read(&home.0.join(format!("cdi/gpuquota.dev-claim-{UID}.json"))).expect("a specification");
    spec.check("test").expect("it is right");
    assert!(spec.json().contains("NVIDIA_VISIBLE_DEVICES=GPU-aaaa"));
    // A second call changes nothing: containers may have the region mounted.
    let region = home.0.join(format!("regions/{UID}_claim/{PREPARED}"));
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("a file"));
    let before = inode(&region);
    store.prepare(UID, wanted(1 << 30)).expect("again");
    assert_eq!(inode(&region), before);
    store.unprepare(UID).expect("taken back");
    store.unprepare(UID).expect("nothing is there any more");
    assert_eq!(home.left(), [""; 0]);
    assert!(store.all().is_empty());
}

#[test]
fn a_driver_that_is_killed_at_any_step_of_preparing_leaves_all_or_nothing() {
    let (mut steps, mut kept) = (0, 0);
    loop {
        let home = Home::new();
        home.open(Disk::default()).expect("open").prepare(OTHER, wanted(1 << 30)).expect("a neighbour");
        let is_done = home
            .open(Disk::failing(steps, true))
            .is_ok_and(|mut store| store.prepare(UID, wanted(2 << 30)).is_ok());
        let mut store = home.open(Disk::default()).expect("it starts anew");
        let mut expected = whole(OTHER);
        if store.prepared(UID).is_some() {
            expected.extend(whole(UID));
            expected.sort();
            kept += 1;
        } else {
            assert!(!is_done, "what was answered is kept, at step {steps}");
        }
        assert_eq!(home.left(), expected, "killed at step {steps}");
        // The kubelet asks again, and gets it.
        store.prepare(UID, wanted(2 << 30)).expect("prepared");
        assert_eq!(store.prepared(UID), Some(&wanted(2 << 30)));
        store.unprepare(UID).expect("taken back");
        assert_eq!(home.left(), whole(OTHER));
        if is_done {
            break;
        }
        steps += 1;
    }
    assert!(steps > 20 && kept > 0, "{steps} steps only");
}

#[test]
fn a_step_that_fails_and_is_no_crash_leaves_nothing_half_prepared() {
    let mut steps = 0;
    loop {
        let home = Home::new();
        let Ok(mut store) = home.open(Disk::failing(steps, false)) else {
            steps += 1;
            continue;
        };
        let is_done = store.prepare(UID, wanted(1 << 30)).is_ok();
        if !is_done {
            assert_eq!(home.left(), [""; 0], "step {steps} failed");
            assert!(store.all().is_empty());
        }
        if is_done && home.left() == whole(UID) {
            break;
        }
        steps += 1;
    }
    assert!(steps > 15, "{steps} steps only");
}

#[test]
fn a_driver_that_is_killed_at_any_step_of_taking_back_completes_it() {
    let mut steps = 0;
    loop {
        let home = Home::new();
        home.open(Disk::default()).expect("open").prepare(UID, wanted(1 << 30)).expect("prepared");
        let is_done =
            home.open(Disk::failing(steps, true)).is_ok_and(|mut store| store.unprepare(UID).is_ok());
        let mut store = home.open(Disk::default()).expect("it starts anew");
        // Either it is whole still, or it is gone.
        let expected = if store.prepared(UID).is_some() { whole(UID) } else { Vec::new() };
        assert_eq!(home.left(), expected, "killed at step {steps}");
        store.unprepare(UID).expect("taken back");
        assert_eq!(home.left(), [""; 0]);
        if is_done {
            break;
        }
        steps += 1;
    }
    assert!(steps > 5, "{steps} steps only");
}

#[test]
fn what_a_restart_of_the_node_has_taken_is_made_again() {
    let home = Home::new();
    home.open(Disk::default()).expect("open").prepare(UID, wanted(1 << 30)).expect("prepared");
    fs::remove_dir_all(home.0.join("regions")).expect("memory is lost");
    fs::remove_dir_all(home.0.join("cdi")).expect("memory is lost");
    let store = home.open(Disk::default()).expect("it starts anew");
    assert_eq!(home.left(), whole(UID));
    assert_eq!(store.prepared(UID), Some(&wanted(1 << 30)));
}

#[test]
fn what_belongs_to_no_claim_goes_when_the_driver_starts() {
    let home = Home::new();
    home.open(Disk::default()).expect("open").prepare(UID, wanted(1 << 30)).expect("prepared");
    fs::remove_file(home.0.join("plugin/checkpoint.json")).expect("moved away");
    let theirs = home.0.join("cdi/nvidia.yaml");
    fs::write(&theirs, "theirs").expect("written");
    home.open(Disk::default()).expect("it starts anew");
    assert_eq!(home.left(), ["cdi/nvidia.yaml"]);
}

#[test]
fn a_checkpoint_that_cannot_be_understood_is_no_empty_one() {
    let home = Home::new();
    home.open(Disk::default()).expect("open").prepare(UID, wanted(1 << 30)).expect("prepared");
    for text in ["", "{}", "{\"version\": 2, \"claims\": {}}"] {
        fs::write(home.0.join("plugin/checkpoint.json"), text).expect("written");
        let told = home.open(Disk::default()).err().expect("refused").to_string();
        assert!(told.contains("checkpoint.json") && told.contains("Move it away"), "{told}");
    }
    assert_eq!(home.left(), whole(UID));
}
