//! Containers that ask for a quota and were started without it, while no agent was connected.

use super::annotations::Asked;
use crate::given::Files;
use crate::library::{PRELOAD, limits_file};
use nri_plugin::api::{Container, ContainerState, PodSandbox};
use std::collections::HashMap;
use std::path::Path;

/// What to do about them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// Say so.
    #[default]
    Report,
    /// Stop the container, through the container runtime's CRI socket: Kubernetes starts it again, with its quota.
    Stop,
}

/// Those of the containers that should have a quota and have none, with their pods.
pub fn without_quota<'r>(
    pods: &'r [PodSandbox],
    containers: &'r [Container],
    files: &Files,
) -> Vec<(&'r PodSandbox, &'r Container)> {
    let pods: HashMap<&str, &PodSandbox> = pods.iter().map(|pod| (pod.id.as_str(), pod)).collect();
    let lives = |container: &&Container| container.state() != ContainerState::ContainerStopped;
    let of = containers.iter().filter(lives).filter_map(|container| {
        let pod = pods.get(container.pod_sandbox_id.as_str())?;
        // What cannot be understood was not looked at when the container was made.
        let asks = !matches!(Asked::of(&pod.annotations, &container.name, &[]), Ok(None));
        (asks && !has_quota(container, files)).then_some((*pod, container))
    });
    of.collect()
}

fn has_quota(container: &Container, files: &Files) -> bool {
    let source = |destination: &str| {
        let mount = container.mounts.iter().find(|mount| mount.destination == destination)?;
        Some(Path::new(mount.source.as_str()))
    };
    source(limits_file()).is_some_and(|path| files.giver(path).is_some()) && source(PRELOAD).is_some()
}
