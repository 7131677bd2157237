//! A node of a cluster, and the DRA driver on it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::api_server::ApiServer;
use crate::container;
use crate::stub::{Kubelet, Running, ask, ask_as, eventually};
use gpuquota_promises::{Machine, Scratch, artifact};
use kubelet_plugin::api::dra::{
    Claim, NodePrepareResourceResponse, NodePrepareResourcesRequest, NodePrepareResourcesResponse,
    NodeUnprepareResourcesRequest, NodeUnprepareResourcesResponse,
};
use kubelet_plugin::api::plugin_registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use kubelet_plugin::client::authority_of;
use serde_json::{Value, json};

pub const UID: &str = "4d7c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f";
pub const OTHER: &str = "7777cccc-5a6b-4c7d-8e9f-0a1b2c3d4e5f";
pub const GIB: u64 = 1 << 30;

/// A node of a cluster, and the driver on it.
pub struct Node {
    pub kubelet: Kubelet,
    pub api: ApiServer,
    pub home: Scratch,
    pub driver: Option<Running>,
}

impl Node {
    pub fn new(api: ApiServer) -> Self {
        let home = Scratch::new();
        home.file("token", "secret\n");
        Self { kubelet: Kubelet::new(), api, home, driver: None }
    }

    pub fn start(mut self, machine: &Machine, flags: &[&str]) -> Self {
        self.drive(machine, flags);
        self.slices();
        self
    }

    /// Starts the driver, in the place of one that runs.
    pub fn drive(&mut self, machine: &Machine, flags: &[&str]) {
        self.driver = None;
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let below = |name: &str| text(&self.home.path().join(name));
        let (kubelet, library) = (text(self.kubelet.home.path()), text(&artifact("libgpuquota.so")));
        let (regions, specs, token) = (below("regions"), below("cdi"), below("token"));
        let all = [
            &["dra", "--node-name", "node-1", "--kubelet", &kubelet, "--root", &regions, "--cdi", &specs][..],
            &["--api", self.api.address(), "--api-token", &token, "--library", &library],
            if flags.contains(&"--period") { &[] } else { &["--period", "1s"] },
            flags,
        ];
        self.driver = Some(Running::start(machine, &all.concat()));
    }

    pub fn driver(&self) -> &Running {
        self.driver.as_ref().expect("it runs")
    }

    /// The devices of this node as the scheduler sees them, once they are there.
    pub fn slices(&self) -> Vec<Value> {
        let all = eventually(|| Some(self.api.slices()).filter(|all| !all.is_empty()), "a ResourceSlice");
        all.iter().flat_map(|slice| slice["spec"]["devices"].as_array().expect("devices").clone()).collect()
    }

    /// Registers the driver as the kubelet's watcher does; its socket for claims.
    pub fn register(&self) -> PathBuf {
        let socket = self.kubelet.home.path().join("plugins_registry/gpuquota.dev-reg.sock");
        let info = || ask(&socket, "/pluginregistration.Registration/GetInfo", InfoRequest {}).ok();
        let info: PluginInfo = eventually(info, "the driver's registration");
        assert_eq!((info.r#type.as_str(), info.name.as_str()), ("DRAPlugin", "gpuquota.dev"));
        assert_eq!(info.supported_versions, ["v1.DRAPlugin", "v1beta1.DRAPlugin"]);
        let status = RegistrationStatus { plugin_registered: true, error: String::new() };
        let method = "/pluginregistration.Registration/NotifyRegistrationStatus";
        ask(&socket, method, status).map(|RegistrationStatusResponse {}| ()).expect("told");
        info.endpoint.into()
    }

    /// An allocated claim of the cluster's.
    pub fn allocate(&self, name: &str, uid: &str, results: &[Value], config: Value) {
        let devices = json!({ "results": results, "config": config });
        let claim = json!({
            "metadata": { "namespace": "team", "name": name, "uid": uid },
            "status": {
                "allocation": { "devices": devices },
                "reservedFor": [{ "resource": "pods", "name": "web", "uid": "uid-of-web" }],
            },
        });
        self.api.put(&claim_path("v1", name), claim.clone());
        self.api.put(&claim_path("v1beta1", name), claim);
    }

    pub fn prepare(&self, name: &str, uid: &str) -> NodePrepareResourceResponse {
        self.prepare_by("/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources", name, uid)
    }

    pub fn prepare_by(&self, method: &'static str, name: &str, uid: &str) -> NodePrepareResourceResponse {
        let request = NodePrepareResourcesRequest { claims: vec![claim(name, uid)] };
        let answer: Result<NodePrepareResourcesResponse, _> = self.claims(method, request);
        answer.expect("an answer").claims[uid].clone()
    }

    pub fn refused(&self, name: &str, uid: &str, words: &[&str]) {
        let answer = self.prepare(name, uid);
        assert!(answer.devices.is_empty(), "{answer:?}");
        assert!(words.iter().all(|word| answer.error.contains(word)), "{}", answer.error);
        let events = self.api.events();
        assert!(events.iter().any(|(of, message)| of == name && *message == answer.error), "{events:?}");
        assert!(!self.files().iter().any(|file| file.contains(uid)), "{:?}", self.files());
    }

    /// Calls the socket for claims as the kubelet does, which takes its path for the authority.
    pub fn claims<Q, A>(&self, method: &'static str, request: Q) -> Result<A, String>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let socket = self.register();
        ask_as(&socket, &authority_of(&socket), method, request)
    }

    pub fn unprepare(&self, name: &str, uid: &str) -> String {
        let request = NodeUnprepareResourcesRequest { claims: vec![claim(name, uid)] };
        let method = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources";
        let answer: Result<NodeUnprepareResourcesResponse, _> = self.claims(method, request);
        answer.expect("an answer").claims[uid].error.clone()
    }

    pub fn spec(&self, uid: &str) -> Option<Value> {
        let path = self.home.path().join(format!("cdi/gpuquota.dev-claim-{uid}.json"));
        fs::read(path).ok().map(|text| serde_json::from_slice(&text).expect("JSON"))
    }

    /// The limits file of a claim.
    pub fn limits(&self, uid: &str) -> String {
        let binds = self.binds(uid);
        let limits = binds.iter().find(|(_, to, _)| to == "/etc/gpuquota/limits").expect("limits");
        fs::read_to_string(&limits.0).expect("the limits file")
    }

    /// What is mounted for a claim.
    pub fn binds(&self, uid: &str) -> Vec<container::Bind> {
        let spec = self.spec(uid).expect("a specification");
        let mounts = spec["devices"][0]["containerEdits"]["mounts"].as_array().expect("mounts").clone();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let of = |mount: &Value| {
            let is_read_only = mount["options"].as_array().expect("options").contains(&json!("ro"));
            (text(&mount["hostPath"]), text(&mount["containerPath"]), is_read_only)
        };
        mounts.iter().map(of).collect()
    }

    /// Every file below this node's directories.
    pub fn files(&self) -> Vec<String> {
        let (mut found, mut open) = (Vec::new(), vec![self.home.path().to_path_buf()]);
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).expect("a folder").flatten() {
                match entry.path() {
                    path if path.is_dir() => open.push(path),
                    path => found.push(path.display().to_string()),
                }
            }
        }
        found
    }
}

pub fn claim(name: &str, uid: &str) -> Claim {
    Claim { namespace: "team".to_owned(), uid: uid.to_owned(), name: name.to_owned() }
}

pub fn claim_path(version: &str, name: &str) -> String {
    format!("/apis/resource.k8s.io/{version}/namespaces/team/resourceclaims/{name}")
}

pub fn result(request: &str, device: &str, memory: &str, cores: &str) -> Value {
    json!({
        "request": request, "driver": "gpuquota.dev", "pool": "node-1", "device": device,
        "consumedCapacity": { "memory": memory, "cores": cores },
    })
}

pub fn text<'v>(device: &'v Value, attribute: &str) -> &'v str {
    device["attributes"][attribute]["string"].as_str().unwrap_or_else(|| panic!("no {attribute} in {device}"))
}
