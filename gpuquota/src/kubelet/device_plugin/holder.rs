//! What a container has, by the kubelet's own account.

use super::units::Kind;
use kubelet_plugin::api::pod_resources::{ListPodResourcesRequest, ListPodResourcesResponse};
use kubelet_plugin::client::{call, connect};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long the kubelet may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A container and the units that it has of our resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// `namespace/pod/container`.
    pub name: String,
    pub units: BTreeMap<Kind, BTreeSet<String>>,
}

/// Those of an answer.
pub fn holders(answer: ListPodResourcesResponse, kind: impl Fn(&str) -> Option<Kind>) -> Vec<Holder> {
    let mut all = Vec::new();
    for pod in answer.pod_resources {
        for container in pod.containers {
            let mut holder = Holder {
                name: format!("{}/{}/{}", pod.namespace, pod.name, container.name),
                ..Holder::default()
            };
            for devices in container.devices {
                // A kubelet tells the devices of a resource in several parts, one for each node of memory.
                if let Some(kind) = kind(&devices.resource_name) {
                    holder.units.entry(kind).or_default().extend(devices.device_ids);
                }
            }
            if !holder.units.is_empty() {
                all.push(holder);
            }
        }
    }
    all
}

/// Asks the kubelet.
pub async fn ask(socket: &Path, kind: impl Fn(&str) -> Option<Kind>) -> io::Result<Vec<Holder>> {
    let asking = async {
        let mut client = connect(socket).await?;
        call(&mut client, "/v1.PodResourcesLister/List", ListPodResourcesRequest {}).await
    };
    let answer = timeout(PATIENCE, asking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(holders(answer, kind))
}
