//! Does a process of the command use the driver without the library? The program may have replaced `LD_PRELOAD`, as the
//! usual recipes for other allocators do, and then no quota holds it and the region never hears of it.
//!
//! Only a look at the processes themselves tells for certain, so this looks while the command runs: often in its first
//! second, then rarely. A process that has come and gone between two looks is not seen.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long after the start of a look the next one comes; the last one repeats.
const PAUSES: [u64; 9] = [20, 30, 50, 100, 100, 200, 500, 1000, 5000];
/// So many processes are looked at.
const MOST: usize = 4096;

/// Looks at the command's processes until it is dropped.
pub struct Watch {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks at all that this process starts. It writes one line about the first process that has the driver without the
    /// library.
    pub fn begin(library: &Path) -> Self {
        let (end, ended) = channel();
        let name = library.file_name().unwrap_or_default().to_owned();
        let thread = std::thread::spawn(move || {
            for pause in PAUSES.iter().chain(std::iter::repeat(&PAUSES[PAUSES.len() - 1])) {
                if ended.recv_timeout(Duration::from_millis(*pause)) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                if let Some(pid) = descendants().into_iter().find(|pid| is_unheld(*pid, &name)) {
                    return tell(pid);
                }
            }
        });
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end.take();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn tell(pid: u32) {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    eprintln!(
        "gpuquota: process {pid} ({}) uses the CUDA driver without libgpuquota.so: no limit holds it. Something took the \
         library out of LD_PRELOAD; append to LD_PRELOAD, or name the library in /etc/ld.so.preload",
        name.trim().escape_debug()
    );
}

/// The processes that this one has started, and those that they have started.
fn descendants() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut parents = vec![std::process::id()];
    while let Some(parent) = parents.pop() {
        let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
                if found.len() < MOST && found.insert(child) {
                    parents.push(child);
                }
            }
        }
    }
    found
}

/// Whether a process has mapped the driver and not the library. The loader maps what is preloaded first.
fn is_unheld(pid: u32, library: &OsStr) -> bool {
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    has_driver_alone(&maps, library)
}

fn has_driver_alone(maps: &[u8], library: &OsStr) -> bool {
    let files = maps.split(|byte| *byte == b'\n').filter_map(|line| {
        let start = line.iter().position(|byte| *byte == b'/')?;
        Path::new(OsStr::from_bytes(&line[start..])).file_name().map(OsStr::to_owned)
    });
    let files: BTreeSet<OsString> = files.collect();
    files.iter().any(|file| file.as_bytes().starts_with(b"libcuda.so")) && !files.contains(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_without_the_library_is_seen_and_nothing_else() {
        let driver = "7f10-7f20 r--p 00000000 08:01 77 /usr/lib/x86_64-linux-gnu/libcuda.so.550.1\n";
        let library = "7f30-7f40 r--p 00000000 08:01 78 /opt/my lib/libgpuquota.so\n";
        let cudart =
            "7f50-7f60 r--p 00000000 08:01 79 /opt/libcudart.so.12\n7ffd-7ffe rw-p 0 00:00 0 [stack]\n";
        let alone = |maps: &str| has_driver_alone(maps.as_bytes(), OsStr::new("libgpuquota.so"));
        assert!(alone(driver) && alone(&format!("{cudart}{driver}")));
        assert!(!alone("") && !alone(cudart) && !alone(library) && !alone(&format!("{library}{driver}")));
    }
}
