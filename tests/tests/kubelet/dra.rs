//! Promises of `gpuquota dra`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::api_server::ApiServer;
use crate::cluster::{GIB, Node, OTHER, UID, claim_path, result, text};
use crate::container;
use crate::stub::eventually;
use gpuquota_promises::{Machine, Scratch};
use serde_json::{Value, json};

#[test]
fn cards_are_told_with_what_may_be_asked_of_them() {
    let machine = Machine::new("2xH100");
    let node = Node::new(ApiServer::new(&["v1", "v1beta1"])).start(&machine, &["--whole", "gpu-1"]);
    let slice = node.api.slices().remove(0);
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "uid-of-node-1");
    assert_eq!(slice["spec"]["pool"], json!({ "name": "node-1", "generation": 1, "resourceSliceCount": 1 }));
    let devices = node.slices();
    let (shared, whole) = (&devices[0], &devices[1]);
    assert_eq!((text(shared, "type"), shared["name"].as_str()), ("gpu", Some("gpu-0")));
    assert!(text(shared, "uuid").starts_with("GPU-") && text(shared, "productName").contains("H100"));
    assert_eq!(text(shared, "architecture"), "Hopper");
    assert_eq!(shared["attributes"]["cudaComputeCapability"]["version"], "9.0.0");
    assert_eq!(shared["allowMultipleAllocations"], true);
    assert_eq!(shared["capacity"]["memory"]["value"], "81920Mi");
    let range = json!({ "min": "256Mi", "step": "256Mi" });
    assert_eq!(
        shared["capacity"]["memory"]["requestPolicy"],
        json!({ "default": "81920Mi", "validRange": range })
    );
    assert_eq!(shared["capacity"]["cores"]["value"], "100");
    assert_eq!(whole["allowMultipleAllocations"], Value::Null);
    assert_eq!(whole["capacity"], json!({ "memory": { "value": "81920Mi" } }));
    // Nothing is written again that is right.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(node.api.written(), 1);
}

/// A machine of which one card is lost as soon as a program asks for memory.
fn losing(scratch: &Scratch, count: usize, lost: usize) -> Machine {
    let card = format!("[[device]]\nlike = \"H100\"\ncount = {count}\n");
    let fault = format!("[[fault]]\ncall = \"cuMemAlloc\"\nnth = 1\nlost = {lost}\n");
    Machine::new(scratch.file("lost.toml", card + &fault).to_str().expect("UTF-8"))
}

/// What is written, less what is another time another.
fn steady(mut object: Value, devices: &[Value]) -> Value {
    let mut text = object.to_string();
    for (at, device) in devices.iter().enumerate() {
        text = text.replace(uuid(device), &format!("GPU-0000000{at}-0000-4000-8000-000000000000"));
    }
    object = serde_json::from_str(&text).expect("JSON");
    object["metadata"]
        .as_object_mut()
        .expect("metadata")
        .retain(|key, _| key != "resourceVersion" && key != "uid");
    for key in ["firstTimestamp", "lastTimestamp"] {
        if !object[key].is_null() {
            object[key] = json!("2026-11-27T00:00:00Z");
        }
    }
    object
}

fn uuid(device: &Value) -> &str {
    let attributes = if device["basic"].is_null() { device } else { &device["basic"] };
    text(attributes, "uuid")
}

#[test]
fn what_is_written_is_what_the_schemas_of_kubernetes_are_asked_about() {
    let scratch = Scratch::new();
    let machine = losing(&scratch, 2, 1);
    let mut written = Vec::new();
    for version in ["v1", "v1beta2", "v1beta1"] {
        let node = Node::new(ApiServer::new(&[version])).start(&machine, &["--whole", "gpu-1"]);
        if version == "v1" {
            assert_ne!(node.prepare("missing", UID).error, "");
            machine.bare().start("hold", &["1"]).ask("alloc 1048576", "rc");
            eventually(|| (!node.slices()[1]["taints"].is_null()).then_some(()), "a taint");
        }
        let devices = node.slices();
        written.extend(node.api.objects().into_iter().map(|object| steady(object, &devices)));
    }
    let written = serde_json::to_string_pretty(&written).expect("JSON") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubelet/objects.json");
    if std::env::var_os("GPUQUOTA_WRITE_OBJECTS").is_some() {
        fs::write(&path, &written).expect("written");
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == written,
        "{} is of another time: set GPUQUOTA_WRITE_OBJECTS=1 and run this test",
        path.display()
    );
}

#[test]
fn slices_that_a_kubelet_removes_as_it_starts_are_written_again() {
    let machine = Machine::new("H100");
    let node = Node::new(ApiServer::new(&["v1"])).start(&machine, &["--period", "1h"]);
    let name = node.api.slices()[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let path = format!("/apis/resource.k8s.io/v1/resourceslices/{name}");
    node.api.remove(&path);
    node.register();
    node.slices();
    // A kubelet may do so after it has taken the driver in too.
    node.api.remove(&path);
    node.slices();
}

#[test]
fn instances_of_mig_are_devices_of_their_own() {
    let scratch = Scratch::new();
    let file = "[[device]]\nlike = \"H100\"\nmig = [\"1g.10gb\", \"3g.40gb\"]\n";
    let machine = Machine::new(scratch.file("mig.toml", file).to_str().expect("UTF-8"));
    let node = Node::new(ApiServer::new(&["v1"])).start(&machine, &[]);
    let devices = node.slices();
    assert_eq!(devices.len(), 2, "{devices:?}");
    for (device, profile) in devices.iter().zip(["1g.10gb", "3g.40gb"]) {
        assert_eq!((text(device, "type"), text(device, "profile")), ("mig", profile));
        assert!(text(device, "uuid").starts_with("MIG-") && text(device, "parentUUID").starts_with("GPU-"));
        assert_eq!(device["allowMultipleAllocations"], Value::Null);
    }
}

#[test]
fn a_claim_becomes_a_cdi_device_once_however_often_the_kubelet_asks() {
    let machine = Machine::new("2xH100");
    let mut node = Node::new(ApiServer::new(&["v1"])).start(&machine, &[]);
    node.register();
    node.driver().says("the kubelet has taken in gpuquota.dev");
    let config = json!([
        { "source": "FromClass", "opaque": { "driver": "gpuquota.dev", "parameters": {
            "apiVersion": "gpuquota.dev/v1", "kind": "SliceParameters", "policy": "fixed-share", "coresLimit": 50 } } },
        { "source": "FromClaim", "requests": ["one"], "opaque": { "driver": "gpuquota.dev", "parameters": {
            "apiVersion": "gpuquota.dev/v1", "kind": "SliceParameters", "coresLimit": 60 } } },
        { "source": "FromClaim", "opaque": { "driver": "other.example", "parameters": { "what": "ever" } } },
    ]);
    let results = [result("one", "gpu-0", "8Gi", "30"), result("two", "gpu-1", "4Gi", "0")];
    node.allocate("web", UID, &results, config);
    let first = node.prepare("web", UID);
    assert_eq!(first.error, "");
    assert_eq!(first.devices.len(), 2);
    assert_eq!(first.devices[0].request_names, ["one"]);
    assert_eq!(
        (first.devices[1].pool_name.as_str(), first.devices[1].device_name.as_str()),
        ("node-1", "gpu-1")
    );
    assert_eq!(first.devices[0].cdi_device_ids, [format!("gpuquota.dev/claim={UID}")]);
    let uuids: Vec<_> = node.slices().iter().map(|device| text(device, "uuid").to_owned()).collect();
    let limits = node.limits(UID);
    for line in [
        format!("memory = 1,{}={},{}={}\n", uuids[0], 8 * GIB, uuids[1], 4 * GIB),
        format!("cores = {}=60,{}=50\n", uuids[0], uuids[1]),
        format!("cores_request = {}=30\n", uuids[0]),
        "policy = fixed-share\n".to_owned(),
    ] {
        assert!(limits.contains(&line), "{line} is not in\n{limits}");
    }
    let edits = node.spec(UID).expect("a specification")["devices"][0]["containerEdits"].clone();
    assert_eq!(edits["env"], json!([format!("NVIDIA_VISIBLE_DEVICES={}", uuids.join(","))]));
    // The API server may be gone, the driver may be killed, the kubelet may be older: the answer is the same.
    node.api.set_down(true);
    assert_eq!(node.prepare("web", UID), first);
    node.driver.take().expect("it runs").kill();
    node.drive(&machine, &[]);
    assert_eq!(node.prepare_by("/v1beta1.DRAPlugin/NodePrepareResources", "web", UID), first);
    assert_eq!(node.limits(UID), limits);
    node.api.set_down(false);
    // Containers of the claim have it for themselves, all of them together.
    container::has(&machine, &node.binds(UID), 8 * GIB);
    for _ in 0..2 {
        assert_eq!(node.unprepare("web", UID), "");
        assert!(!node.files().iter().any(|file| file.contains(UID)));
    }
    assert_eq!(node.unprepare("never", OTHER), "");
}

#[test]
fn what_cannot_be_held_is_an_event_on_the_claim_and_nothing_half_prepared() {
    let machine = Machine::new("H100");
    let node = Node::new(ApiServer::new(&["v1"])).start(&machine, &[]);
    let one = |memory: &str, cores: &str| [result("gpu", "gpu-0", memory, cores)];
    let parameters = |more: Value| {
        let mut all = json!({ "apiVersion": "gpuquota.dev/v1", "kind": "SliceParameters" });
        all.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        json!([{ "source": "FromClaim", "opaque": { "driver": "gpuquota.dev", "parameters": all } }])
    };
    node.refused("none", UID, &["gpuquota: there is no such claim any more"]);
    node.allocate("large", UID, &one("81Gi", "0"), json!([]));
    node.refused("large", UID, &["gpu-0 consumes 81.00 GiB of memory", "has 80.00 GiB"]);
    node.allocate("words", UID, &one("1Gi", "0"), parameters(json!({ "polcy": "burst-share" })));
    node.refused("words", UID, &["polcy", "Write apiVersion: gpuquota.dev/v1"]);
    node.allocate("below", UID, &one("1Gi", "30"), parameters(json!({ "coresLimit": 20 })));
    node.refused("below", UID, &["coresLimit is 20 percent, and 30 percent are booked"]);
    node.allocate("moved", UID, &[result("gpu", "gpu-7", "1Gi", "0")], json!([]));
    node.refused("moved", UID, &["gpu-7 is not on this node any more"]);
    node.allocate("odd", UID, &one("much", "0"), json!([]));
    node.refused("odd", UID, &["consumes memory", "much"]);
    node.allocate("theirs", UID, &[json!({ "driver": "other.example" })], json!([]));
    node.refused("theirs", UID, &["no device of it is gpuquota.dev's"]);
    node.allocate("renamed", OTHER, &one("1Gi", "0"), json!([]));
    node.refused("renamed", UID, &["another claim of this name"]);
    // Two that were counted by two: the card is not given away twice.
    node.allocate("first", OTHER, &one("60Gi", "70"), json!([]));
    assert_eq!(node.prepare("first", OTHER).error, "");
    node.allocate("second", UID, &one("30Gi", "10"), json!([]));
    node.refused("second", UID, &["60.00 GiB are prepared for team/first", "wants 30.00 GiB"]);
    node.allocate("third", UID, &one("10Gi", "40"), json!([]));
    node.refused("third", UID, &["70 percent are prepared for team/first", "40 percent"]);
    node.allocate("fourth", UID, &one("20Gi", "30"), json!([]));
    assert_eq!(node.prepare("fourth", UID).error, "");
    // A claim whose events were told is not told them all the time.
    let events = node.api.events().len();
    node.refused("second", "8888cccc-5a6b-4c7d-8e9f-0a1b2c3d4e5f", &["another claim of this name"]);
    node.prepare("second", "8888cccc-5a6b-4c7d-8e9f-0a1b2c3d4e5f");
    assert_eq!(node.api.events().len(), events + 1);
}

#[test]
fn a_container_with_two_claims_is_refused_since_it_has_one_quota() {
    let machine = Machine::new("H100");
    let node = Node::new(ApiServer::new(&["v1"])).start(&machine, &[]);
    let claims = |names: &[&str]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
    let of = |name: &str| json!({ "name": name, "resourceClaimName": name });
    let main = json!({ "name": "main", "resources": { "claims": claims(&["first", "second"]) } });
    let spec = json!({ "containers": [main], "resourceClaims": [of("first"), of("second")] });
    node.api.put("/api/v1/namespaces/team/pods/web", json!({ "metadata": { "name": "web" }, "spec": spec }));
    for (name, uid) in [("first", OTHER), ("second", UID)] {
        node.allocate(name, uid, &[result("gpu", "gpu-0", "1Gi", "10")], json!([]));
    }
    assert_eq!(node.prepare("first", OTHER).error, "");
    node.refused("second", UID, &["container main of pod web uses it and claim first"]);
}

#[test]
fn what_the_kubelet_forgot_is_cleaned_up() {
    let machine = Machine::new("H100");
    let node = Node::new(ApiServer::new(&["v1"])).start(&machine, &[]);
    for (name, uid) in [("gone", UID), ("stays", OTHER)] {
        node.allocate(name, uid, &[result("gpu", "gpu-0", "1Gi", "10")], json!([]));
        assert_eq!(node.prepare(name, uid).error, "");
    }
    node.api.remove(&claim_path("v1", "gone"));
    eventually(|| node.spec(UID).is_none().then_some(()), "the end of what was forgotten");
    node.driver().says("claim team/gone is gone");
    // What an API server does not tell is not gone.
    node.api.set_down(true);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(node.spec(OTHER).is_some());
}

#[test]
fn an_older_cluster_gets_whole_cards_and_is_told_so() {
    let machine = Machine::new("H100");
    let node = Node::new(ApiServer::new(&["v1beta1"])).start(&machine, &[]);
    let device = node.slices().remove(0);
    assert_eq!(device["basic"]["capacity"], json!({ "memory": { "value": "81920Mi" } }));
    assert_eq!(device["basic"]["allowMultipleAllocations"], Value::Null);
    node.driver().says("every card is given away whole");
    node.allocate(
        "web",
        UID,
        &[json!({ "request": "gpu", "driver": "gpuquota.dev", "pool": "node-1", "device": "gpu-0" })],
        json!([]),
    );
    assert_eq!(node.prepare("web", UID).error, "");
    assert!(node.limits(UID).contains(&format!("={}\n", 80 * GIB)), "{}", node.limits(UID));
    // A whole card is not divided by whom the scheduler has forgotten.
    node.allocate("more", OTHER, &[result("gpu", "gpu-0", "1Gi", "0")], json!([]));
    node.refused("more", OTHER, &["80.00 GiB are prepared for team/web"]);
    drop(node);
    let api = ApiServer::new(&["v1"]);
    api.drop_sharing();
    let node = Node::new(api).start(&machine, &[]);
    node.driver().says("DRAConsumableCapacity");
    let none = Node::new(ApiServer::new(&[]));
    let mut none = none;
    none.drive(&machine, &[]);
    none.driver().says("the cluster has no resource.k8s.io");
}

#[test]
fn a_card_that_is_lost_gets_a_taint_and_no_further_claim() {
    let scratch = Scratch::new();
    let machine = losing(&scratch, 1, 0);
    let node = Node::new(ApiServer::new(&["v1"])).start(&machine, &[]);
    node.allocate("web", UID, &[result("gpu", "gpu-0", "1Gi", "10")], json!([]));
    machine.bare().start("hold", &[]).ask("alloc 1048576", "rc");
    let taint = || Some(node.slices().remove(0)["taints"][0].clone()).filter(|taint| !taint.is_null());
    let taint = eventually(taint, "a taint");
    assert_eq!(
        (taint["key"].as_str(), taint["effect"].as_str()),
        (Some("gpuquota.dev/unhealthy"), Some("NoSchedule"))
    );
    assert!(node.api.slices()[0]["spec"]["pool"]["generation"].as_i64() >= Some(2));
    node.refused("web", UID, &["gpu-0", "Delete the pod, so that it is placed anew"]);
}

#[test]
fn a_driver_beside_another_one_is_refused_and_its_sockets_come_back() {
    let machine = Machine::new("H100");
    let mut node = Node::new(ApiServer::new(&["v1"]));
    let theirs = node.kubelet.home.path().join("plugins_registry/gpu.nvidia.com-reg.sock");
    let listening = std::os::unix::net::UnixListener::bind(&theirs).expect("a socket");
    node.drive(&machine, &[]);
    node.driver().says("NVIDIA's DRA driver is on this node and books gpu.nvidia.com");
    node.driver().says("Both would give away the same cards");
    drop(listening);
    let node = node.start(&machine, &[]);
    let socket = node.register();
    fs::remove_file(&socket).expect("taken away");
    node.driver().says("a socket of gpuquota.dev was taken away");
    eventually(|| socket.exists().then_some(()), "the socket");
    assert_eq!(node.register(), socket);
}
