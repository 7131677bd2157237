//! Who else on this node gives the same cards away: NVIDIA's device plugin and DRA driver, HAMi's and others', known by the sockets
//! that they keep in the kubelet's directories.

use std::fmt;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::sleep;

/// What the names of their sockets begin with, whose they are, and what they book.
const KNOWN: [(&str, &str, &str); 8] = [
    ("nvidia-gpu.sock", "NVIDIA's device plugin, or HAMi's,", "nvidia.com/gpu"),
    ("nvidia-mig", "NVIDIA's device plugin", "nvidia.com/mig"),
    ("gpu.nvidia.com", "NVIDIA's DRA driver", "gpu.nvidia.com"),
    ("hami-core-gpu.project-hami.io", "HAMi's DRA driver", "hami-core-gpu.project-hami.io"),
    ("vgpu", "a device plugin of virtual GPUs", "its own resource"),
    ("volcano-vgpu", "Volcano's device plugin", "volcano.sh/vgpu-number"),
    (DRIVER, "gpuquota's DRA driver", "gpuquota.dev"),
    (PLUGIN, "gpuquota's device plugin", "gpuquota.dev/memory"),
];

/// What our own begin with.
pub const DRIVER: &str = "gpuquota.dev";
pub const PLUGIN: &str = "gpuquota-";

/// Directories of the kubelet in which sockets of plugins lie.
const DIRECTORIES: [&str; 2] = ["device-plugins", "plugins_registry"];

/// How often it is looked again.
const LOOK: Duration = Duration::from_secs(30);

/// Another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Whose it is.
    pub name: &'static str,
    /// What it books.
    books: &'static str,
    /// By what it is known.
    socket: PathBuf,
    /// Whether it is one of ours.
    pub is_ours: bool,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is on this node and books {} ({})", self.name, self.books, self.socket.display())
    }
}

fn known(name: &str) -> Option<(&'static str, &'static str)> {
    KNOWN.iter().find(|(start, ..)| name.starts_with(start)).map(|(_, name, books)| (*name, *books))
}

/// Those whose sockets are answered, but for those that begin with `own`. A socket that nobody listens at was left by one that is
/// gone.
pub fn others(kubelet: &Path, root: &Path, own: &str) -> Vec<Other> {
    let below = kubelet.strip_prefix("/").unwrap_or(kubelet);
    let mut found = Vec::new();
    for directory in DIRECTORIES {
        let entries = fs::read_dir(root.join(below).join(directory)).into_iter().flatten().flatten();
        for entry in entries {
            let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
            let file = entry.file_name();
            let Some(file) =
                file.to_str().filter(|file| is_socket && (own.is_empty() || !file.starts_with(own)))
            else {
                continue;
            };
            let Some((name, books)) = known(file) else { continue };
            if UnixStream::connect(entry.path()).is_ok() {
                let is_ours = [DRIVER, PLUGIN].iter().any(|own| file.starts_with(own));
                found.push(Other { name, books, socket: entry.path(), is_ours });
            }
        }
    }
    found.sort_by(|a, b| a.socket.cmp(&b.socket));
    found
}

/// Says so when another one comes later, for ever: whoever runs containers by then is not taken away.
pub async fn watch(kubelet: &Path, own: &str) {
    let mut known = others(kubelet, Path::new("/"), own);
    loop {
        sleep(LOOK).await;
        let now = others(kubelet, Path::new("/"), own);
        for other in now.iter().filter(|other| !known.contains(other)) {
            tracing::error!("{other}: it gives the same cards away. Take one of the two off this node");
        }
        known = now;
    }
}
