//! What a plugin is.

use crate::api;
use crate::error::{Error, Status, code};
use crate::runtime::Runtime;
use std::ops::BitOr;

/// Events that a plugin is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(i32);

impl Events {
    /// A container is made: the plugin may adjust or refuse it.
    pub const CREATE_CONTAINER: Self = Self::of(api::Event::CreateContainer);
    /// It was made, with the adjustments of all plugins.
    pub const POST_CREATE_CONTAINER: Self = Self::of(api::Event::PostCreateContainer);
    /// It is started.
    pub const START_CONTAINER: Self = Self::of(api::Event::StartContainer);
    /// Its resources change.
    pub const UPDATE_CONTAINER: Self = Self::of(api::Event::UpdateContainer);
    /// It is stopped.
    pub const STOP_CONTAINER: Self = Self::of(api::Event::StopContainer);
    /// It is removed.
    pub const REMOVE_CONTAINER: Self = Self::of(api::Event::RemoveContainer);
    /// A pod is made.
    pub const RUN_POD_SANDBOX: Self = Self::of(api::Event::RunPodSandbox);
    /// A pod is stopped.
    pub const STOP_POD_SANDBOX: Self = Self::of(api::Event::StopPodSandbox);
    /// A pod is removed.
    pub const REMOVE_POD_SANDBOX: Self = Self::of(api::Event::RemovePodSandbox);
    /// The adjustments of all plugins are looked at, and may be refused.
    pub const VALIDATE_CONTAINER_ADJUSTMENT: Self = Self::of(api::Event::ValidateContainerAdjustment);

    /// One event.
    pub const fn of(event: api::Event) -> Self {
        match event as i32 {
            number @ 1..=31 => Self(1 << (number - 1)),
            _ => Self(0),
        }
    }

    /// As a runtime reads them.
    pub const fn bits(self) -> i32 {
        self.0
    }
}

impl BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

fn unimplemented<T>(method: &str) -> Result<T, Status> {
    Err(Status::new(code::UNIMPLEMENTED, format!("the plugin has no {method}")))
}

/// A plugin. Each method is called on a thread on which it may wait for files, several at a time; the runtime itself waits for an
/// answer no longer than [`api::ConfigureRequest::request_timeout`], and drops the plugin then.
pub trait Plugin: Send + Sync + 'static {
    /// The events that it is told of.
    fn events(&self) -> Events;

    /// A runtime has taken the plugin in. `runtime` can be kept, to ask for changes.
    fn configure(&self, request: &api::ConfigureRequest, runtime: &Runtime) -> Result<(), Status> {
        let _ = (request, runtime);
        Ok(())
    }

    /// All pods and containers that are there. The answer is what is to be changed of them.
    fn synchronize(
        &self,
        pods: Vec<api::PodSandbox>,
        containers: Vec<api::Container>,
    ) -> Result<Vec<api::ContainerUpdate>, Status> {
        let _ = (pods, containers);
        Ok(Vec::new())
    }

    /// A container is made. An error fails it, with its message.
    fn create_container(
        &self,
        request: api::CreateContainerRequest,
    ) -> Result<api::CreateContainerResponse, Status> {
        let _ = request;
        unimplemented("CreateContainer")
    }

    /// The resources of a container change.
    fn update_container(
        &self,
        request: api::UpdateContainerRequest,
    ) -> Result<api::UpdateContainerResponse, Status> {
        let _ = request;
        unimplemented("UpdateContainer")
    }

    /// A container is stopped.
    fn stop_container(
        &self,
        request: api::StopContainerRequest,
    ) -> Result<api::StopContainerResponse, Status> {
        let _ = request;
        unimplemented("StopContainer")
    }

    /// A container is removed.
    fn remove_container(&self, request: api::RemoveContainerRequest) -> Result<(), Status> {
        let _ = request;
        Ok(())
    }

    /// Any other event of [`Plugin::events`], also of runtimes that have a message of its own for it.
    fn state_change(&self, event: api::StateChangeEvent) -> Result<(), Status> {
        let _ = event;
        Ok(())
    }

    /// The adjustments of all plugins to a container. An error refuses them.
    fn validate(&self, request: api::ValidateContainerAdjustmentRequest) -> Result<(), String> {
        let _ = request;
        Ok(())
    }

    /// The runtime ends.
    fn shutdown(&self) {}

    /// The connection has ended, or could not be made; [`keep()`](crate::keep()) tries again.
    fn disconnected(&self, error: &Error) {
        let _ = error;
    }
}
