//! A device plugin of the kubelet, version v1beta1: one resource, one socket.

use crate::Told;
use crate::api::device_plugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, ContainerPreferredAllocationRequest,
    ContainerPreferredAllocationResponse, Device, DevicePluginOptions, Empty, ListAndWatchResponse,
    PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse, RegisterRequest,
};
use crate::client::{call, connect};
use crate::server::{Answer, Call, Service, serve, stream, unary, unknown};
use crate::socket::{Bound, identity};
use futures_util::stream::unfold;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::Status;

/// How long the kubelet may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether the sockets are still the same.
const LOOK: Duration = Duration::from_millis(500);
/// How long after a refusal the plugin tries again.
const RETRY: Duration = Duration::from_secs(2);

/// What a device plugin does.
pub trait DevicePlugin: Send + Sync + 'static {
    /// The devices, and every change of them.
    fn devices(&self) -> watch::Receiver<Vec<Device>>;

    /// Which of the devices it should be.
    fn prefer(
        &self,
        request: ContainerPreferredAllocationRequest,
    ) -> impl Future<Output = Vec<String>> + Send;

    /// What a container with these devices gets. A refusal fails the pod, and its reason is shown there.
    fn allocate(&self, devices: &[String]) -> Result<ContainerAllocateResponse, Status>;

    /// Does what there is to do before such a container is started.
    fn pre_start(&self, devices: Vec<String>) -> impl Future<Output = Result<(), Status>> + Send;

    /// What happens between the kubelet and this plugin.
    fn told(&self, _: Told) {}
}

/// Where a plugin's socket is, and what it is called.
#[derive(Clone, Debug)]
pub struct Place {
    /// The kubelet's directory of device plugins.
    pub directory: PathBuf,
    /// The socket's name in it.
    pub socket: String,
    /// The resource.
    pub resource: String,
}

/// Who answers.
struct Methods<P>(Arc<P>);

fn options() -> DevicePluginOptions {
    DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true }
}

impl<P: DevicePlugin> Service for Methods<P> {
    async fn answer(&self, call: Call) -> Answer {
        let plugin = &self.0;
        match call.uri().path() {
            "/v1beta1.DevicePlugin/GetDevicePluginOptions" => {
                unary(call, async |Empty {}| Ok(options())).await
            }
            "/v1beta1.DevicePlugin/ListAndWatch" => {
                let mut devices = plugin.devices();
                // The first list is told at once.
                devices.mark_changed();
                let next = |mut devices: watch::Receiver<Vec<Device>>| async move {
                    devices.changed().await.ok()?;
                    let list = ListAndWatchResponse { devices: devices.borrow_and_update().clone() };
                    Some((Ok(list), devices))
                };
                stream(call, move |Empty {}| unfold(devices.clone(), next)).await
            }
            "/v1beta1.DevicePlugin/GetPreferredAllocation" => {
                unary(call, async |request: PreferredAllocationRequest| {
                    let mut container_responses = Vec::new();
                    for request in request.container_requests {
                        let device_ids = plugin.prefer(request).await;
                        container_responses.push(ContainerPreferredAllocationResponse { device_ids });
                    }
                    Ok(PreferredAllocationResponse { container_responses })
                })
                .await
            }
            "/v1beta1.DevicePlugin/Allocate" => {
                unary(call, |request: AllocateRequest| {
                    let of = request.container_requests.iter().map(|of| plugin.allocate(&of.devices_ids));
                    let all = of.collect::<Result<Vec<_>, _>>();
                    async move { Ok(AllocateResponse { container_responses: all? }) }
                })
                .await
            }
            "/v1beta1.DevicePlugin/PreStartContainer" => {
                unary(call, async |request: PreStartContainerRequest| {
                    plugin.pre_start(request.devices_ids).await.map(|()| PreStartContainerResponse {})
                })
                .await
            }
            _ => unknown(&call),
        }
    }
}

async fn register(place: &Place) -> io::Result<()> {
    let mut client = connect(&place.directory.join("kubelet.sock")).await?;
    let request = RegisterRequest {
        version: "v1beta1".to_owned(),
        endpoint: place.socket.clone(),
        resource_name: place.resource.clone(),
        options: Some(options()),
    };
    call(&mut client, "/v1beta1.Registration/Register", request).await.map(|Empty {}| ())
}

/// Serves and registers, and does both anew when the kubelet was, until it is dropped.
pub async fn keep_device_plugin<P: DevicePlugin>(plugin: Arc<P>, place: &Place) {
    let mut last = String::new();
    loop {
        match once(&plugin, place).await {
            Ok(()) => last.clear(),
            Err(error) => {
                // It is tried every few seconds, and told once.
                let why = error.to_string();
                if why != last {
                    plugin.told(Told::NotRegistered(why.clone()));
                    last = why;
                }
                sleep(RETRY).await;
            }
        }
    }
}

async fn once<P: DevicePlugin>(plugin: &Arc<P>, place: &Place) -> io::Result<()> {
    let bound = Bound::at(&place.directory.join(&place.socket))?;
    let kubelet = place.directory.join("kubelet.sock");
    let work = async {
        // What is at the path before it is asked: one that comes meanwhile is another one.
        let known = identity(&kubelet);
        timeout(PATIENCE, register(place)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        plugin.told(Told::Registered);
        while identity(&kubelet) == known && bound.is_there() {
            sleep(LOOK).await;
        }
        plugin.told(Told::Again);
        Ok(())
    };
    // The kubelet calls back while it is asked to register.
    tokio::select! {
        done = work => done,
        never = serve(&bound.listener, Arc::new(Methods(Arc::clone(plugin)))) => match never {},
    }
}
