//! The kubelet and the container runtime over their sockets: two questions of gRPC.
//!
//! The messages are those of `k8s.io/kubelet/pkg/apis/podresources/v1` and `k8s.io/cri-api/pkg/apis/runtime/v1`, with the
//! fields that are used; the others are skipped as their format provides.

use super::facts::Fact;
use super::source::Source;
use kubelet_plugin::api::pod_resources::{ListPodResourcesResponse, PodResources};
use kubelet_plugin::client::{Client, call, connect};
use prost::Message;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// How long a source may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A message without content.
#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<ContainerMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandbox {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    metadata: Option<PodSandboxMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

/// A runtime for the one question of a source at a time.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Asks one method that takes no argument.
async fn ask<A: Message + Default + Send + Sync + 'static>(
    client: &mut Client,
    method: &'static str,
) -> io::Result<A> {
    call(client, method, Empty {}).await
}

/// Asks at the first of these sockets that is there, in bounded time. Where there is none nobody knows anything, and that is
/// no error.
pub fn within<A, F: Future<Output = io::Result<Vec<A>>>>(
    runtime: &Runtime,
    sockets: &[PathBuf],
    work: impl FnOnce(PathBuf) -> F,
) -> io::Result<Option<Vec<A>>> {
    let Some(socket) = sockets.iter().find(|socket| socket.exists()) else { return Ok(Some(Vec::new())) };
    let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
    let work = work(socket.clone());
    runtime.block_on(async { timeout(PATIENCE, work).await.unwrap_or_else(late) }).map(Some)
}

#[derive(Clone, PartialEq, Message)]
struct StopContainerRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(int64, tag = "2")]
    timeout: i64,
}

/// Has the container runtime stop a container: its processes have half a minute to end.
pub fn stop_container(sockets: &[PathBuf], id: &str) -> io::Result<()> {
    const GRACE: i64 = 30;
    let socket = sockets.iter().find(|socket| socket.exists());
    let socket = socket.ok_or_else(|| io::Error::other("the container runtime has no CRI socket here"))?;
    let request = StopContainerRequest { container_id: id.to_owned(), timeout: GRACE };
    runtime()?.block_on(async {
        let mut client = connect(socket).await?;
        let stopped = call(&mut client, "/runtime.v1.RuntimeService/StopContainer", request);
        let patience = Duration::from_secs(GRACE.unsigned_abs()) + PATIENCE;
        let answer = timeout(patience, stopped).await;
        answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(|Empty {}| ())
    })
}

/// The kubelet's PodResources socket.
pub struct Kubelet {
    sockets: Vec<PathBuf>,
    runtime: Runtime,
}

impl Kubelet {
    pub fn new(sockets: Vec<PathBuf>) -> io::Result<Self> {
        Ok(Self { sockets, runtime: runtime()? })
    }

    async fn list(socket: PathBuf) -> io::Result<Vec<Fact>> {
        let mut client = connect(&socket).await?;
        let answer: ListPodResourcesResponse = ask(&mut client, "/v1.PodResourcesLister/List").await?;
        let of_pod = |pod: PodResources| {
            let (namespace, name) = (pod.namespace, pod.name);
            pod.containers.into_iter().map(move |container| Fact {
                namespace: namespace.clone(),
                pod: name.clone(),
                container: container.name,
                devices: container.devices.into_iter().flat_map(|device| device.device_ids).collect(),
                ..Fact::default()
            })
        };
        Ok(answer.pod_resources.into_iter().flat_map(of_pod).filter_map(Fact::checked).collect())
    }
}

impl Source for Kubelet {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    fn facts(&mut self) -> io::Result<Option<Vec<Fact>>> {
        within(&self.runtime, &self.sockets, Self::list)
    }

    fn period(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// The container runtime's CRI socket.
pub struct Cri {
    sockets: Vec<PathBuf>,
    runtime: Runtime,
}

impl Cri {
    pub fn new(sockets: Vec<PathBuf>) -> io::Result<Self> {
        Ok(Self { sockets, runtime: runtime()? })
    }

    async fn list(socket: PathBuf) -> io::Result<Vec<Fact>> {
        let mut client = connect(&socket).await?;
        let pods: ListPodSandboxResponse =
            ask(&mut client, "/runtime.v1.RuntimeService/ListPodSandbox").await?;
        let containers: ListContainersResponse =
            ask(&mut client, "/runtime.v1.RuntimeService/ListContainers").await?;
        let pods: HashMap<String, PodSandboxMetadata> =
            pods.items.into_iter().filter_map(|pod| Some((pod.id, pod.metadata?))).collect();
        let fact = |container: Container| {
            let pod = pods.get(&container.pod_sandbox_id)?;
            let fact = Fact {
                container_id: Some(container.id),
                pod_uid: Some(pod.uid.clone()),
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                container: container.metadata?.name,
                ..Fact::default()
            };
            fact.checked()
        };
        Ok(containers.containers.into_iter().filter_map(fact).collect())
    }
}

impl Source for Cri {
    fn name(&self) -> &'static str {
        "cri"
    }

    fn facts(&mut self) -> io::Result<Option<Vec<Fact>>> {
        within(&self.runtime, &self.sockets, Self::list)
    }

    fn period(&self) -> Duration {
        Duration::from_secs(30)
    }
}
