//! A driver of dynamic resource allocation: one socket for the kubelet's watcher of plugins, one for its claims.

use crate::Told;
use crate::api::dra::{
    Claim, Device, NodePrepareResourceResponse, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourceResponse, NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse,
};
use crate::api::plugin_registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use crate::server::{Answer, Call, Service, serve, unary, unknown};
use crate::socket::Bound;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// How often it is looked whether the sockets are still there.
const LOOK: Duration = Duration::from_millis(500);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// The versions of the interface, the preferred one first.
const VERSIONS: [&str; 2] = ["v1.DRAPlugin", "v1beta1.DRAPlugin"];

/// What a claim has become, or why it has not.
pub type Prepared = Result<Vec<Device>, String>;

/// What a driver does.
pub trait Driver: Send + Sync + 'static {
    /// Makes a claim usable on this node. It may be called again for one that is prepared.
    fn prepare(&self, claim: Claim) -> impl Future<Output = Prepared> + Send;

    /// Takes it back. It may be called for one that is not prepared.
    fn unprepare(&self, claim: Claim) -> impl Future<Output = Result<(), String>> + Send;

    /// What happens between the kubelet and this driver.
    fn told(&self, _: Told) {}
}

/// What a driver is called, and where its sockets are.
#[derive(Clone, Debug)]
pub struct DriverOptions {
    /// Its name, as in ResourceSlices and device classes.
    pub name: String,
    /// The directory of its own, such as `/var/lib/kubelet/plugins/NAME`, as the kubelet sees it.
    pub directory: PathBuf,
    /// The kubelet's directory of plugins to register.
    pub registry: PathBuf,
}

impl DriverOptions {
    /// The socket for claims.
    ///
    /// The kubelet's library sends the path of this socket as the authority of its requests, with `%2F` for each slash, and the
    /// server's library here takes percents before an `@` only. So there is one in the name.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(format!("dra@{}", self.name))
    }

    /// The socket for the kubelet's watcher.
    pub fn registration(&self) -> PathBuf {
        self.registry.join(format!("{}-reg.sock", self.name))
    }
}

/// Who answers on both sockets.
struct Methods<D> {
    driver: Arc<D>,
    info: PluginInfo,
}

impl<D: Driver> Methods<D> {
    async fn prepare(&self, request: NodePrepareResourcesRequest) -> NodePrepareResourcesResponse {
        let mut answer = NodePrepareResourcesResponse::default();
        for claim in request.claims {
            let uid = claim.uid.clone();
            let of = match self.driver.prepare(claim).await {
                Ok(devices) => NodePrepareResourceResponse { devices, error: String::new() },
                Err(error) => NodePrepareResourceResponse { devices: Vec::new(), error },
            };
            answer.claims.insert(uid, of);
        }
        answer
    }

    async fn unprepare(&self, request: NodeUnprepareResourcesRequest) -> NodeUnprepareResourcesResponse {
        let mut answer = NodeUnprepareResourcesResponse::default();
        for claim in request.claims {
            let uid = claim.uid.clone();
            let error = self.driver.unprepare(claim).await.err().unwrap_or_default();
            answer.claims.insert(uid, NodeUnprepareResourceResponse { error });
        }
        answer
    }
}

impl<D: Driver> Service for Methods<D> {
    async fn answer(&self, call: Call) -> Answer {
        // The package's name has changed within v1beta1; what stands behind it has not.
        let path = call.uri().path().to_owned();
        let (service, method) = path.rsplit_once('/').unwrap_or(("", ""));
        let is_ours = VERSIONS
            .iter()
            .any(|version| service.strip_suffix(version).is_some_and(|before| before.ends_with(['/', '.'])));
        match method {
            "NodePrepareResources" if is_ours => {
                unary(call, async |request| Ok(self.prepare(request).await)).await
            }
            "NodeUnprepareResources" if is_ours => {
                unary(call, async |request| Ok(self.unprepare(request).await)).await
            }
            "GetInfo" if service == "/pluginregistration.Registration" => {
                unary(call, async |InfoRequest {}| Ok(self.info.clone())).await
            }
            "NotifyRegistrationStatus" if service == "/pluginregistration.Registration" => {
                unary(call, async |status: RegistrationStatus| {
                    self.driver.told(match status.plugin_registered {
                        true => Told::Registered,
                        false => Told::NotRegistered(status.error),
                    });
                    Ok(RegistrationStatusResponse {})
                })
                .await
            }
            _ => unknown(&call),
        }
    }
}

/// Serves, and makes the sockets anew when they were taken away, until it is dropped. A kubelet that is started anew finds
/// the socket in its registry by itself.
pub async fn keep_driver<D: Driver>(driver: Arc<D>, options: &DriverOptions) {
    let mut last = String::new();
    loop {
        match once(&driver, options).await {
            Ok(()) => {
                last.clear();
                driver.told(Told::Again);
            }
            Err(error) => {
                // It is tried every few seconds, and told once.
                let why = error.to_string();
                if why != last {
                    driver.told(Told::NotRegistered(why.clone()));
                    last = why;
                }
                sleep(RETRY).await;
            }
        }
    }
}

async fn once<D: Driver>(driver: &Arc<D>, options: &DriverOptions) -> io::Result<()> {
    let info = PluginInfo {
        r#type: "DRAPlugin".to_owned(),
        name: options.name.clone(),
        endpoint: options.socket().to_string_lossy().into_owned(),
        supported_versions: VERSIONS.map(str::to_owned).into(),
    };
    let methods = Arc::new(Methods { driver: Arc::clone(driver), info });
    // The watcher calls as soon as it sees the second one.
    let (claims, registration) = (Bound::at(&options.socket())?, Bound::at(&options.registration())?);
    let both_there = async {
        while claims.is_there() && registration.is_there() {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = both_there => Ok(()),
        never = serve(&claims.listener, Arc::clone(&methods)) => match never {},
        never = serve(&registration.listener, methods) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::authority_of;
    use hyper::http::uri::Authority;

    #[test]
    fn what_the_kubelet_sends_for_the_socket_is_an_authority_that_this_server_takes() {
        let options = DriverOptions {
            name: "gpu.example".to_owned(),
            directory: "/var/lib/kubelet/plugins/gpu.example".into(),
            registry: "/var/lib/kubelet/plugins_registry".into(),
        };
        let sent = authority_of(&options.socket());
        assert_eq!(sent, "%2Fvar%2Flib%2Fkubelet%2Fplugins%2Fgpu.example%2Fdra@gpu.example");
        assert!(sent.parse::<Authority>().is_ok());
        // The usual name is refused, and with it every request.
        assert!(sent.replace('@', "-").parse::<Authority>().is_err());
    }
}
