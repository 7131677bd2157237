//! What the kernel says of a process: the cgroup in which its runtime put it names pod and container.

use super::path::is_pod_uid;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of `/proc/PID/cgroup` that are read.
const LONGEST: u64 = 64 << 10;

/// The container of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cgroup {
    /// The pod's UID.
    pub pod_uid: Option<String>,
    /// The container's id, 64 hexadecimal digits.
    pub container_id: Option<String>,
    /// What made it; empty where the path does not say.
    pub runtime: &'static str,
}

impl Cgroup {
    /// The container of a living process, by its `/proc` here.
    pub fn of(proc: &Path, pid: u32) -> Option<Self> {
        let mut text = String::new();
        let file = File::open(proc.join(pid.to_string()).join("cgroup")).ok()?;
        file.take(LONGEST).read_to_string(&mut text).ok()?;
        Some(Self::parse(&text))
    }

    /// Reads the file's lines, those of version 1 and 2. The first hierarchy that names a container counts.
    pub fn parse(text: &str) -> Self {
        let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let read: Vec<Self> = paths.map(Self::of_path).collect();
        let best = |has: fn(&Self) -> bool| read.iter().find(|group| has(group)).cloned();
        best(|group| group.container_id.is_some())
            .or_else(|| best(|group| group.pod_uid.is_some()))
            .unwrap_or_default()
    }

    /// Whether it names anything.
    pub fn is_container(&self) -> bool {
        self.pod_uid.is_some() || self.container_id.is_some()
    }

    /// Reads one path from its root down. A container may make groups below its own, under any names: so the outermost pod
    /// and container count.
    fn of_path(path: &str) -> Self {
        let mut found = Self::default();
        let mut above = "";
        // A runtime that was told the wrong driver puts what systemd would have made of it into one name.
        for name in path.split(['/', ':']) {
            if let Some((id, runtime)) = container(name, above) {
                return Self { container_id: Some(id.to_owned()), runtime, ..found };
            }
            if found.pod_uid.is_none() {
                found.pod_uid = pod(name);
            }
            above = name;
        }
        found
    }
}

/// `pod<UID>`, and systemd's `kubepods-burstable-pod<UID with _>.slice`.
fn pod(name: &str) -> Option<String> {
    let uid = match name.strip_suffix(".slice") {
        None => name.strip_prefix("pod")?.to_owned(),
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
    };
    is_pod_uid(&uid).then_some(uid)
}

/// The id of a container's own group, and the runtime that calls it so.
fn container<'n>(name: &'n str, above: &str) -> Option<(&'n str, &'static str)> {
    let bare = name.strip_suffix(".scope").unwrap_or(name);
    let (prefix, id) = bare.rsplit_once('-').unwrap_or(("", bare));
    let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    let runtime = match (prefix, above) {
        ("cri-containerd", _) => "containerd",
        ("crio", _) => "cri-o",
        ("docker", _) | ("", "docker") => "docker",
        ("libpod", _) | ("", "libpod_parent") => "podman",
        ("", "cri-containerd") => "containerd",
        ("", "crio") => "cri-o",
        // A helper beside the container, such as conmon.
        (prefix, _) if prefix.ends_with("conmon") => return None,
        _ => "",
    };
    is_id.then_some((id, runtime))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f4c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f";
    const OTHER: &str = "ffffffff-5a6b-4c7d-8e9f-0a1b2c3d4e5f";

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn expect(text: &str, pod: Option<&str>, container: Option<&str>, runtime: &str) {
        let found = Cgroup::parse(text);
        let told = (found.pod_uid.as_deref(), found.container_id.as_deref(), found.runtime);
        assert_eq!(told, (pod, container, runtime), "{text}");
    }

    #[test]
    fn both_drivers_and_both_versions_name_pod_and_container() {
        let (id, systemd) = (id('a'), UID.replace('-', "_"));
        let (pod, container) = (Some(UID), Some(id.as_str()));
        let burstable =
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice");
        expect(&format!("0::{burstable}/cri-containerd-{id}.scope\n"), pod, container, "containerd");
        expect(&format!("0::{burstable}/crio-{id}.scope\n"), pod, container, "cri-o");
        expect(&format!("0::{burstable}/docker-{id}.scope\n"), pod, container, "docker");
        expect(&format!("0::/kubepods/besteffort/pod{UID}/{id}\n"), pod, container, "");
        let v1 = format!(
            "9:name=systemd:/\n4:memory:/kubepods/pod{UID}/{id}\n1:cpu:/kubepods/pod{UID}/{id}\n0::/\n"
        );
        expect(&v1, pod, container, "");
        let kind = format!(
            "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{systemd}.slice/cri-containerd-{id}.scope"
        );
        expect(&kind, pod, container, "containerd");
        expect(
            &format!("0::/../../kubepods-pod{systemd}.slice/cri-containerd-{id}.scope"),
            pod,
            container,
            "containerd",
        );
        expect(
            &format!(
                "1:cpu:/system.slice/containerd.service/kubepods-pod{systemd}.slice:cri-containerd:{id}"
            ),
            pod,
            container,
            "containerd",
        );
    }

    #[test]
    fn containers_without_pods_are_known_by_their_id() {
        let id = id('b');
        let container = Some(id.as_str());
        expect(&format!("0::/system.slice/docker-{id}.scope"), None, container, "docker");
        expect(&format!("3:cpuset:/docker/{id}\n0::/"), None, container, "docker");
        expect(&format!("0::/machine.slice/libpod-{id}.scope/container"), None, container, "podman");
        expect(
            &format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope"),
            None,
            container,
            "podman",
        );
        expect(&format!("2:pids:/libpod_parent/libpod-{id}\n"), None, container, "podman");
    }

    #[test]
    fn a_group_that_a_container_made_below_its_own_does_not_rename_it() {
        let (own, foreign) = (id('a'), id('c'));
        let path = format!("0::/kubepods/pod{UID}/{own}/kubepods/pod{OTHER}/{foreign}");
        expect(&path, Some(UID), Some(&own), "");
        expect(&format!("0::/docker/{own}/kubepods/pod{OTHER}/{foreign}"), None, Some(&own), "docker");
    }

    #[test]
    fn what_is_no_container_is_none() {
        for text in [
            "",
            "0::/\n",
            "0::/user.slice/user-0.slice/session-1.scope",
            "nonsense",
            "0::/podinfo/pod-x",
            ":::",
        ] {
            assert!(!Cgroup::parse(text).is_container(), "{text}");
        }
        assert!(!Cgroup::parse(&format!("0::/machine.slice/libpod-conmon-{}.scope", id('a'))).is_container());
        assert!(!Cgroup::parse(&format!("0::/docker/{}", "A".repeat(64))).is_container());
    }
}
