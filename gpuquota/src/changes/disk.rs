//! Every single change of a file system. A test lets the n-th of them fail.

use rustix::fs::{Mode, OFlags};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

/// The disk, and in tests the number of changes before one fails.
#[derive(Clone, Default)]
pub struct Disk {
    #[cfg(test)]
    plan: std::sync::Arc<std::sync::Mutex<Plan>>,
}

/// Which changes fail.
#[cfg(test)]
#[derive(Default)]
struct Plan {
    /// Changes so far.
    done: usize,
    /// The number of the first one that fails.
    fails_at: Option<usize>,
    /// Whether all later ones fail too, as after a crash.
    for_good: bool,
}

impl Disk {
    /// One whose change of that number fails, and all later ones where it is for good, as after a crash.
    #[cfg(test)]
    pub fn failing(at: usize, for_good: bool) -> Self {
        Self { plan: std::sync::Arc::new(Plan { done: 0, fails_at: Some(at), for_good }.into()) }
    }

    fn step(&self) -> io::Result<()> {
        #[cfg(test)]
        {
            let mut plan = self.plan.lock().expect("no panic");
            let now = plan.done;
            plan.done += 1;
            if plan.fails_at.is_some_and(|at| now == at || plan.for_good && now > at) {
                return Err(io::Error::other("the test lets this fail"));
            }
        }
        Ok(())
    }

    /// Makes one directory.
    pub fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::create_dir(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o755))
    }

    /// Writes a new file whole, and waits until it is on the disk.
    pub fn write(&self, path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
        self.step()?;
        // One that a crash left.
        let _ = fs::remove_file(path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        self.step()?;
        file.write_all(content)?;
        if let Some((user, group)) = owner {
            chown(path, Some(user), Some(group))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        self.step()?;
        file.sync_all()
    }

    /// Makes a symbolic link.
    pub fn link(&self, target: &Path, path: &Path) -> io::Result<()> {
        self.step()?;
        let _ = fs::remove_file(path);
        symlink(target, path)
    }

    /// Puts a file in its place.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        fs::rename(from, to)?;
        sync_folder(to);
        Ok(())
    }

    /// Removes a file.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::remove_file(path)?;
        sync_folder(path);
        Ok(())
    }

    /// Removes a folder in which nothing is left.
    pub fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        fs::remove_dir(path)
    }
}

/// Waits until the names of a folder are on the disk. Some file systems cannot do that, and nothing is lost with it but the
/// order of a crash.
fn sync_folder(path: &Path) {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Some(folder) = path.parent()
        && let Ok(folder) = rustix::fs::open(folder, flags, Mode::empty())
    {
        let _ = File::from(folder).sync_all();
    }
}
