//! The plugin itself: what it does when the runtime makes, knows and removes containers.

use super::adjust::adjustment;
use super::annotations::{Asked, Device};
use super::audit::{Policy, without_quota};
use super::board::{Board, Kind};
use crate::agent::card::Cards;
use crate::agent::identity::{Identity, Sources};
use crate::given::{BY_ANNOTATIONS, BY_CLAIMS, Files, Region, region, unusable};
use crate::library::limits_file;
use nri_plugin::api::{
    ConfigureRequest, Container, ContainerUpdate, CreateContainerRequest, CreateContainerResponse,
    PodSandbox, RemoveContainerRequest,
};
use nri_plugin::{Error, Events, Plugin, Runtime, Status, code};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// Gives containers their quotas.
pub struct Injector {
    files: Arc<Files>,
    library: PathBuf,
    policy: Policy,
    sources: Sources,
    cards: Arc<Cards>,
    board: Arc<Board>,
}

fn identity(pod: &PodSandbox, container: &Container) -> Identity {
    Identity {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        container: container.name.clone(),
        pod_uid: pod.uid.clone(),
        engine: "gpuquota",
    }
}

impl Injector {
    pub fn new(
        files: Files,
        library: PathBuf,
        policy: Policy,
        sources: Sources,
        cards: Arc<Cards>,
        board: Arc<Board>,
    ) -> Self {
        Self { files: Arc::new(files), library, policy, sources, cards, board }
    }

    fn devices(&self) -> Vec<Device> {
        let view = self.cards.view();
        view.devices.iter().map(|device| (device.uuid.clone(), device.total)).collect()
    }

    /// What the container gets; `None` if its pod asks for nothing.
    fn quota(
        &self,
        pod: &PodSandbox,
        container: &Container,
    ) -> Result<Option<CreateContainerResponse>, String> {
        let Some(asked) = Asked::of(&pod.annotations, &container.name, &self.devices())? else {
            return Ok(None);
        };
        // Who writes a pod writes its annotations. They must not outrank what was booked for it.
        let of_limits = container.mounts.iter().find(|mount| mount.destination == limits_file());
        let giver = of_limits.and_then(|mount| self.files.giver(Path::new(&mount.source)));
        if let Some(giver) = giver.filter(|giver| *giver != BY_ANNOTATIONS) {
            let by = if giver == BY_CLAIMS { "its claim" } else { "what it asks of its resources" };
            return Err(format!(
                "its annotations ask for a quota, and it has one by {by} already. Remove the annotations."
            ));
        }
        let library = self.library.display();
        if !self.library.is_file() {
            return Err(format!(
                "the library {library} is not on this node. Install it (gpuquota install), or tell the agent where it is (--nri-library)."
            ));
        }
        let cannot = |error: std::io::Error| {
            format!(
                "the agent cannot keep the limits of the container: {error}. See the agent's log on this node."
            )
        };
        let preload = self.files.preload(&self.library).map_err(cannot)?;
        // It separates the two in the name of the region's directory.
        if pod.uid.contains('_') {
            return Err(cannot(unusable()));
        }
        let (place, limits) = (format!("{}_{}", pod.uid, container.name), asked.limits_file(&region()));
        let given = self.files.give(&container.id, &place, &limits, Region::Anew).map_err(cannot)?;
        let adjust = Some(adjustment(container, &self.library, &preload, &given));
        Ok(Some(CreateContainerResponse { adjust, ..CreateContainerResponse::default() }))
    }

    fn stop(&self, id: String, whose: Identity) {
        let (board, sources) = (Arc::clone(&self.board), self.sources.clone());
        // The runtime waits for the answer to this very request before it stops anything.
        let stopping = move || {
            let action = match sources.stop_container(&id) {
                Ok(()) => "stopped".to_owned(),
                Err(error) => format!("it cannot be stopped ({error}), stop it yourself"),
            };
            board.tell(whose, Kind::WithoutQuota { action });
        };
        if let Err(error) = thread::Builder::new().name("stop".to_owned()).spawn(stopping) {
            tracing::error!("cannot start a thread: {error}");
        }
    }

    /// Removes what containers have left that the runtime does not know any more.
    fn clean(&self, containers: &[Container]) {
        for id in self.files.ids().unwrap_or_default() {
            if !containers.iter().any(|container| container.id == id) {
                self.forget(&id);
            }
        }
    }

    fn forget(&self, id: &str) {
        if let Err(error) = self.files.take(id) {
            tracing::warn!("the files of container {} cannot be removed: {error}", id.escape_debug());
        }
    }
}

impl Plugin for Injector {
    fn events(&self) -> Events {
        Events::CREATE_CONTAINER | Events::REMOVE_CONTAINER
    }

    fn configure(&self, request: &ConfigureRequest, _: &Runtime) -> Result<(), Status> {
        let name = format!("{} {}", request.runtime_name, request.runtime_version);
        tracing::info!("NRI: {} has taken the agent in", name.escape_debug());
        self.board.note(|figures| {
            figures.connected = true;
            figures.why.clear();
        });
        Ok(())
    }

    fn synchronize(
        &self,
        pods: Vec<PodSandbox>,
        containers: Vec<Container>,
    ) -> Result<Vec<ContainerUpdate>, Status> {
        self.clean(&containers);
        let found = without_quota(&pods, &containers, &self.files);
        let named = found.iter().map(|(pod, container)| (container.id.clone(), identity(pod, container)));
        self.board.show_without_quota(named);
        for (pod, container) in found {
            let whose = identity(pod, container);
            match self.policy {
                Policy::Report => {
                    let action = "delete the pod, so that it is made anew".to_owned();
                    self.board.tell(whose, Kind::WithoutQuota { action });
                }
                Policy::Stop => self.stop(container.id.clone(), whose),
            }
        }
        Ok(Vec::new())
    }

    fn create_container(&self, request: CreateContainerRequest) -> Result<CreateContainerResponse, Status> {
        let (pod, container) = (request.pod.unwrap_or_default(), request.container.unwrap_or_default());
        match self.quota(&pod, &container) {
            Ok(Some(given)) => {
                self.board.note(|figures| figures.given += 1);
                Ok(given)
            }
            Ok(None) => {
                self.board.note(|figures| figures.unasked += 1);
                Ok(CreateContainerResponse::default())
            }
            Err(reason) => {
                self.board.note(|figures| figures.refused += 1);
                self.board.tell(identity(&pod, &container), Kind::Refused { reason: reason.clone() });
                Err(Status::new(code::FAILED_PRECONDITION, format!("gpuquota: {reason}")))
            }
        }
    }

    fn remove_container(&self, request: RemoveContainerRequest) -> Result<(), Status> {
        let container = request.container.unwrap_or_default();
        self.forget(&container.id);
        self.board.note(|figures| {
            figures.without_quota.remove(&container.id);
        });
        Ok(())
    }

    fn disconnected(&self, error: &Error) {
        let why = error.to_string();
        let mut is_new = false;
        self.board.note(|figures| {
            is_new = figures.why != why;
            figures.disconnects += u64::from(figures.connected);
            figures.connected = false;
            figures.why.clone_from(&why);
        });
        // It is tried every few seconds.
        if is_new {
            tracing::warn!("NRI: no runtime is connected: {why}; containers get no quotas until one is");
        }
    }
}
