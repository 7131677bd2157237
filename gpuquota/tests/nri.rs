//! `gpuquota agent --nri` against a stub of the container runtime.

mod common;
#[path = "../../nri/tests/common/mod.rs"]
mod runtime;
#[path = "common/stubs.rs"]
#[allow(dead_code, reason = "this test uses a part of it")]
mod stubs;

use common::agent::Agent;
use common::{Scratch, gpuquota, harmless_library, output, stderr};
use nri_plugin::api::{
    Container, ContainerAdjustment, ContainerState, CreateContainerRequest, CreateContainerResponse, Empty,
    Mount, PodSandbox, RemoveContainerRequest, RemoveContainerResponse, SynchronizeRequest,
    SynchronizeResponse,
};
use runtime::{Runtime, Session};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stubs::{Answer, Stub, eventually};

const UID: &str = "0f4c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f";
const ID: &str = "4f0cd7b1d1c94b8f9d3c3f3e4a5b6c7d8e9f0a1b2c3d4e5f60718293a4b5c6d7";

/// An agent and its runtime.
struct Node {
    agent: Agent,
    runtime: Runtime,
    session: Session,
    home: Scratch,
}

impl Node {
    fn start(flags: &[&str]) -> Self {
        let home = Scratch::new();
        let socket = home.join("nri.sock");
        let runtime = Runtime::at(&socket);
        let regions = home.join("regions");
        let mut all = vec![format!("--nri={}", socket.display())];
        if !flags.iter().any(|flag| flag.starts_with("--nri-library")) {
            all.push(format!("--nri-library={}", harmless_library()));
        }
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        // The agent makes the directory, and wants it to be its own.
        let agent = Agent::with(&regions, &all);
        let (session, events) = runtime.take_in();
        // CreateContainer and RemoveContainer.
        assert_eq!(events, 1 << 3 | 1 << 10);
        Self { agent, runtime, session, home }
    }

    fn create(&mut self, pod: PodSandbox, container: Container) -> Result<ContainerAdjustment, String> {
        let request = CreateContainerRequest { pod: Some(pod), container: Some(container) };
        let answer = self.session.call::<CreateContainerResponse>("CreateContainer", &request);
        answer.map(|answer| answer.adjust.unwrap_or_default()).map_err(|(_, message)| message)
    }

    fn synchronize(&mut self, pods: Vec<PodSandbox>, containers: Vec<Container>) {
        let request = SynchronizeRequest { pods, containers, more: false };
        self.session.call::<SynchronizeResponse>("Synchronize", &request).expect("taken");
    }

    fn remove(&mut self, id: &str) {
        let container = Some(Container { id: id.into(), ..Container::default() });
        let request = RemoveContainerRequest { pod: None, container };
        self.session.call::<RemoveContainerResponse>("RemoveContainer", &request).expect("taken");
    }

    fn regions(&self) -> PathBuf {
        self.home.join("regions")
    }
}

fn pod(annotations: &[(&str, &str)]) -> PodSandbox {
    PodSandbox {
        id: "pod-id".into(),
        name: "web-0".into(),
        uid: UID.into(),
        namespace: "team".into(),
        annotations: annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ..PodSandbox::default()
    }
}

fn container(id: &str, name: &str) -> Container {
    Container {
        id: id.into(),
        pod_sandbox_id: "pod-id".into(),
        name: name.into(),
        state: ContainerState::ContainerRunning.into(),
        ..Container::default()
    }
}

fn mount<'a>(adjust: &'a ContainerAdjustment, destination: &str) -> &'a Mount {
    let mount = adjust.mounts.iter().find(|mount| mount.destination == destination);
    mount.unwrap_or_else(|| panic!("{destination} is not in {:?}", adjust.mounts))
}

fn is_read_only(mount: &Mount) -> bool {
    mount.options.iter().any(|option| option == "ro")
}

#[test]
fn a_container_gets_its_limits_the_library_and_a_region_that_it_cannot_remove() {
    let mut node = Node::start(&[]);
    let annotations =
        [("gpuquota.dev/memory", "2GiB"), ("gpuquota.dev/cores", "30"), ("gpuquota.dev/memory.main", "1GiB")];
    let mut web = container(ID, "main");
    web.env = vec!["PATH=/bin".into(), "LD_PRELOAD=/tenant.so".into()];
    let preload = "/etc/ld.so.preload";
    web.mounts =
        vec![Mount { destination: preload.into(), source: "/tenant/preload".into(), ..Mount::default() }];
    let adjust = node.create(pod(&annotations), web).expect("a quota");
    let limits = mount(&adjust, "/etc/gpuquota/limits");
    assert!(is_read_only(limits));
    let text = fs::read_to_string(&limits.source).expect("the limits file");
    assert!(text.ends_with("memory = 1GiB\ncores = 30\nregion = /run/gpuquota/region.cache\n"), "{text}");
    let library = harmless_library();
    assert!(is_read_only(mount(&adjust, &library)));
    let list = mount(&adjust, preload);
    assert_eq!(fs::read_to_string(&list.source).expect("a list"), format!("{library}\n"));
    // What was mounted there is told to go first, whoever put it there.
    assert!(adjust.mounts.iter().any(|mount| mount.destination == format!("-{preload}")));
    let variables: Vec<_> = adjust.env.iter().map(|of| (of.key.as_str(), of.value.as_str())).collect();
    assert_eq!(variables[1], ("LD_PRELOAD", format!("{library}:/tenant.so").as_str()));
    // The directory is root's, and read-only in the container; the file is everybody's.
    let directory = mount(&adjust, "/run/gpuquota");
    assert!(is_read_only(directory));
    assert_eq!(directory.source, node.regions().join(format!("{UID}_main")).to_string_lossy());
    let region = mount(&adjust, "/run/gpuquota/region.cache");
    assert!(!is_read_only(region));
    assert_eq!(fs::metadata(&region.source).expect("a file").permissions().mode() & 0o777, 0o666);
    assert_eq!(fs::metadata(&directory.source).expect("a directory").permissions().mode() & 0o022, 0);
    // An unused region is no error of the node.
    let metrics = node.agent.metrics();
    assert!(!metrics.contains("gpuquota_region_parse_errors_total{"), "{metrics}");
    // Once a process has made it a region, the container is served under its names.
    fs::remove_file(&region.source).expect("it is there");
    let made = common::sample(Path::new(&region.source));
    let told =
        eventually(|| node.agent.metrics(), |text| text.contains("gpuquota_container_memory_limit_bytes{"));
    assert!(told.contains("container=\"main\"") || told.contains("_main\""), "{told}");
    let _ = made;
}

#[test]
fn a_pod_that_asks_for_nothing_is_left_alone() {
    let mut node = Node::start(&[]);
    let adjust = node.create(pod(&[("app", "web")]), container(ID, "main")).expect("left alone");
    assert_eq!(adjust, ContainerAdjustment::default());
    let adjust = node.create(pod(&[("gpuquota.dev/memory.side", "1GiB")]), container(ID, "main"));
    assert_eq!(adjust, Ok(ContainerAdjustment::default()));
    let metrics = node.agent.metrics();
    assert!(metrics.contains("gpuquota_nri_containers_total{result=\"unasked\"} 2"), "{metrics}");
    assert!(metrics.contains("gpuquota_nri_connected 1"), "{metrics}");
}

#[test]
fn what_cannot_be_understood_fails_the_container_with_value_origin_and_next_step() {
    let mut node = Node::start(&[]);
    for (annotation, value, words) in [
        ("gpuquota.dev/memory", "2GB", "Write a size such as 2GiB"),
        ("gpuquota.dev/memroy", "2GiB", "Write gpuquota.dev/memory"),
        ("gpuquota.dev/cores", "300", "1 to 100"),
        ("gpuquota.dev/memory", "1GiB\nmode = off", "one line"),
        ("gpu-memory", "much", "such as 2048"),
    ] {
        let why = node.create(pod(&[(annotation, value)]), container(ID, "main")).expect_err("refused");
        assert!(why.starts_with("gpuquota: annotation ") && why.contains(annotation), "{why}");
        assert!(why.contains(words) && !why.contains('\n'), "{why}");
    }
    let (_, events) = node.agent.get("/api/v1/events");
    assert!(events.contains("\"event\":\"refused\"") && events.contains("\"pod\":\"web-0\""), "{events}");
    assert!(node.agent.metrics().contains("gpuquota_nri_containers_total{result=\"refused\"} 5"));
    node.agent.says("container team/web-0/main is refused: annotation gpuquota.dev/memory");
    // Nothing was made.
    assert!(!node.regions().join(format!("{UID}_main")).exists());
}

#[test]
fn annotations_do_not_outrank_what_a_claim_or_a_resource_has_booked() {
    let mut node = Node::start(&[]);
    for own in [".dra", ".device-plugin"] {
        let source = node.regions().join(own).join(UID).join("limits");
        let mut booked = container(ID, "main");
        let destination = "/etc/gpuquota/limits".to_owned();
        booked.mounts = vec![Mount { destination, source: source.display().to_string(), ..Mount::default() }];
        let asks = pod(&[("gpuquota.dev/memory", "64GiB")]);
        let why = node.create(asks, booked.clone()).expect_err("refused");
        assert!(why.contains("it has one by") && why.contains("Remove the annotations"), "{why}");
        // Without annotations it is left alone.
        assert_eq!(node.create(pod(&[]), booked), Ok(ContainerAdjustment::default()));
    }
    // What a tenant mounted there is no quota.
    let mut own = container(ID, "main");
    let (destination, source) = ("/etc/gpuquota/limits".to_owned(), "/tenant/.dra/x/limits".to_owned());
    own.mounts = vec![Mount { destination, source, ..Mount::default() }];
    node.create(pod(&[("gpuquota.dev/memory", "1GiB")]), own).expect("a quota");
}

#[test]
fn a_container_whose_library_is_not_there_is_refused() {
    let mut node = Node::start(&["--nri-library=/nowhere/libgpuquota.so"]);
    let why =
        node.create(pod(&[("gpuquota.dev/memory", "1GiB")]), container(ID, "main")).expect_err("refused");
    assert!(why.contains("/nowhere/libgpuquota.so is not on this node. Install it"), "{why}");
}

#[test]
fn hostile_names_make_no_file_outside() {
    let mut node = Node::start(&[]);
    let asks = || pod(&[("gpuquota.dev/memory", "1GiB")]);
    for (id, uid, name) in [
        ("../../evil", UID, "main"),
        (ID, "../../evil", "main"),
        (ID, UID, "../../../evil"),
        (ID, UID, "a/b"),
        (ID, UID, ""),
        (ID, UID, "\u{1b}[2Jevil\n"),
        (ID, "a_b", "main"),
        ("", UID, "main"),
    ] {
        let why = node.create(PodSandbox { uid: uid.into(), ..asks() }, container(id, name));
        let why = why.expect_err("refused");
        assert!(!why.contains('\n') && !why.contains('\u{1b}'), "{why:?}");
    }
    node.remove("../..");
    node.remove("");
    assert!(node.regions().exists());
    let left: Vec<_> =
        fs::read_dir(node.home.path()).expect("home").flatten().map(|of| of.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let log = node.agent.says("is refused");
    assert!(!log.contains('\u{1b}'), "{log:?}");
}

#[test]
fn the_files_of_a_container_go_with_it_and_those_of_its_successor_stay() {
    let mut node = Node::start(&[]);
    let asks = || pod(&[("gpuquota.dev/memory", "1GiB")]);
    let first = node.create(asks(), container("first", "main")).expect("a quota");
    let second = node.create(asks(), container("second", "main")).expect("a quota");
    node.remove("first");
    let limits = |adjust: &ContainerAdjustment| PathBuf::from(&mount(adjust, "/etc/gpuquota/limits").source);
    assert!(!limits(&first).exists() && limits(&second).exists());
    let region = PathBuf::from(&mount(&second, "/run/gpuquota/region.cache").source);
    assert!(region.exists());
    node.remove("second");
    assert!(!region.exists() && !limits(&second).exists());
    // What went while the agent was away goes when it is back.
    let third = node.create(asks(), container("third", "main")).expect("a quota");
    node.synchronize(vec![], vec![]);
    assert!(!limits(&third).exists());
}

#[test]
fn containers_that_were_started_without_their_quota_are_found_and_told() {
    let mut node = Node::start(&[]);
    let adjust =
        node.create(pod(&[("gpuquota.dev/memory", "1GiB")]), container("held", "held")).expect("a quota");
    let mut held = container("held", "held");
    held.mounts = adjust.mounts;
    let mut stopped = container("stopped", "stopped");
    stopped.state = ContainerState::ContainerStopped.into();
    // One that a tenant has dressed up.
    let mut dressed = container("dressed", "dressed");
    for destination in ["/etc/gpuquota/limits", "/etc/ld.so.preload"] {
        let mount =
            Mount { destination: destination.into(), source: "/tmp/limits".into(), ..Mount::default() };
        dressed.mounts.push(mount);
    }
    let free = Container { pod_sandbox_id: "other".into(), ..container("free", "free") };
    let other = PodSandbox { id: "other".into(), ..pod(&[]) };
    let all = vec![held, stopped, dressed, container("bare", "bare"), free];
    node.synchronize(vec![pod(&[("gpuquota.dev/memory", "1GiB")]), other], all);
    let told = |name: &str| {
        format!("gpuquota_nri_without_quota{{namespace=\"team\",pod=\"web-0\",container=\"{name}\"}} 1")
    };
    let metrics = node.agent.metrics();
    for (name, expected) in
        [("bare", true), ("dressed", true), ("held", false), ("stopped", false), ("free", false)]
    {
        assert_eq!(metrics.contains(&told(name)), expected, "{name}: {metrics}");
    }
    node.agent.says("container team/web-0/bare asks for a quota and was started without it: delete the pod");
    let (_, events) = node.agent.get("/api/v1/events");
    assert!(events.contains("\"event\":\"without_quota\""), "{events}");
    // It is over when the container is.
    node.remove("bare");
    std::thread::sleep(Duration::from_millis(1100));
    assert!(!node.agent.metrics().contains(&told("bare")));
}

#[test]
fn the_runtime_stops_containers_without_their_quota_where_the_operator_says_so() {
    let cri = Stub::grpc(Answer::ByPath(vec![("/runtime.v1.RuntimeService/StopContainer", vec![])]));
    let socket = cri.socket();
    let mut node = Node::start(&["--nri-unprotected=stop", "--cri", socket.to_str().expect("text")]);
    node.synchronize(vec![pod(&[("gpuquota.dev/memory", "1GiB")])], vec![container("bare", "bare")]);
    node.agent.says("container team/web-0/bare asks for a quota and was started without it: stopped");
    let mut mute = Node::start(&["--nri-unprotected=stop", "--cri", "/nowhere/cri.sock"]);
    mute.synchronize(vec![pod(&[("gpuquota.dev/memory", "1GiB")])], vec![container("bare", "bare")]);
    mute.agent.says("was started without it: it cannot be stopped");
}

#[test]
fn the_agent_is_not_ready_until_a_runtime_is_connected_and_finds_it_again() {
    let Node { agent, runtime, session, home } = Node::start(&[]);
    let ready = || agent.get("/readyz");
    assert!(eventually(ready, |(_, body)| body == "ready\n").0.contains("200"));
    drop((session, runtime));
    let (status, body) = eventually(ready, |(status, _)| status.contains("503"));
    assert!(status.contains("503") && body.contains("no runtime is connected by NRI"), "{status} {body}");
    let runtime = Runtime::at(&home.join("nri.sock"));
    let (mut session, _) = runtime.take_in();
    session.call::<Empty>("Shutdown", &Empty {}).expect("taken");
    assert!(eventually(ready, |(_, body)| body == "ready\n").0.contains("200"));
    assert!(agent.metrics().contains("gpuquota_nri_disconnects_total 1"));
}

#[test]
fn wrong_settings_are_told_before_anything_begins() {
    for (flag, words) in [
        ("--nri=run/nri.sock", "--nri: \"run/nri.sock\" is neither true nor false nor an absolute path"),
        ("--nri-library=lib.so", "--nri-library: \"lib.so\" is no absolute path"),
        ("--nri-library=/a b/lib.so", "--nri-library: \"/a b/lib.so\" is no absolute path without blanks"),
        ("--nri-unprotected=kill", "--nri-unprotected: \"kill\" is neither report nor stop"),
    ] {
        let run = output(gpuquota().args(["agent", flag]));
        assert_eq!(run.status.code(), Some(2), "{flag}");
        assert!(stderr(&run).contains(words), "{}", stderr(&run));
    }
}
