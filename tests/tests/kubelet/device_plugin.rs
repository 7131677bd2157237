//! Promises of `gpuquota device-plugin`.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::container;
use crate::stub::{Kubelet, Running, ask, eventually, runtime};
use gpuquota_promises::{Machine, Scratch, artifact};
use kubelet_plugin::api::device_plugin::{
    AllocateRequest, AllocateResponse, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, Device, Empty, ListAndWatchResponse, Mount,
    PreStartContainerRequest, PreStartContainerResponse, PreferredAllocationRequest,
    PreferredAllocationResponse,
};
use kubelet_plugin::client::connect;

const MEMORY: &str = "gpuquota.dev/memory";
const CORES: &str = "gpuquota.dev/cores";

/// A kubelet, and the plugin on a machine with cards.
struct Node {
    kubelet: Kubelet,
    plugin: Running,
    regions: Scratch,
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

impl Node {
    fn start(machine: &Machine, flags: &[&str]) -> Self {
        let (kubelet, regions) = (Kubelet::new(), Scratch::new());
        let plugin = Self::plugin(machine, &kubelet, &regions, flags);
        Self { kubelet, plugin, regions }
    }

    fn plugin(machine: &Machine, kubelet: &Kubelet, regions: &Scratch, flags: &[&str]) -> Running {
        let library = artifact("libgpuquota.so");
        let all = [
            &["device-plugin", "--kubelet", text(kubelet.home.path()), "--root", text(regions.path())][..],
            &["--library", text(&library)],
            flags,
        ];
        Running::start(machine, &all.concat())
    }

    /// The list of a resource, which is the first message of the stream.
    fn list(&self, resource: &str) -> Vec<Device> {
        let socket = self.kubelet.registered(resource);
        let listed = || {
            let answer: Option<ListAndWatchResponse> = runtime().block_on(async {
                let mut client = connect(&socket).await.ok()?;
                // One message of a stream is all that this stub wants: it breaks off after it.
                let answer = tokio::time::timeout(Duration::from_secs(2), first(&mut client)).await;
                answer.ok().flatten()
            });
            answer.map(|answer| answer.devices).filter(|devices| !devices.is_empty())
        };
        eventually(listed, "a list of devices")
    }

    fn ids(&self, resource: &str) -> Vec<String> {
        self.list(resource).into_iter().map(|device| device.id).collect()
    }

    fn prefer(&self, resource: &str, available: &[String], count: usize) -> Vec<String> {
        let request = ContainerPreferredAllocationRequest {
            available_device_ids: available.to_vec(),
            must_include_device_ids: Vec::new(),
            allocation_size: count as i32,
        };
        let request = PreferredAllocationRequest { container_requests: vec![request] };
        let answer: PreferredAllocationResponse =
            ask(&self.kubelet.registered(resource), "/v1beta1.DevicePlugin/GetPreferredAllocation", request)
                .expect("a preference");
        answer.container_responses[0].device_ids.clone()
    }

    fn allocate(&self, resource: &str, ids: &[String]) -> Result<ContainerAllocateResponse, String> {
        let request = ContainerAllocateRequest { devices_ids: ids.to_vec() };
        let request = AllocateRequest { container_requests: vec![request] };
        let answer: AllocateResponse =
            ask(&self.kubelet.registered(resource), "/v1beta1.DevicePlugin/Allocate", request)?;
        Ok(answer.container_responses[0].clone())
    }

    fn start_container(&self, resource: &str, ids: &[String]) -> Result<(), String> {
        let request = PreStartContainerRequest { devices_ids: ids.to_vec() };
        let method = "/v1beta1.DevicePlugin/PreStartContainer";
        ask(&self.kubelet.registered(resource), method, request).map(|PreStartContainerResponse {}| ())
    }
}

async fn first(client: &mut kubelet_plugin::client::Client) -> Option<ListAndWatchResponse> {
    kubelet_plugin::client::first(client, "/v1beta1.DevicePlugin/ListAndWatch", Empty {}).await.ok()
}

fn source(given: &ContainerAllocateResponse, destination: &str) -> PathBuf {
    let mount = given.mounts.iter().find(|mount| mount.container_path == destination);
    PathBuf::from(&mount.unwrap_or_else(|| panic!("{destination} is not in {given:?}")).host_path)
}

/// The card of a unit.
fn card(id: &str) -> &str {
    id.split("::").next().unwrap_or(id)
}

#[test]
fn a_container_gets_its_memory_and_its_share_of_one_card_in_one_limits_file() {
    let machine = Machine::new("2xH100");
    let node = Node::start(&machine, &[]);
    let (memory, cores) = (node.ids(MEMORY), node.ids(CORES));
    assert_eq!((memory.len(), cores.len()), (2 * 80, 2 * 100));
    let memory = node.prefer(MEMORY, &memory, 8);
    let given = node.allocate(MEMORY, &memory).expect("memory");
    // The kubelet asks for each resource by itself; the second follows the first.
    let cores = node.prefer(CORES, &cores, 30);
    assert!(memory.iter().chain(&cores).all(|id| card(id) == card(&memory[0])), "{memory:?} {cores:?}");
    let beside = node.allocate(CORES, &cores).expect("a share");
    assert_eq!(given.envs["NVIDIA_VISIBLE_DEVICES"], card(&memory[0]));
    assert_eq!(beside.envs, given.envs);
    node.kubelet.give("web", &[(MEMORY, &memory), (CORES, &cores)]);
    node.start_container(CORES, &cores).expect("it belongs together");
    node.start_container(MEMORY, &memory).expect("it belongs together");
    let limits = fs::read_to_string(source(&given, "/etc/gpuquota/limits")).expect("the limits file");
    let uuid = card(&memory[0]);
    assert!(limits.contains(&format!("memory = 1,{uuid}={}\ncores = {uuid}=30\n", 8u64 << 30)), "{limits}");
    assert_eq!(
        fs::read_to_string(source(&given, "/etc/ld.so.preload")).expect("a list").trim(),
        text(&artifact("libgpuquota.so"))
    );
    let bind = |mount: &Mount| (mount.host_path.clone(), mount.container_path.clone(), mount.read_only);
    let binds: Vec<_> = given.mounts.iter().map(bind).collect();
    container::has(&machine, &binds, 8 << 30);
}

#[test]
fn a_card_whose_time_is_given_away_gets_no_memory_while_another_one_has_both() {
    let machine = Machine::new("2xH100");
    let node = Node::start(&machine, &[]);
    let (memory, cores) = (node.ids(MEMORY), node.ids(CORES));
    let busy = card(&memory[0]).to_owned();
    let of = |ids: &[String]| ids.iter().filter(|id| card(id) == busy).cloned().collect::<Vec<_>>();
    // Packing would take the first card, of which less memory is left.
    let (some, all) = (of(&memory)[..8].to_vec(), of(&cores));
    node.kubelet.give("busy", &[(MEMORY, &some), (CORES, &all)]);
    let free: Vec<String> = memory.into_iter().filter(|id| !some.contains(id)).collect();
    let chosen = node.prefer(MEMORY, &free, 4);
    assert!(chosen.len() == 4 && chosen.iter().all(|id| card(id) != busy), "{chosen:?}");
}

#[test]
fn what_does_not_belong_together_is_refused_in_words() {
    let machine = Machine::new("2xH100");
    let node = Node::start(&machine, &[]);
    let (memory, cores) = (node.ids(MEMORY), node.ids(CORES));
    let first = card(&memory[0]).to_owned();
    let of = |ids: &[String], is_first: bool, count: usize| -> Vec<String> {
        ids.iter().filter(|id| (card(id) == first) == is_first).take(count).cloned().collect()
    };
    // Units of two cards.
    let both = [of(&memory, true, 2), of(&memory, false, 1)].concat();
    let told = node.allocate(MEMORY, &both).expect_err("refused");
    assert!(told.contains("gpuquota: gpuquota.dev/memory: no card of this node has 3 units free"), "{told}");
    // Memory of one card and a share of the other.
    let (here, there) = (of(&memory, true, 2), of(&cores, false, 10));
    node.allocate(MEMORY, &here).expect("memory");
    node.allocate(CORES, &there).expect("a share");
    node.kubelet.give("torn", &[(MEMORY, &here), (CORES, &there)]);
    let told = node.start_container(MEMORY, &here).expect_err("refused");
    assert!(told.contains("team/torn/main: its gpuquota.dev/memory is of gpu-"), "{told}");
    assert_eq!(node.start_container(CORES, &there).expect_err("refused"), told);
    // A share alone would have all of the card's memory.
    let alone = of(&cores, true, 10);
    node.allocate(CORES, &alone).expect("a share");
    node.kubelet.give("greedy", &[(CORES, &alone)]);
    let told = node.start_container(CORES, &alone).expect_err("refused");
    assert!(told.contains("none of its memory") && told.contains("Write gpuquota.dev/memory too"), "{told}");
    // Nobody knows them.
    let told = node.allocate(MEMORY, &["GPU-x::m0".to_owned()]).expect_err("refused");
    assert!(told.contains("no card of this node has a unit") && told.contains("GPU-x::m0"), "{told}");
    let told = node.start_container(MEMORY, &of(&memory, false, 5)).expect_err("refused");
    assert!(told.contains("knows no container with these 5 units"), "{told}");
    node.plugin.says("a container is refused");
}

#[test]
fn a_kubelet_that_is_started_anew_has_every_resource_again() {
    let machine = Machine::new("H100");
    let mut node = Node::start(&machine, &[]);
    let before = node.ids(MEMORY);
    for _ in 0..2 {
        node.kubelet.restart();
        assert_eq!(node.ids(MEMORY), before);
        assert_eq!(node.ids(CORES).len(), 100);
    }
    node.plugin.says("registers again");
    // The other way round: what was allocated before the plugin was killed can be started after it.
    let ids = before[..4].to_vec();
    let given = node.allocate(MEMORY, &ids).expect("memory");
    node.kubelet.give("web", &[(MEMORY, &ids)]);
    let Node { kubelet, plugin, regions } = node;
    plugin.kill();
    kubelet.delay(Duration::from_millis(300));
    let plugin = Node::plugin(&machine, &kubelet, &regions, &[]);
    let node = Node { kubelet, plugin, regions };
    node.plugin.says("has taken in gpuquota.dev/memory");
    node.list(MEMORY);
    node.start_container(MEMORY, &ids).expect("started");
    node.start_container(MEMORY, &ids).expect("a second time");
    assert!(source(&given, "/etc/gpuquota/limits").exists());
}

#[test]
fn a_kubelet_that_refuses_is_told_once_and_asked_again_and_whoever_says_nothing_holds_up_nobody() {
    let machine = Machine::new("H100");
    let (kubelet, regions) = (Kubelet::new(), Scratch::new());
    kubelet.refuse(Some("the version is not supported"));
    let plugin = Node::plugin(&machine, &kubelet, &regions, &["--pod-resources", "/nowhere/kubelet.sock"]);
    plugin.says("the kubelet does not take in gpuquota.dev/memory");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(plugin.lines("does not take in gpuquota.dev/memory"), 1);
    kubelet.refuse(None);
    let node = Node { kubelet, plugin, regions };
    let socket = node.kubelet.registered(MEMORY);
    let silent: Vec<_> = (0..32).map(|_| UnixStream::connect(&socket).expect("a connection")).collect();
    for mut stream in silent.iter().take(8) {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    }
    let ids = node.ids(MEMORY)[..1].to_vec();
    node.allocate(MEMORY, &ids).expect("memory");
    // Who cannot be asked what a container has starts none.
    let told = node.start_container(MEMORY, &ids).expect_err("refused");
    assert!(told.contains("/nowhere/kubelet.sock") && told.contains("mount the socket"), "{told}");
}

#[test]
fn hamis_names_stand_for_the_same_parts() {
    let machine = Machine::new("2xH100");
    let node = Node::start(&machine, &["--hami-names", "--hami-memory-factor", "2"]);
    let [seats, memory, cores] = ["nvidia.com/gpu", "nvidia.com/gpumem", "nvidia.com/gpucores"];
    let listed = node.list(memory);
    assert_eq!(listed.len(), 81_920);
    let ids: Vec<String> = listed.into_iter().map(|device| device.id).collect();
    let ids = node.prefer(memory, &ids, 1500);
    let given = node.allocate(memory, &ids).expect("memory");
    let (seat, share) = (node.ids(seats), node.ids(cores));
    assert_eq!(seat.len(), 20);
    // Of the same card: the first letters of a name are the card's.
    let of = |all: Vec<String>| all.into_iter().filter(|id| id[..6] == ids[0][..6]).collect::<Vec<_>>();
    let (seat, share) = (of(seat), of(share));
    assert_eq!((seat.len(), share.len()), (10, 100));
    let told = node.allocate(seats, &seat[..2]).expect_err("refused");
    assert!(told.contains("a part of one card") && told.contains("gpuquota dra"), "{told}");
    node.allocate(seats, &seat[..1]).expect("a seat");
    node.allocate(cores, &share[..30]).expect("a share");
    node.kubelet.give("web", &[(seats, &seat[..1]), (memory, &ids), (cores, &share[..30])]);
    node.start_container(seats, &seat[..1]).expect("it belongs together");
    let limits = fs::read_to_string(source(&given, "/etc/gpuquota/limits")).expect("limits");
    assert!(limits.contains(&format!("={}\n", 3000u64 << 20)) && limits.contains("=30\n"), "{limits}");
}

#[test]
fn a_list_that_no_kubelet_takes_is_refused_with_the_unit_that_fits() {
    let kubelet = Kubelet::new();
    let regions = Scratch::new();
    let machine = Machine::new("8xH100");
    let mut plugin = Node::plugin(&machine, &kubelet, &regions, &["--hami-names"]);
    let line = plugin.says("kubelet takes 4 MiB");
    assert!(line.contains("nvidia.com/gpumem") && line.contains("--hami-memory-factor"), "{line}");
    assert_eq!(plugin.child.wait().expect("it ends").code(), Some(2));
}

#[test]
fn units_of_a_card_that_is_lost_are_unhealthy_and_not_allocated() {
    let file =
        "[[device]]\nlike = \"H100\"\ncount = 2\n[[fault]]\ncall = \"cuMemAlloc\"\nnth = 1\nlost = 0\n";
    let scratch = Scratch::new();
    let machine = Machine::new(text(&scratch.file("lost.toml", file)));
    let node = Node::start(&machine, &[]);
    let all = node.list(MEMORY);
    assert!(all.iter().all(|device| device.health == "Healthy"));
    let first = card(&all[0].id).to_owned();
    machine.bare().start("hold", &[]).ask("alloc 1048576", "rc");
    let lost = || {
        let unhealthy: Vec<_> =
            node.list(MEMORY).into_iter().filter(|device| device.health == "Unhealthy").collect();
        (unhealthy.len() == 80 && unhealthy.iter().all(|device| card(&device.id) == first)).then_some(())
    };
    eventually(lost, "a lost card");
    let told = node.allocate(MEMORY, &[all[0].id.clone()]).expect_err("refused");
    assert!(told.contains("gpu-0") && (told.contains("does not answer") || told.contains("Xid")), "{told}");
}

#[test]
fn a_node_whose_cards_somebody_else_books_is_refused() {
    let kubelet = Kubelet::new();
    let regions = Scratch::new();
    let _theirs =
        std::os::unix::net::UnixListener::bind(kubelet.plugins().join("nvidia-gpu.sock")).expect("a socket");
    let started = |flags: &[&str]| {
        let mut command = Command::new(artifact("gpuquota"));
        command.args([
            "device-plugin",
            "--kubelet",
            text(kubelet.home.path()),
            "--root",
            text(regions.path()),
        ]);
        command.args(flags).output().expect("it starts")
    };
    let refused = started(&[]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(
        told.contains("NVIDIA's device plugin, or HAMi's, is on this node")
            && told.contains("--beside-others"),
        "{told}"
    );
    // A socket that nobody listens at was left.
    drop(_theirs);
    let told = started(&["--unit", "1"]);
    assert_eq!(told.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&told.stderr).contains("--unit \"1\""));
}
