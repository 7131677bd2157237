//! The file system that is changed: this machine's, or an image's below a folder.

use crate::error::Error;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A root directory.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// The root at `path`.
    pub fn at(path: &Path) -> Result<Self, Error> {
        match path.canonicalize() {
            Ok(real) if real.is_dir() => Ok(Self(real)),
            Ok(_) => Err(Error::Asked(format!("--root {}: it is no directory", path.display()))),
            Err(error) => Err(Error::Asked(format!(
                "--root {}: {error}. Name the folder in which the image lies",
                path.display()
            ))),
        }
    }

    /// Whether this is the running machine itself.
    pub fn is_this_machine(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// Where an absolute path of this root lies. Links of an image lead to the image's own files, as they would in it; what
    /// is not there yet lies where its parents are.
    pub fn real(&self, path: &Path) -> PathBuf {
        if self.is_this_machine() {
            return path.to_path_buf();
        }
        let name = path.file_name().unwrap_or_default();
        let above = path.parent().unwrap_or(Path::new("/"));
        self.directory(above).join(name)
    }

    /// The same of a directory: the directory that is there, and what of the path is missing.
    fn directory(&self, path: &Path) -> PathBuf {
        for above in path.ancestors() {
            if let Some(real) = self.opened(above) {
                let missing = path.strip_prefix(above).unwrap_or(Path::new(""));
                return if missing.as_os_str().is_empty() { real } else { real.join(missing) };
            }
        }
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn opened(&self, path: &Path) -> Option<PathBuf> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &self.0, flags, Mode::empty()).ok()?;
        let below = path.strip_prefix("/").unwrap_or(path);
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let found = openat2(&root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
        std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()
    }

    /// The bytes of a program of this root that is there in every one, by which its architecture is known.
    pub fn program(&self) -> Option<Vec<u8>> {
        ["/bin/sh", "/usr/bin/env", "/bin/busybox", "/sbin/init"].iter().find_map(|path| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let root = openat(CWD, &self.0, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
            let below = path.trim_start_matches('/');
            let file = openat2(&root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
            let mut head = Vec::new();
            use std::io::Read;
            std::fs::File::from(file).take(64).read_to_end(&mut head).ok()?;
            head.starts_with(b"\x7fELF").then_some(head)
        })
    }
}
