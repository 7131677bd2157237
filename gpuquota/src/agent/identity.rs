//! Who is who: the namespace, pod and container of each region and of each process on a card.
//!
//! No source is needed, and none is believed beyond its rank. What the kernel says of a living process (its cgroup) outranks
//! the region's path; the runtime's own account of a container id outranks directories. The API server is not asked.
//!
//! - [`path`]: what an engine's layout says; [`cgroup`]: what the kernel says of a process;
//! - [`facts`]: what sources know, and how a name follows; [`source`]: the threads that ask them;
//! - [`files`], [`grpc`], [`engine`]: the sources; [`owner`]: a region's file.

mod cgroup;
mod engine;
mod facts;
mod files;
mod grpc;
mod owner;
mod path;
mod source;

pub use cgroup::Cgroup;
pub use facts::Identity;
pub use owner::open_region;
pub use path::is_name;
pub use source::Health;

use crate::error::Error;
use crate::regions::Found;
use gpuquota_region::lock::process_stat;
use path::clue;
use source::{Board, Source};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long what the kernel said of a process is taken for true: runtimes hardly move processes.
const FRESH: Duration = Duration::from_secs(10);
/// Processes that are remembered.
const REMEMBERED: usize = 16384;

/// Where Podman and CRI-O keep their containers, and where the kubelet has its logs.
const STORAGE: &str = "/var/lib/containers/storage";
const POD_LOGS: &str = "/var/log/pods";
const CONTAINER_LOGS: &str = "/var/log/containers";

/// Where the names of containers come from. What is not there is not asked.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The container runtime's CRI socket. Without it: those of containerd, k3s and CRI-O.
    #[arg(long, value_name = "SOCKET")]
    pub cri: Option<PathBuf>,

    /// The kubelet's PodResources socket.
    #[arg(long, value_name = "SOCKET")]
    pub kubelet_pod_resources: Option<PathBuf>,

    /// Docker's socket.
    #[arg(long, value_name = "SOCKET")]
    pub docker: Option<PathBuf>,

    /// Podman's socket.
    #[arg(long, value_name = "SOCKET")]
    pub podman: Option<PathBuf>,

    /// The directory in which Podman and CRI-O keep their containers.
    #[arg(long, value_name = "DIR", default_value = STORAGE)]
    pub container_storage: PathBuf,

    /// The kubelet's directory of the logs of pods.
    #[arg(long, value_name = "DIR", default_value = POD_LOGS)]
    pub pod_logs: PathBuf,

    /// The kubelet's directory of links to the logs of containers.
    #[arg(long, value_name = "DIR", default_value = CONTAINER_LOGS)]
    pub container_logs: PathBuf,

    /// Where the kernel tells in which cgroup a process is.
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub proc: PathBuf,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            cri: None,
            kubelet_pod_resources: None,
            docker: None,
            podman: None,
            container_storage: STORAGE.into(),
            pod_logs: POD_LOGS.into(),
            container_logs: CONTAINER_LOGS.into(),
            proc: "/proc".into(),
        }
    }
}

impl Sources {
    /// Has the container runtime stop a container.
    pub fn stop_container(&self, id: &str) -> io::Result<()> {
        let sockets = self.cri_sockets().map_err(|error| io::Error::other(error.to_string()))?;
        grpc::stop_container(&sockets, id)
    }

    /// Where the container runtime may listen.
    fn cri_sockets(&self) -> Result<Vec<PathBuf>, Error> {
        let known =
            ["/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock", "/run/crio/crio.sock"];
        or_known(self.cri.as_deref(), &known, "cri")
    }

    /// Every source, the most trusted first. Refuses a socket that was named and is none.
    fn open(&self) -> Result<Vec<Box<dyn Source>>, Error> {
        let thread = || Error::system("start a source of names");
        let mut sources: Vec<Box<dyn Source>> = vec![
            Box::new(grpc::Cri::new(self.cri_sockets()?).map_err(thread())?),
            Box::new(files::ContainerLogs::new(self.container_logs.clone())),
            Box::new(files::PodLogs::new(self.pod_logs.clone())),
            Box::new(files::Storage::new(self.container_storage.clone())),
        ];
        let sockets = or_known(self.docker.as_deref(), &["/run/docker.sock"], "docker")?;
        sources.push(Box::new(engine::Engine::new("docker", sockets).map_err(thread())?));
        let sockets = or_known(self.podman.as_deref(), &["/run/podman/podman.sock"], "podman")?;
        sources.push(Box::new(engine::Engine::new("podman", sockets).map_err(thread())?));
        let known = ["/var/lib/kubelet/pod-resources/kubelet.sock"];
        let sockets = or_known(self.kubelet_pod_resources.as_deref(), &known, "kubelet-pod-resources")?;
        sources.push(Box::new(grpc::Kubelet::new(sockets).map_err(thread())?));
        Ok(sources)
    }
}

/// The socket that was given, or the usual ones. One that is not there yet may come.
fn or_known(given: Option<&Path>, known: &[&str], option: &str) -> Result<Vec<PathBuf>, Error> {
    let Some(given) = given else { return Ok(known.iter().map(PathBuf::from).collect()) };
    match fs::metadata(given) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(Error::Asked(format!("{option} {}: it is no socket", given.display())))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Asked(format!("{option} {}: {error}", given.display())))
        }
        _ => Ok(vec![given.to_path_buf()]),
    }
}

/// A process as it was asked about.
type Process = (u32, u64);

/// When it was asked who holds a region, by its inode; who that was, and their cgroups.
type Holders = HashMap<(u64, u64), (Instant, Vec<u32>, Vec<Cgroup>)>;

/// Naming containers.
pub struct Naming {
    board: Arc<Board>,
    proc: PathBuf,
    processes: Mutex<HashMap<Process, (Instant, Cgroup)>>,
    holders: Mutex<Holders>,
}

impl Naming {
    /// Starts to ask the sources.
    pub fn start(sources: &Sources) -> Result<Self, Error> {
        let board = Board::start(sources.open()?).map_err(Error::system("start a thread"))?;
        let (processes, holders) = Default::default();
        Ok(Self { board, proc: sources.proc.clone(), processes, holders })
    }

    /// Waits until every source has answered once, but not for long.
    pub fn settle(&self) {
        self.board.settle(Duration::from_secs(1));
    }

    /// The container of a region that was found. Waits for no source.
    pub fn of_region(&self, found: &Found) -> Identity {
        let devices: Vec<&str> = found.region.devices.iter().map(|device| device.uuid.as_str()).collect();
        let clue = clue(&found.path);
        let cgroups = self.cgroups(found);
        // A stranger that can open the file can hold a lock of it too: whom the path names goes before.
        let named = cgroups.iter().find(|cgroup| cgroup.pod_uid.is_some() && cgroup.pod_uid == clue.pod_uid);
        let cgroup = named.or_else(|| cgroups.iter().find(|cgroup| cgroup.is_container())).cloned();
        self.name(&found.container, &clue, &cgroup.unwrap_or_default(), &devices)
    }

    /// The container of a process that has no region.
    pub fn of_process(&self, cgroup: &Cgroup) -> Identity {
        self.name("", &path::Clue::default(), cgroup, &[])
    }

    fn name(&self, label: &str, clue: &path::Clue, cgroup: &Cgroup, devices: &[&str]) -> Identity {
        let (identity, may_be_known) = self.board.facts().name(label, clue, cgroup, devices);
        if may_be_known {
            self.board.want();
        }
        identity
    }

    /// The cgroups of the processes that hold a region, at most ten seconds old. Who held the same region before under the same
    /// pid is taken for the same process, so nobody is asked of each at each look.
    fn cgroups(&self, found: &Found) -> Vec<Cgroup> {
        let Found { inode, owners, .. } = found;
        let known = || self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, then, cgroups)) = known().get(inode)
            && when.elapsed() < FRESH
            && then == owners
        {
            return cgroups.clone();
        }
        let cgroups: Vec<Cgroup> = owners.iter().filter_map(|pid| self.cgroup(*pid)).collect();
        let mut holders = known();
        if holders.len() >= REMEMBERED {
            holders.retain(|_, (when, ..)| when.elapsed() < FRESH);
        }
        if holders.len() < REMEMBERED {
            holders.insert(*inode, (Instant::now(), owners.clone(), cgroups.clone()));
        }
        cgroups
    }

    /// The cgroup of a living process, at most ten seconds old.
    pub fn cgroup(&self, pid: u32) -> Option<Cgroup> {
        let process = (pid, process_stat(pid)?.start_time);
        let known = || self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, cgroup)) = known().get(&process)
            && when.elapsed() < FRESH
        {
            return Some(cgroup.clone());
        }
        let cgroup = Cgroup::of(&self.proc, pid)?;
        let mut processes = known();
        if processes.len() >= REMEMBERED {
            processes.retain(|_, (when, _)| when.elapsed() < FRESH);
        }
        if processes.len() < REMEMBERED {
            processes.insert(process, (Instant::now(), cgroup.clone()));
        }
        Some(cgroup)
    }

    /// How the sources do.
    pub fn health(&self) -> Vec<Health> {
        self.board.health()
    }
}
