//! What the sources have said, and how a container's name follows from it.

use super::cgroup::Cgroup;
use super::path::{Clue, is_name, is_pod_uid};
use serde::Serialize;
use std::collections::HashMap;

/// Facts of one source that are kept.
pub const MOST: usize = 16384;
/// Longest name of Kubernetes' and of the runtimes.
const LONGEST_NAME: usize = 253;

/// Whose a region, or a process, is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Identity {
    /// The pod's namespace; empty outside Kubernetes, and where nobody knows it.
    pub namespace: String,
    /// The pod's name; the same.
    pub pod: String,
    /// The container's name; where nobody knows it, what the region's place is called.
    pub container: String,
    /// Who made the container, or its region: an engine, a runtime, or nobody known.
    pub engine: &'static str,
    /// The pod's UID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
}

/// One thing that a source knows of a container or a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// The container's id.
    pub container_id: Option<String>,
    /// The pod's UID.
    pub pod_uid: Option<String>,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// The runtime.
    pub runtime: &'static str,
    /// Devices that the kubelet gave it.
    pub devices: Vec<String>,
}

impl Fact {
    /// `None` for names that no container can have: who says so is no source.
    pub fn checked(self) -> Option<Self> {
        let Self { container_id, pod_uid, namespace, pod, container, .. } = &self;
        let fits = |name: &String| name.is_empty() || is_name(name, LONGEST_NAME);
        let names = [namespace, pod, container].into_iter().chain(container_id);
        (names.into_iter().all(fits) && pod_uid.iter().all(|uid| is_pod_uid(uid))).then_some(self)
    }

    /// A name that runtimes for Kubernetes give: `k8s_<container>_<pod>_<namespace>_<UID>_<attempt>`.
    pub fn of_kubernetes_name(name: &str) -> Option<Self> {
        let words: Vec<&str> = name.split('_').collect();
        let ["k8s", container, pod, namespace, uid, _attempt] = words[..] else { return None };
        let [container, pod, namespace, uid] = [container, pod, namespace, uid].map(str::to_owned);
        Self { container, pod, namespace, pod_uid: Some(uid), ..Self::default() }.checked()
    }
}

/// All facts, by what they are looked up by.
#[derive(Default)]
pub struct Facts {
    all: Vec<Fact>,
    by_id: HashMap<String, usize>,
    by_pod: HashMap<String, Vec<usize>>,
}

impl Facts {
    /// Of several sources, the most trusted first.
    pub fn of<'f>(sources: impl Iterator<Item = &'f [Fact]>) -> Self {
        let mut facts = Self::default();
        for fact in sources.flatten() {
            let at = facts.all.len();
            if let Some(id) = &fact.container_id {
                facts.by_id.entry(id.clone()).or_insert(at);
            }
            if let Some(uid) = &fact.pod_uid {
                facts.by_pod.entry(uid.clone()).or_default().push(at);
            }
            facts.all.push(fact.clone());
        }
        facts
    }

    fn of_pod(&self, uid: &str) -> impl Iterator<Item = &Fact> {
        self.by_pod.get(uid).into_iter().flatten().filter_map(|at| self.all.get(*at))
    }

    /// The name of a container, from what its region's path claims, what the kernel says of its living process, and the
    /// devices of its region. True if some source may still know more.
    pub fn name(&self, label: &str, clue: &Clue, cgroup: &Cgroup, devices: &[&str]) -> (Identity, bool) {
        // The kernel outranks a path. Then the path's container is no container of that pod.
        let agrees = cgroup.pod_uid.is_none() || clue.pod_uid.is_none() || cgroup.pod_uid == clue.pod_uid;
        let is_foreign = cgroup.pod_uid.is_none() && cgroup.container_id.is_some() && clue.pod_uid.is_some();
        let by_id = cgroup.container_id.as_ref().and_then(|id| self.all.get(*self.by_id.get(id)?));
        let claimed = clue.container.as_deref().filter(|_| agrees && !is_foreign);
        let uid = by_id.and_then(|fact| fact.pod_uid.as_ref()).or(cgroup.pod_uid.as_ref());
        let uid = uid.or(clue.pod_uid.as_ref().filter(|_| !is_foreign)).cloned().unwrap_or_default();
        let by_pod = || self.of_pod(&uid).find(|fact| !fact.pod.is_empty());
        let of_kubelet =
            || claimed.filter(|_| cgroup.is_container()).and_then(|name| self.by_devices(name, devices));
        let fact = by_id.or_else(by_pod).or_else(of_kubelet);
        let only = || {
            let mut names: Vec<&str> = self.of_pod(&uid).map(|fact| fact.container.as_str()).collect();
            names.retain(|name| !name.is_empty());
            names.sort_unstable();
            names.dedup();
            <[&str; 1]>::try_from(names).ok().map(|[name]| name)
        };
        let by_id_name = by_id.map(|fact| fact.container.as_str()).filter(|name| !name.is_empty());
        let short = || cgroup.container_id.as_deref().and_then(|id| id.get(..12));
        let container = by_id_name.or(claimed).or_else(only).or_else(short).unwrap_or(label);
        let runtime =
            by_id.map(|fact| fact.runtime).filter(|runtime| !runtime.is_empty()).unwrap_or(cgroup.runtime);
        let engine =
            if matches!(clue.engine, "" | "gpuquota") && !runtime.is_empty() { runtime } else { clue.engine };
        let (namespace, pod) =
            fact.map(|fact| (fact.namespace.clone(), fact.pod.clone())).unwrap_or_default();
        let is_known = by_id.is_some() || (!pod.is_empty() && claimed.is_some());
        let is_askable = cgroup.container_id.is_some() || !uid.is_empty();
        let identity = Identity { namespace, pod, container: container.to_owned(), engine, pod_uid: uid };
        (identity, is_askable && !is_known)
    }

    /// The one container of this name to which the kubelet gave one of these devices. Engines that share devices make up
    /// device ids that begin with the card's UUID.
    fn by_devices(&self, container: &str, devices: &[&str]) -> Option<&Fact> {
        let has = |fact: &Fact| fact.devices.iter().any(|id| devices.iter().any(|uuid| id.starts_with(uuid)));
        let mut those = self.all.iter().filter(|fact| fact.container == container && has(fact));
        let first = those.next()?;
        those.next().is_none().then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f4c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f";
    const OTHER: &str = "ffffffff-5a6b-4c7d-8e9f-0a1b2c3d4e5f";

    fn pod(uid: &str, pod: &str) -> Fact {
        Fact { pod_uid: Some(uid.into()), namespace: "team".into(), pod: pod.into(), ..Fact::default() }
    }

    fn clue() -> Clue {
        Clue { engine: "hami", pod_uid: Some(UID.into()), container: Some("main".into()) }
    }

    fn told(facts: &[Fact], clue: &Clue, cgroup: &Cgroup) -> (String, String, String, &'static str) {
        let facts = Facts::of([facts].into_iter());
        let (Identity { namespace, pod, container, engine, .. }, _) =
            facts.name("label", clue, cgroup, &["GPU-1"]);
        (namespace, pod, container, engine)
    }

    fn of(
        namespace: &str,
        pod: &str,
        container: &str,
        engine: &'static str,
    ) -> (String, String, String, &'static str) {
        (namespace.into(), pod.into(), container.into(), engine)
    }

    #[test]
    fn a_path_and_the_log_directories_name_a_container() {
        let found = told(&[pod(OTHER, "b"), pod(UID, "a")], &clue(), &Cgroup::default());
        assert_eq!(found, of("team", "a", "main", "hami"));
        assert_eq!(told(&[], &clue(), &Cgroup::default()), of("", "", "main", "hami"));
        assert_eq!(told(&[], &Clue::default(), &Cgroup::default()), of("", "", "label", ""));
    }

    #[test]
    fn a_path_under_another_pods_name_does_not_pass() {
        let facts = [pod(UID, "victim"), pod(OTHER, "liar")];
        let cgroup = Cgroup { pod_uid: Some(OTHER.into()), container_id: Some("c".repeat(64)), runtime: "" };
        assert_eq!(told(&facts, &clue(), &cgroup), of("team", "liar", "cccccccccccc", "hami"));
        // A container outside Kubernetes is in no pod, whatever its path says.
        let docker = Cgroup { pod_uid: None, container_id: Some("d".repeat(64)), runtime: "docker" };
        assert_eq!(told(&facts, &clue(), &docker), of("", "", "dddddddddddd", "hami"));
    }

    #[test]
    fn an_id_that_a_runtime_knows_names_the_container() {
        let id = "a".repeat(64);
        let known = Fact { container_id: Some(id.clone()), container: "side".into(), ..pod(UID, "a") };
        let cgroup = Cgroup { container_id: Some(id), ..Cgroup::default() };
        assert_eq!(told(&[known], &Clue::default(), &cgroup), of("team", "a", "side", ""));
    }

    #[test]
    fn the_kubelets_devices_decide_only_where_one_container_fits() {
        let given = |pod: &str, device: &str| Fact {
            namespace: "team".into(),
            pod: pod.into(),
            container: "main".into(),
            devices: vec![device.into()],
            ..Fact::default()
        };
        let living = Cgroup { pod_uid: Some(UID.into()), ..Cgroup::default() };
        let one = [given("a", "GPU-1-7"), given("b", "GPU-2-0")];
        assert_eq!(told(&one, &clue(), &living), of("team", "a", "main", "hami"));
        let two = [given("a", "GPU-1-7"), given("b", "GPU-1-0")];
        assert_eq!(told(&two, &clue(), &living), of("", "", "main", "hami"));
        assert_eq!(told(&one, &clue(), &Cgroup::default()), of("", "", "main", "hami"));
    }

    #[test]
    fn names_that_cannot_be_are_no_facts() {
        let evil = Fact { pod: "a\u{1b}[2J".into(), ..Fact::default() };
        assert_eq!(evil.checked(), None);
        let long = Fact { pod: "a".repeat(300), ..Fact::default() };
        assert_eq!(long.checked(), None);
        let name = format!("k8s_main_web-0_team_{UID}_3");
        let expected = Fact { container: "main".into(), ..pod(UID, "web-0") };
        assert_eq!(Fact::of_kubernetes_name(&name), Some(expected));
        assert_eq!(Fact::of_kubernetes_name("web"), None);
    }
}
