//! The driver on its node: claims are prepared and taken back, slices kept, and what the kubelet forgot is cleaned up.

use super::api::{Api, Refusal};
use super::capacity::Read;
use super::claim::{fits, read};
use super::pods::{contradiction, reserved_for};
use super::slices::{Version, wanted, write};
use super::store::{KIND, Store, Wanted};
use crate::agent::identity::is_name;
use crate::kubelet::beside::DRIVER;
use crate::kubelet::cards::Piece;
use crate::kubelet::common::Common;
use kubelet_plugin::api::dra::{Claim, Device};
use kubelet_plugin::{Driver, Prepared, Told};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// How long the same is not told again of the same claim: a kubelet tries every few seconds.
const QUIET: Duration = Duration::from_secs(300);
/// How long after a failure slices are written again.
const RETRY: Duration = Duration::from_secs(2);

/// A kubelet that starts removes the slices of its node, some time before or after it takes a driver in. So often, and so far
/// apart, they are looked at after that.
const HURRIED: u32 = 6;
const HURRY: Duration = Duration::from_secs(3);

/// All of it.
pub struct Node {
    pub name: String,
    pub api: Api,
    pub common: Common,
    pub policies: Read,
    pub pieces: watch::Receiver<Vec<Piece>>,
    pub store: Mutex<Store>,
    version: Mutex<Option<Version>>,
    taken_in: Notify,
    told: Mutex<HashMap<String, (String, Instant)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    pub fn new(
        name: String,
        api: Api,
        common: Common,
        policies: Read,
        pieces: watch::Receiver<Vec<Piece>>,
        store: Store,
    ) -> Self {
        let store = Mutex::new(store);
        Self {
            name,
            api,
            common,
            policies,
            pieces,
            store,
            version: Mutex::default(),
            taken_in: Notify::new(),
            told: Mutex::default(),
        }
    }

    async fn version(&self) -> Result<Version, String> {
        if let Some(version) = *locked(&self.version) {
            return Ok(version);
        }
        let found = Version::of(&self.api).await.map_err(|refusal| refusal.to_string())?;
        let found = found.ok_or(
            "the cluster has no resource.k8s.io: it is older than Kubernetes 1.32, or the feature is off",
        )?;
        tracing::info!("the cluster has {}", found.full());
        if !found.divides() {
            tracing::warn!(
                "{} knows no capacity that several claims share (Kubernetes 1.34 does): every card is given away whole",
                found.full()
            );
        }
        *locked(&self.version) = Some(found);
        Ok(found)
    }

    /// The devices of a claim as the kubelet is told them.
    fn devices(&self, uid: &str, wanted: &Wanted) -> Vec<Device> {
        let of = |claimed: &super::store::Claimed| {
            let (_, cdi) = self.common.seen(&[&claimed.uuid]);
            Device {
                request_names: claimed.requests.clone(),
                pool_name: claimed.pool.clone(),
                device_name: claimed.device.clone(),
                cdi_device_ids: [format!("{KIND}={uid}")].into_iter().chain(cdi).collect(),
            }
        };
        wanted.devices.iter().map(of).collect()
    }

    /// Whether no container uses this claim and another one. Whoever does not tell what its pods are is believed.
    async fn has_one_claim(&self, claim: &Claim, object: &Value) -> Result<(), String> {
        let all = locked(&self.store).all();
        let others: Vec<&str> = all
            .iter()
            .filter(|(uid, namespace, _)| *uid != claim.uid && *namespace == claim.namespace)
            .map(|(_, _, name)| name.as_str())
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        for name in reserved_for(object) {
            let path = format!("/api/v1/namespaces/{}/pods/{name}", claim.namespace);
            let Ok(pod) = self.api.get(&path).await else { continue };
            if let Some(why) = contradiction(&pod, &claim.name, &others) {
                return Err(why);
            }
        }
        Ok(())
    }

    async fn try_prepare(&self, claim: &Claim) -> Prepared {
        if !is_name(&claim.uid, 64) || claim.uid.contains('_') {
            return Err("its UID is none that Kubernetes gives".to_owned());
        }
        self.common.has_library()?;
        let known = locked(&self.store).prepared(&claim.uid).cloned();
        let wanted = match known {
            // The kubelet asks again after each start of its own, and the API server may be gone then.
            Some(known) => known,
            None => {
                let path = self.version().await?.claim(&claim.namespace, &claim.name);
                let object = self.api.get(&path).await.map_err(|refusal| match refusal.is_missing() {
                    true => "there is no such claim any more".to_owned(),
                    false => refusal.to_string(),
                })?;
                if object["metadata"]["uid"] != claim.uid.as_str() {
                    return Err(
                        "there is another claim of this name now. The pod has to be made anew".to_owned()
                    );
                }
                self.has_one_claim(claim, &object).await?;
                read(&object, DRIVER, &self.name, &self.pieces.borrow())?
            }
        };
        let mut store = locked(&self.store);
        if store.prepared(&claim.uid).is_none() {
            fits(&wanted, &store.others(&claim.uid), &self.pieces.borrow())?;
        }
        let prepared = store.prepare(&claim.uid, wanted.clone());
        prepared.map_err(|error| {
            format!("the driver cannot keep its files: {error}. See its log on node {}", self.name)
        })?;
        Ok(self.devices(&claim.uid, &wanted))
    }

    /// Says on the claim why it is not prepared.
    async fn tell(&self, claim: &Claim, why: &str) {
        let is_new = {
            let mut told = locked(&self.told);
            told.retain(|_, (_, at)| at.elapsed() < QUIET);
            let was = told.insert(claim.uid.clone(), (why.to_owned(), Instant::now()));
            was.is_none_or(|(was, _)| was != why)
        };
        if !is_new {
            return;
        }
        tracing::warn!("claim {}/{} is not prepared: {why}", claim.namespace, claim.name);
        let version = locked(&self.version).map_or_else(|| "resource.k8s.io/v1".to_owned(), Version::full);
        let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let start: String = claim.name.chars().take(200).collect();
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "generateName": format!("{start}."), "namespace": claim.namespace },
            "involvedObject": {
                "apiVersion": version, "kind": "ResourceClaim",
                "namespace": claim.namespace, "name": claim.name, "uid": claim.uid,
            },
            "type": "Warning",
            "reason": "NotPrepared",
            "message": format!("gpuquota: {}", why.chars().take(1000).collect::<String>()),
            "source": { "component": DRIVER, "host": self.name },
            "reportingComponent": DRIVER,
            "reportingInstance": self.name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let path = format!("/api/v1/namespaces/{}/events", claim.namespace);
        if let Err(refusal) = self.api.create(&path, &event).await {
            tracing::warn!("the event of claim {}/{} is not written: {refusal}", claim.namespace, claim.name);
        }
    }

    /// Writes the slices of this node as its cards are now.
    async fn write_slices(&self, uid: &mut String) -> Result<(), String> {
        let version = self.version().await?;
        if uid.is_empty() {
            let node = self.api.get(&format!("/api/v1/nodes/{}", self.name)).await;
            let node: Value = node.map_err(|refusal| format!("node {}: {refusal}", self.name))?;
            node["metadata"]["uid"].as_str().unwrap_or_default().clone_into(uid);
        }
        let slices = wanted(&self.pieces.borrow(), &self.policies, version, DRIVER, &self.name, uid);
        let count = slices.len();
        match write(&self.api, version, DRIVER, &self.name, slices).await {
            Ok(written) => {
                if written.changes > 0 {
                    tracing::info!("{count} ResourceSlices tell the cards of {}", self.name);
                    if written.is_undivided {
                        tracing::warn!(
                            "the API server has dropped allowMultipleAllocations: every card is given away whole until the \
                             feature gate DRAConsumableCapacity is on (it is from Kubernetes 1.36)"
                        );
                    }
                }
                Ok(())
            }
            Err(refusal) => {
                // A cluster that was updated may serve another version.
                *locked(&self.version) = None;
                Err(refusal.to_string())
            }
        }
    }

    /// Keeps the slices, for ever: at once when a card changes or the kubelet has started, and now and then in any case.
    pub async fn keep_slices(&self, period: Duration) {
        let (mut pieces, mut uid, mut last) = (self.pieces.clone(), String::new(), String::new());
        // A node whose cards are not known yet has none to take back.
        while pieces.borrow_and_update().is_empty() {
            if pieces.changed().await.is_err() {
                return;
            }
        }
        let mut hurried: u32 = 0;
        loop {
            pieces.borrow_and_update();
            let pause = match self.write_slices(&mut uid).await {
                Ok(()) => {
                    last.clear();
                    if hurried > 0 { period.min(HURRY) } else { period }
                }
                Err(why) => {
                    if why != last {
                        tracing::warn!(
                            "the ResourceSlices of this node are not written: {why}; it is tried again"
                        );
                        last = why;
                    }
                    RETRY
                }
            };
            hurried = hurried.saturating_sub(1);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.taken_in.notified() => hurried = HURRIED,
                changed = pieces.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Takes back what the kubelet forgot: claims that are gone, or not allocated any more.
    pub async fn clean(&self) {
        let all = locked(&self.store).all();
        for (uid, namespace, name) in all {
            let Ok(version) = self.version().await else { return };
            let is_gone = match self.api.get(&version.claim(&namespace, &name)).await {
                Ok(object) => {
                    object["metadata"]["uid"] != uid.as_str() || object["status"]["allocation"].is_null()
                }
                Err(Refusal::Status(404, _)) => true,
                Err(_) => return,
            };
            if !is_gone {
                continue;
            }
            match locked(&self.store).unprepare(&uid) {
                Ok(()) => {
                    tracing::info!("claim {namespace}/{name} is gone, and so is what was prepared for it")
                }
                Err(error) => {
                    tracing::warn!("what was prepared for claim {namespace}/{name} is not removed: {error}")
                }
            }
        }
    }
}

impl Driver for Node {
    async fn prepare(&self, claim: Claim) -> Prepared {
        let prepared = self.try_prepare(&claim).await;
        match &prepared {
            Ok(_) => _ = locked(&self.told).remove(&claim.uid),
            Err(why) => self.tell(&claim, why).await,
        }
        prepared.map_err(|why| format!("gpuquota: {why}"))
    }

    async fn unprepare(&self, claim: Claim) -> Result<(), String> {
        if !is_name(&claim.uid, 64) {
            return Ok(());
        }
        locked(&self.store).unprepare(&claim.uid).map_err(|error| {
            let why = format!("what was prepared cannot be removed: {error}");
            tracing::warn!("claim {}/{}: {why}", claim.namespace, claim.name);
            format!("gpuquota: {why}")
        })
    }

    fn told(&self, told: Told) {
        match told {
            Told::Registered => {
                tracing::info!("the kubelet has taken in {DRIVER}");
                self.taken_in.notify_one();
            }
            Told::NotRegistered(why) => tracing::warn!("the kubelet does not take in {DRIVER}: {why}"),
            Told::Again => tracing::info!("a socket of {DRIVER} was taken away: it is made anew"),
        }
    }
}
