//! Which message is which method of a plugin.

use crate::api;
use crate::error::{Status, code};
use crate::plugin::Plugin;
use crate::ttrpc::{Answer, Request, decode};
use prost::Message;

/// The service that a plugin is.
pub const SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";

fn empty<M: Message + Default>((): ()) -> Vec<u8> {
    M::default().encode_to_vec()
}

fn encoded(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

fn event(
    event: api::Event,
    pod: Option<api::PodSandbox>,
    container: Option<api::Container>,
) -> api::StateChangeEvent {
    api::StateChangeEvent { event: event.into(), pod, container }
}

/// Events that older runtimes tell by StateChange and newer ones by messages of their own are the same to a plugin.
fn state_change(plugin: &dyn Plugin, change: api::StateChangeEvent) -> Result<(), Status> {
    match change.event() {
        api::Event::RemoveContainer => {
            let api::StateChangeEvent { pod, container, .. } = change;
            plugin.remove_container(api::RemoveContainerRequest { pod, container })
        }
        _ => plugin.state_change(change),
    }
}

/// Calls the method that a request names; Configure and Synchronize are the connection's.
pub fn call(plugin: &dyn Plugin, request: &Request) -> Answer {
    use api::Event::{
        PostCreateContainer, PostStartContainer, PostUpdateContainer, PostUpdatePodSandbox, RemovePodSandbox,
        RunPodSandbox, StartContainer, StopPodSandbox, UpdatePodSandbox,
    };
    let payload = request.payload.as_slice();
    /// The plugin is told by `state_change`.
    macro_rules! told {
        ($request:ident, $response:ident, $event:ident, $container:expr) => {{
            let message: api::$request = decode(payload)?;
            let container: fn(&api::$request) -> Option<api::Container> = $container;
            let container = container(&message);
            plugin.state_change(event($event, message.pod, container)).map(empty::<api::$response>)
        }};
    }
    match request.method.as_str() {
        "Shutdown" => {
            plugin.shutdown();
            Ok(empty::<api::Empty>(()))
        }
        "CreateContainer" => plugin.create_container(decode(payload)?).map(|answer| encoded(&answer)),
        "UpdateContainer" => plugin.update_container(decode(payload)?).map(|answer| encoded(&answer)),
        "StopContainer" => plugin.stop_container(decode(payload)?).map(|answer| encoded(&answer)),
        "RemoveContainer" => {
            plugin.remove_container(decode(payload)?).map(empty::<api::RemoveContainerResponse>)
        }
        "StateChange" => state_change(plugin, decode(payload)?).map(empty::<api::Empty>),
        "ValidateContainerAdjustment" => {
            let refused = plugin.validate(decode(payload)?).err();
            let (reject, reason) = (refused.is_some(), refused.unwrap_or_default());
            Ok(encoded(&api::ValidateContainerAdjustmentResponse { reject, reason }))
        }
        "RunPodSandbox" => told!(RunPodSandboxRequest, RunPodSandboxResponse, RunPodSandbox, |_| None),
        "UpdatePodSandbox" => {
            told!(UpdatePodSandboxRequest, UpdatePodSandboxResponse, UpdatePodSandbox, |_| None)
        }
        "PostUpdatePodSandbox" => {
            told!(PostUpdatePodSandboxRequest, PostUpdatePodSandboxResponse, PostUpdatePodSandbox, |_| None)
        }
        "StopPodSandbox" => told!(StopPodSandboxRequest, StopPodSandboxResponse, StopPodSandbox, |_| None),
        "RemovePodSandbox" => {
            told!(RemovePodSandboxRequest, RemovePodSandboxResponse, RemovePodSandbox, |_| None)
        }
        "PostCreateContainer" => {
            told!(PostCreateContainerRequest, PostCreateContainerResponse, PostCreateContainer, |of| of
                .container
                .clone())
        }
        "StartContainer" => {
            told!(StartContainerRequest, StartContainerResponse, StartContainer, |of| of.container.clone())
        }
        "PostStartContainer" => {
            told!(PostStartContainerRequest, PostStartContainerResponse, PostStartContainer, |of| of
                .container
                .clone())
        }
        "PostUpdateContainer" => {
            told!(PostUpdateContainerRequest, PostUpdateContainerResponse, PostUpdateContainer, |of| of
                .container
                .clone())
        }
        method => Err(Status::new(code::UNIMPLEMENTED, format!("there is no method {method:?}"))),
    }
}
