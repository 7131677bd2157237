//! Promises of changed files: all or none, whatever fails, and back again.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

/// A root with a file, a link and a preload file of somebody else's in it.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gpuquota-changes-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        for folder in ["opt/vgpu", "etc"] {
            fs::create_dir_all(path.join(folder)).expect("a scratch folder");
        }
        fs::write(path.join("opt/vgpu/old.so"), "theirs").expect("a file");
        fs::set_permissions(path.join("opt/vgpu/old.so"), fs::Permissions::from_mode(0o640)).expect("a mode");
        symlink("old.so", path.join("opt/vgpu/link.so")).expect("a link");
        fs::write(path.join("etc/preload"), "/lib/theirs.so").expect("a file");
        Self(path)
    }

    fn root(&self) -> Root {
        Root::at(&self.0).expect("a root")
    }

    /// Every path with what lies there, but for the lock.
    fn all(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.0.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let state = if path.is_dir() && !path.is_symlink() {
                    open.push(path.clone());
                    "directory".to_owned()
                } else {
                    format!("{:?}", State::of(&path).expect("a state"))
                };
                found.insert(path, state);
            }
        }
        found.retain(|path, _| path.file_name().is_none_or(|name| name != "lock"));
        found
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn file(path: &str, content: &str) -> Wanted {
    let content = Content::File(content.as_bytes().to_vec(), 0o644);
    Wanted { path: path.into(), content, origin: "a test".to_owned() }
}

fn wanted(version: &str) -> Vec<Wanted> {
    let line = Content::Line("/lib/ours.so".to_owned());
    vec![
        file("/opt/vgpu/old.so", version),
        file("/opt/vgpu/link.so", version),
        file("/usr/new/deep/file", version),
        Wanted { path: "/etc/preload".into(), content: line, origin: "a test".to_owned() },
    ]
}

fn outcomes(told: &[Told]) -> Vec<Outcome> {
    told.iter().map(|(_, outcome)| *outcome).collect()
}

#[test]
fn what_was_there_comes_back_and_a_second_time_changes_nothing() {
    let machine = Machine::new("back");
    let (root, disk, before) = (machine.root(), Disk::default(), machine.all());
    let changes = Changes::new(&root, &disk, "test");
    let first = [Outcome::Changed, Outcome::Changed, Outcome::Made, Outcome::Changed];
    assert_eq!(outcomes(&changes.apply(&wanted("one")).expect("applied")), first);
    let applied = machine.all();
    assert_eq!(
        fs::read_to_string(machine.0.join("etc/preload")).expect("text"),
        "/lib/theirs.so\n/lib/ours.so\n"
    );
    assert_eq!(outcomes(&changes.apply(&wanted("one")).expect("applied")), [Outcome::Unchanged; 4]);
    assert_eq!(machine.all(), applied);
    changes.apply(&wanted("two")).expect("another version");
    let last = [Outcome::Changed, Outcome::Removed, Outcome::Changed, Outcome::Changed];
    assert_eq!(outcomes(&changes.undo().expect("undone")), last);
    let mut after = machine.all();
    // A line that ends where it did not is the same file to every reader of lines.
    let preload = machine.0.join("etc/preload");
    assert_eq!(fs::read_to_string(&preload).expect("text"), "/lib/theirs.so\n");
    after.insert(preload.clone(), before[&preload].clone());
    assert_eq!(after, before);
    assert!(changes.undo().expect("nothing to undo").is_empty());
}

#[test]
fn a_change_that_fails_at_any_step_leaves_what_was_there() {
    let mut steps = 0;
    loop {
        let machine = Machine::new("fails");
        let (root, before) = (machine.root(), machine.all());
        let disk = Disk::failing(steps, false);
        if Changes::new(&root, &disk, "test").apply(&wanted("one")).is_ok() {
            break;
        }
        assert_eq!(machine.all(), before, "it failed at step {steps}");
        steps += 1;
    }
    assert!(steps > 20, "{steps} steps only");
}

#[test]
fn an_update_that_fails_at_any_step_leaves_the_version_before() {
    let mut steps = 0;
    loop {
        let machine = Machine::new("update");
        let root = machine.root();
        Changes::new(&root, &Disk::default(), "test").apply(&wanted("one")).expect("applied");
        let before = machine.all();
        let disk = Disk::failing(steps, false);
        // The new version leaves one path out.
        let new = &wanted("two")[..3];
        if Changes::new(&root, &disk, "test").apply(new).is_ok() {
            break;
        }
        assert_eq!(machine.all(), before, "it failed at step {steps}");
        steps += 1;
    }
    assert!(steps > 12, "{steps} steps only");
}

#[test]
fn after_a_crash_at_any_step_each_file_is_whole_and_both_commands_finish() {
    for finish in ["apply", "undo"] {
        let mut steps = 0;
        loop {
            let machine = Machine::new(finish);
            let (root, before) = (machine.root(), machine.all());
            let disk = Disk::failing(steps, true);
            let done = Changes::new(&root, &disk, "test").apply(&wanted("one")).is_ok();
            let now = fs::read_to_string(machine.0.join("opt/vgpu/old.so")).expect("text");
            assert!(now == "theirs" || now == "one", "step {steps}: {now}");
            let disk = Disk::default();
            let changes = Changes::new(&root, &disk, "test");
            if finish == "apply" {
                changes.apply(&wanted("one")).expect("applied");
                assert_eq!(fs::read_to_string(machine.0.join("opt/vgpu/link.so")).expect("text"), "one");
            }
            changes.undo().expect("undone");
            for (path, was) in &before {
                if !path.ends_with("etc/preload") {
                    assert_eq!(machine.all().get(path), Some(was), "step {steps}");
                }
            }
            if done {
                break;
            }
            steps += 1;
        }
        assert!(steps > 20, "{steps} steps only");
    }
}

#[test]
fn what_somebody_else_has_put_there_since_is_left_alone() {
    let machine = Machine::new("foreign");
    let (root, disk) = (machine.root(), Disk::default());
    let changes = Changes::new(&root, &disk, "test");
    changes.apply(&wanted("one")).expect("applied");
    fs::write(machine.0.join("opt/vgpu/old.so"), "an engine's update").expect("a file");
    fs::write(machine.0.join("etc/preload"), "/lib/ours.so\n/lib/later.so\n").expect("a file");
    assert!(!changes.holds(Path::new("/opt/vgpu/old.so")).expect("a look"));
    let told = changes.undo().expect("undone");
    let of = |end: &str| told.iter().find(|(path, _)| path.ends_with(end)).expect("told").1;
    assert_eq!((of("old.so"), of("preload")), (Outcome::Foreign, Outcome::Changed));
    assert_eq!(fs::read_to_string(machine.0.join("opt/vgpu/old.so")).expect("text"), "an engine's update");
    assert_eq!(fs::read_to_string(machine.0.join("etc/preload")).expect("text"), "/lib/later.so\n");
    // A second swap keeps what the engine put there as what was there.
    changes.apply(&wanted("one")).expect("applied");
    changes.undo().expect("undone");
    assert_eq!(fs::read_to_string(machine.0.join("opt/vgpu/old.so")).expect("text"), "an engine's update");
}

#[test]
fn links_of_an_image_do_not_lead_out_of_it() {
    let machine = Machine::new("links");
    symlink("/opt/vgpu", machine.0.join("usr")).expect("a link");
    symlink("../../../../../../..", machine.0.join("out")).expect("a link");
    let root = machine.root();
    let real = |path: &str| root.real(Path::new(path)).strip_prefix(&machine.0).map(Path::to_path_buf);
    assert_eq!(real("/usr/a.so").expect("inside"), Path::new("opt/vgpu/a.so"));
    assert_eq!(real("/out/etc/b").expect("inside"), Path::new("etc/b"));
    assert_eq!(real("/../../etc/c").expect("inside"), Path::new("etc/c"));
    assert_eq!(real("/usr/x/y/z").expect("inside"), Path::new("opt/vgpu/x/y/z"));
}
