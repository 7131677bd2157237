//! Every region is named by namespace, pod and container, from whatever there is, and no source is needed or trusted too far.

mod common;
#[path = "common/stubs.rs"]
mod stubs;

use common::agent::Agent;
use common::exposition::parse;
use common::{Scratch, gpuquota, join, output, sample, stderr};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use stubs::{Answer, Stub, eventually, field};

const POD: &str = "0f4c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f";
const OTHER: &str = "7777cccc-5a6b-4c7d-8e9f-0a1b2c3d4e5f";

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// An agent for the regions below `root`. Of the sources only those among the options are there.
struct Node(Agent);

impl Node {
    fn start(root: &Path, options: &[(&str, &Path)]) -> Self {
        let sources = [
            "--cri",
            "--kubelet-pod-resources",
            "--docker",
            "--podman",
            "--container-storage",
            "--pod-logs",
            "--container-logs",
        ];
        let none = Path::new("/nonexistent/there");
        let missing = sources.into_iter().filter(|name| !options.iter().any(|(option, _)| option == name));
        let all = options.iter().copied().chain(missing.map(|name| (name, none)));
        let flags: Vec<_> = all.flat_map(|(name, path)| [name.as_ref(), path.as_os_str()]).collect();
        Self(Agent::with(root, &flags))
    }

    /// Namespace, pod, container and engine of a region, once they are as expected; else the last that were told.
    fn info(&self, region: &Path, expected: [&str; 4]) -> [String; 4] {
        let told = || {
            let families = parse(&self.0.metrics());
            let samples = families.get("gpuquota_container_info").map(|family| family.samples.as_slice());
            let of_region = |labels: &&BTreeMap<String, String>| labels["region"] == region.to_string_lossy();
            let labels = samples.unwrap_or_default().iter().map(|sample| &sample.labels).find(of_region);
            ["namespace", "pod", "container", "engine"]
                .map(|name| labels.and_then(|labels| labels.get(name)).cloned().unwrap_or_default())
        };
        eventually(told, |told| *told == expected)
    }

    /// The sources that do not answer.
    fn down(&self) -> Vec<String> {
        let families = parse(&self.0.metrics());
        let down =
            families["gpuquota_agent_name_source_up"].samples.iter().filter(|sample| sample.value == 0.0);
        down.map(|sample| sample.labels["source"].clone()).collect()
    }
}

/// A region in a place of an engine; its path. The test is a living process of it if `lives`.
fn region(root: &Scratch, place: &str, lives: bool) -> PathBuf {
    let path = root.join(place);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    let region = sample(&path);
    if lives {
        join(&region, &path);
    }
    path
}

/// The kubelet's directories.
fn logs(root: &Scratch, pods: &[&str], containers: &[&str]) -> [PathBuf; 2] {
    let places = ["log/pods", "log/containers"].map(|place| root.join(place));
    for place in &places {
        fs::create_dir_all(place).expect("a directory");
    }
    for pod in pods {
        fs::create_dir_all(places[0].join(pod)).expect("a directory");
    }
    for name in containers {
        symlink("/var/log/pods/somewhere", places[1].join(name)).expect("a link");
    }
    places
}

/// A `/proc` in which this test is in that cgroup.
fn proc(root: &Scratch, cgroup: &str) -> PathBuf {
    let proc = root.join("proc");
    fs::create_dir_all(proc.join(std::process::id().to_string())).expect("a directory");
    fs::write(proc.join(std::process::id().to_string()).join("cgroup"), cgroup).expect("a file");
    proc
}

#[test]
fn a_region_in_every_layout_is_named_by_the_directories_of_logs() {
    let scratch = Scratch::new();
    let [pods, _] =
        logs(&scratch, &[&format!("team_web-0_{POD}/main"), &format!("other_x_{OTHER}/main")], &[]);
    let dir = format!("{POD}_main");
    for (place, engine) in [
        (format!("usr/local/vgpu/containers/{dir}/8f3a.cache"), "hami"),
        (format!("usr/local/vgpu/containers/{dir}/{dir}.cache"), "koordinator"),
        (format!("usr/local/vgpu/containers/{dir}"), "kai"),
        (format!("usr/local/vgpu/vgpu/containers/{dir}/8f3a.cache"), "volcano"),
        (format!("etc/vgpu-manager/{dir}/8f3a.cache"), "vgpu-manager"),
    ] {
        let node = Scratch::new();
        let path = region(&node, &place, false);
        let above = path
            .ancestors()
            .find(|above| above.file_name().is_some_and(|name| name.to_string_lossy().starts_with(POD)));
        let root = above.and_then(Path::parent).expect("a directory of containers");
        let expected = ["team", "web-0", "main", engine];
        assert_eq!(Node::start(root, &[("--pod-logs", &pods)]).info(&path, expected), expected, "{place}");
    }
}

#[test]
fn the_link_to_a_log_names_the_container_of_a_living_process() {
    let scratch = Scratch::new();
    let path = region(&scratch, "regions/a.cache", true);
    let name = format!("web-0_team_main-{}.log", id('a'));
    let [_, links] = logs(&scratch, &[], &[&name]);
    let proc = proc(&scratch, &format!("0::/kubepods/burstable/pod{POD}/{}\n", id('a')));
    let node = Node::start(&scratch.join("regions"), &[("--container-logs", &links), ("--proc", &proc)]);
    let expected = ["team", "web-0", "main", ""];
    assert_eq!(node.info(&path, expected), expected);
}

/// What a runtime lists: one container of one pod.
fn cri(container: &str, namespace: &str, pod: &str) -> Answer {
    let sandbox = [
        field(1, "sandbox"),
        field(2, [field(1, pod), field(2, POD), field(3, namespace)].concat()),
        field(5, b""),
    ]
    .concat();
    let listed =
        [field(1, id('a')), field(2, "sandbox"), field(3, field(1, container)), field(5, "image")].concat();
    Answer::ByPath(vec![
        ("/runtime.v1.RuntimeService/ListPodSandbox", field(1, sandbox)),
        ("/runtime.v1.RuntimeService/ListContainers", field(1, listed)),
    ])
}

#[test]
fn the_runtimes_socket_names_the_container_of_a_living_process() {
    let scratch = Scratch::new();
    let path = region(&scratch, "regions/a.cache", true);
    let proc = proc(&scratch, &format!("9:name=systemd:/\n4:memory:/kubepods/pod{POD}/{}\n", id('a')));
    let stub = Stub::grpc(cri("main", "team", "web-0"));
    let node = Node::start(&scratch.join("regions"), &[("--cri", &stub.socket()), ("--proc", &proc)]);
    let expected = ["team", "web-0", "main", ""];
    assert_eq!(node.info(&path, expected), expected);
    assert_eq!(node.down(), [""; 0]);
}

#[test]
fn docker_and_podman_name_theirs() {
    for (option, engine, cgroup) in [("--docker", "docker", "docker-"), ("--podman", "podman", "libpod-")] {
        let scratch = Scratch::new();
        let path = region(&scratch, "regions/a.cache", true);
        let proc = proc(&scratch, &format!("0::/system.slice/{cgroup}{}.scope\n", id('b')));
        let list = format!(
            r#"[{{"Id":"{}","Names":["/train"],"Labels":null}},{{"Id":"{}","Names":[]}}]"#,
            id('b'),
            id('c')
        );
        let stub = Stub::http(Answer::ByPath(vec![("/v1.41/containers/json", list.into_bytes())]));
        let node = Node::start(&scratch.join("regions"), &[(option, &stub.socket()), ("--proc", &proc)]);
        let expected = ["", "", "train", engine];
        assert_eq!(node.info(&path, expected), expected);
    }
}

#[test]
fn the_storage_of_podman_names_its_containers_without_a_socket() {
    let scratch = Scratch::new();
    let path = region(&scratch, "regions/a.cache", true);
    let proc = proc(&scratch, &format!("2:pids:/libpod_parent/libpod-{}\n", id('b')));
    fs::create_dir_all(scratch.join("storage/overlay-containers")).expect("a directory");
    let stored =
        format!(r#"[{{"id":"{}","names":["train"],"image":"","layer":"x","metadata":"{{}}"}}]"#, id('b'));
    fs::write(scratch.join("storage/overlay-containers/containers.json"), stored).expect("a file");
    let storage = scratch.join("storage");
    let node = Node::start(&scratch.join("regions"), &[("--container-storage", &storage), ("--proc", &proc)]);
    let expected = ["", "", "train", "podman"];
    assert_eq!(node.info(&path, expected), expected);
}

#[test]
fn the_kubelet_names_a_living_container_by_its_devices_where_nobody_else_does() {
    let scratch = Scratch::new();
    let path = region(&scratch, &format!("usr/local/vgpu/containers/{POD}_main/x.cache"), true);
    let proc = proc(&scratch, &format!("0::/kubepods/pod{POD}/{}\n", id('a')));
    let devices = field(2, [field(1, "nvidia.com/gpu"), field(2, format!("{}-3", common::UUID))].concat());
    let container = field(3, [field(1, "main"), devices].concat());
    let pod = field(1, [field(1, "web-0"), field(2, "team"), container].concat());
    let stub = Stub::grpc(Answer::ByPath(vec![("/v1.PodResourcesLister/List", pod)]));
    let root = scratch.join("usr/local/vgpu/containers");
    let node = Node::start(&root, &[("--kubelet-pod-resources", &stub.socket()), ("--proc", &proc)]);
    let expected = ["team", "web-0", "main", "hami"];
    assert_eq!(node.info(&path, expected), expected);
}

#[test]
fn a_region_under_another_pods_name_is_called_by_its_own() {
    let scratch = Scratch::new();
    // KAI mounts one directory into all pods.
    let path = region(&scratch, &format!("usr/local/vgpu/containers/{POD}_main"), true);
    let [pods, _] =
        logs(&scratch, &[&format!("team_victim_{POD}/main"), &format!("evil_liar_{OTHER}/work")], &[]);
    let proc =
        proc(&scratch, &format!("0::/kubepods/pod{OTHER}/{}/kubepods/pod{POD}/{}\n", id('e'), id('f')));
    let root = scratch.join("usr/local/vgpu/containers");
    let node = Node::start(&root, &[("--pod-logs", &pods), ("--proc", &proc)]);
    let expected = ["evil", "liar", "work", "kai"];
    assert_eq!(node.info(&path, expected), expected);
}

#[test]
fn sources_that_never_answer_keep_no_scrape_waiting() {
    let scratch = Scratch::new();
    let path = region(&scratch, &format!("usr/local/vgpu/containers/{POD}_main/x.cache"), true);
    let [pods, _] = logs(&scratch, &[&format!("team_web-0_{POD}/main")], &[]);
    let proc = proc(&scratch, &format!("0::/kubepods/pod{POD}/{}\n", id('a')));
    let stubs = [Stub::grpc(Answer::Nothing), Stub::grpc(Answer::Nothing), Stub::http(Answer::Nothing)];
    let sockets = stubs.each_ref().map(Stub::socket);
    let options = [
        ("--cri", sockets[0].as_path()),
        ("--kubelet-pod-resources", &sockets[1]),
        ("--docker", &sockets[2]),
        ("--pod-logs", &pods),
        ("--proc", &proc),
    ];
    let node = Node::start(&scratch.join("usr/local/vgpu/containers"), &options);
    let expected = ["team", "web-0", "main", "hami"];
    let begun = Instant::now();
    assert_eq!(node.info(&path, expected), expected);
    assert!(begun.elapsed() < Duration::from_secs(2), "a scrape took {:?}", begun.elapsed());
    assert_eq!(eventually(|| node.down(), |down| down.len() == 3), ["cri", "docker", "kubelet"]);
}

#[test]
fn what_a_source_says_that_cannot_be_is_not_told() {
    let nonsense = || {
        Answer::ByPath(vec![
            ("/runtime.v1.RuntimeService/ListPodSandbox", vec![0xff; 1000]),
            ("/runtime.v1.RuntimeService/ListContainers", vec![0xff; 1000]),
        ])
    };
    for answer in [
        cri("main\u{1b}[2J", "team", "web"),
        cri("main", "te\"am", "web"),
        cri("main", "team", &"w".repeat(300)),
        nonsense(),
    ] {
        let scratch = Scratch::new();
        let path = region(&scratch, "regions/a.cache", true);
        let proc = proc(&scratch, &format!("0::/kubepods/pod{POD}/{}\n", id('a')));
        let stub = Stub::grpc(answer);
        let node = Node::start(&scratch.join("regions"), &[("--cri", &stub.socket()), ("--proc", &proc)]);
        std::thread::sleep(Duration::from_millis(1200));
        let short = "a".repeat(12);
        assert_eq!(node.info(&path, ["", "", &short, ""]), ["", "", &short, ""]);
    }
}

#[test]
fn a_name_that_comes_later_is_told_then() {
    let scratch = Scratch::new();
    let path = region(&scratch, &format!("usr/local/vgpu/containers/{POD}_main/x.cache"), false);
    let [pods, _] = logs(&scratch, &[], &[]);
    let node = Node::start(&scratch.join("usr/local/vgpu/containers"), &[("--pod-logs", &pods)]);
    let nameless = ["", "", "main", "hami"];
    assert_eq!(node.info(&path, nameless), nameless);
    logs(&scratch, &[&format!("team_web-0_{POD}/main")], &[]);
    let begun = Instant::now();
    let expected = ["team", "web-0", "main", "hami"];
    assert_eq!(node.info(&path, expected), expected);
    assert!(begun.elapsed() < Duration::from_secs(4), "it took {:?}", begun.elapsed());
}

#[test]
fn a_socket_that_is_none_is_refused_by_name() {
    let scratch = Scratch::new();
    fs::write(scratch.join("file"), b"").expect("a file");
    for option in ["--cri", "--kubelet-pod-resources", "--docker", "--podman"] {
        let refused =
            output(gpuquota().args(["agent", "--listen", "127.0.0.1:0", option]).arg(scratch.join("file")));
        assert_eq!(refused.status.code(), Some(2));
        let name = option.trim_start_matches("--");
        let said = format!("gpuquota: {name} {}: it is no socket\n", scratch.join("file").display());
        assert_eq!(stderr(&refused), said);
    }
}
