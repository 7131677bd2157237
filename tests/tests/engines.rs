//! Each engine's contract, in a container of Podman: its variables, its mounts, our library under its name, its folder for the
//! region; and what the engine's monitor then reads there. Without Podman each is skipped, by name and with the reason.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use gpuquota_promises::{
    GIB, Outcome, Podman, Program, Promise, Scratch, Seen, Verdict, artifact, hamis_monitor, kais_monitor,
    trials, volcanos_monitor,
};

fn main() -> ExitCode {
    trials(&[
        ("hami_s_containers_are_held_and_its_monitor_reads_them", hami),
        ("hami_dra_s_containers_share_the_region_of_their_claim", hami_dra),
        ("volcano_s_containers_are_held_and_its_monitor_reads_them", volcano),
        ("kai_s_containers_are_held_and_its_monitor_reads_them", kai),
        ("koordinator_s_containers_are_held_with_and_without_its_monitor", koordinator),
        ("vgpu_manager_s_containers_are_held_by_the_host_s_index", vgpu_manager),
        ("vgpu_manager_s_config_outranks_the_environment", vgpu_config),
        ("gpu_fractioning_s_containers_are_held_in_mebibytes", fractioning),
        ("a_slice_by_cdi_is_a_slice_in_podman", cdi),
        ("cdi_files_that_no_runtime_would_take_are_refused", cdi_refused),
    ])
}

/// The simulated H100.
const UUID: &str = "GPU-513dc0da-2330-4000-8000-000000000000";
const OTHER: &str = "GPU-00000000-0000-0000-0000-000000000000";
const POD: &str = "9f1c2d3e-0000-4a5b-9c6d-001122334455";

/// A node with an engine's folder, into which `gpuquota install` has put the library.
struct Node {
    scratch: Scratch,
    podman: Podman,
}

impl Node {
    fn new(engine: &str, folder: &str) -> Result<Self, Verdict> {
        let node = Self { scratch: Scratch::new(), podman: Podman::here()? };
        fs::create_dir_all(node.path(folder)).expect("the scratch folder is ours");
        node.gpuquota(&["install", "--engine", engine]).success();
        Ok(node)
    }

    fn gpuquota(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new(artifact("gpuquota"));
        command.args(words).arg("--root").arg(self.root());
        Program::start(command).finish()
    }

    fn root(&self) -> PathBuf {
        let root = self.scratch.path().join("node");
        fs::create_dir_all(&root).expect("the scratch folder is ours");
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// A folder that the engine makes for a container: every user may write there.
    fn folder(&self, path: &str) -> PathBuf {
        let folder = self.path(path);
        fs::create_dir_all(&folder).expect("ours");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("ours");
        folder
    }

    /// A container that holds memory as it is told.
    fn container(&self, env: &[(&str, &str)], mounts: &[(&str, &str, &str)]) -> Program {
        let mut options = vec!["-i".to_owned()];
        for (name, value) in env {
            options.extend(["-e".to_owned(), format!("{name}={value}")]);
        }
        for (host, container, how) in mounts {
            let host = self.path(host);
            options.extend(["-v".to_owned(), format!("{}:{container}:{how}", host.display())]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mut program = self.podman.start_on_h100("true", &options, "hold");
        program.wait_for("pid");
        program
    }
}

/// The container has a cap of two gibibytes: it sees it, and is held to it.
fn is_held(container: &mut Program) {
    assert_eq!(container.ask("info", "total"), 2 * GIB);
    assert_eq!(container.ask(&format!("alloc {GIB}"), "rc"), 0);
    assert_eq!(container.ask(&format!("alloc {}", 2 * GIB), "rc"), 2);
}

/// What a monitor reads then.
fn reads(seen: Result<Seen, String>, core_limit: u64) {
    let seen = seen.expect("it accepts the region");
    let used = seen.used;
    let bytes = GIB as u64;
    assert!((bytes..2 * bytes).contains(&used), "one gibibyte and a context: {used}");
    assert_eq!(seen, Seen { uuid: UUID.to_owned(), memory_limit: 2 * bytes, core_limit, used });
}

macro_rules! node {
    ($engine:literal, $folder:literal) => {
        match Node::new($engine, $folder) {
            Ok(node) => node,
            Err(skipped) => return skipped,
        }
    };
}

fn hami() -> Verdict {
    let node = node!("hami", "/usr/local/vgpu");
    let promise = &Promise::to(&["HAMi#60"]);
    let folder = node.folder(&format!("/usr/local/vgpu/containers/{POD}_main"));
    node.folder("/tmp/vgpulock");
    let cache = "/usr/local/vgpu/6f0e9c1a.cache";
    let env = [
        ("CUDA_DEVICE_MEMORY_LIMIT_0", "2048m"),
        ("CUDA_DEVICE_SM_LIMIT", "30"),
        ("CUDA_DEVICE_MEMORY_SHARED_CACHE", cache),
        ("GPU_CORE_UTILIZATION_POLICY", "force"),
        ("CUDA_TASK_PRIORITY", "0"),
        ("LIBCUDA_LOG_LEVEL", "1"),
    ];
    let own = format!("/usr/local/vgpu/containers/{POD}_main");
    let mounts = [
        (own.as_str(), "/usr/local/vgpu", "rw"),
        ("/usr/local/vgpu/libvgpu.so", "/usr/local/vgpu/libvgpu.so", "ro"),
        ("/usr/local/vgpu/ld.so.preload", "/etc/ld.so.preload", "ro"),
        ("/tmp/vgpulock", "/tmp/vgpulock", "rw"),
    ];
    let mut container = node.container(&env, &mounts);
    is_held(&mut container);
    promise.asserts(|| reads(hamis_monitor(&folder), 30));
    container.finish().success();
    Verdict::Kept
}

fn hami_dra() -> Verdict {
    let node = node!("hami", "/usr/local/vgpu");
    node.folder("/usr/local/vgpu/claims/c1");
    let env = [
        ("CUDA_DEVICE_MEMORY_LIMIT_0", "2048m"),
        ("CUDA_DEVICE_SM_LIMIT_0", "60"),
        ("CUDA_DEVICE_MEMORY_SHARED_CACHE", "/usr/local/vgpu/claims/c1/6f0e9c1a.cache"),
    ];
    let mounts = [
        ("/usr/local/vgpu/claims/c1", "/usr/local/vgpu/claims/c1", "rw"),
        ("/usr/local/vgpu/libvgpu.so", "/usr/local/vgpu/libvgpu.so", "ro"),
        ("/usr/local/vgpu/ld.so.preload", "/etc/ld.so.preload", "ro"),
    ];
    let (mut one, mut other) = (node.container(&env, &mounts), node.container(&env, &mounts));
    is_held(&mut one);
    // Two containers of one claim, each in its own PID namespace, share its cap.
    assert_eq!(other.ask(&format!("alloc {GIB}"), "rc"), 2);
    let told = node.path("/usr/local/vgpu/claims/c1");
    reads(hamis_monitor(&told).map(|seen| Seen { used: GIB as u64, ..seen }), 60);
    one.finish().success();
    assert_eq!(other.ask(&format!("alloc {GIB}"), "rc"), 0);
    other.finish().success();
    Verdict::Kept
}

fn volcano() -> Verdict {
    let node = node!("volcano", "/usr/local/vgpu");
    let promise = &Promise::to(&["HAMi#60"]);
    let own = format!("/usr/local/vgpu/vgpu/containers/{POD}_main");
    let folder = node.folder(&own);
    // Its preload file has no newline at the end.
    fs::write(node.path("/usr/local/vgpu/ld.so.preload"), "/usr/local/vgpu/libvgpu.so").expect("ours");
    let env = [
        ("CUDA_DEVICE_MEMORY_LIMIT_0", "2048m"),
        ("CUDA_DEVICE_SM_LIMIT", "30"),
        ("CUDA_DEVICE_MEMORY_SHARED_CACHE", "/tmp/vgpu/6f0e9c1a.cache"),
    ];
    let mounts = [
        (own.as_str(), "/tmp/vgpu", "rw"),
        ("/usr/local/vgpu/libvgpu.so", "/usr/local/vgpu/libvgpu.so", "ro"),
        ("/usr/local/vgpu/ld.so.preload", "/etc/ld.so.preload", "ro"),
    ];
    let mut container = node.container(&env, &mounts);
    is_held(&mut container);
    promise.asserts(|| reads(volcanos_monitor(&folder), 30));
    container.finish().success();
    Verdict::Kept
}

fn kai() -> Verdict {
    let node = node!("kai", "/usr/local/vgpu");
    let promise = &Promise::to(&["HAMi#60"]);
    let folder = node.folder("/usr/local/vgpu/containers");
    let env = [
        ("CUDA_DEVICE_MEMORY_LIMIT", "2048m"),
        ("POD_UID", POD),
        ("CONTAINER_NAME", "main"),
        ("CONTAINER_VGPU_MOUNT", "/usr/local/vgpu"),
    ];
    let mounts = [
        ("/usr/local/vgpu", "/usr/local/vgpu", "ro"),
        ("/usr/local/vgpu/containers", "/usr/local/vgpu/containers", "rw"),
        ("/usr/local/vgpu/ld.so.preload", "/etc/ld.so.preload", "ro"),
    ];
    let mut container = node.container(&env, &mounts);
    is_held(&mut container);
    promise.asserts(|| reads(kais_monitor(&folder, &format!("{POD}_main")), 100));
    container.finish().success();
    Verdict::Kept
}

fn koordinator() -> Verdict {
    let node = node!("koordinator", "/usr/local/vgpu");
    let own = format!("/usr/local/vgpu/containers/{POD}_main");
    let folder = node.folder(&own);
    let cache = format!("/usr/local/vgpu/{POD}_main.cache");
    let plain = [
        ("CUDA_DEVICE_MEMORY_LIMIT", "2147483648"),
        ("CUDA_DEVICE_SM_LIMIT", "30"),
        ("LD_PRELOAD", "/usr/local/vgpu/libvgpu.so"),
    ];
    let library = ("/usr/local/vgpu/libvgpu.so", "/usr/local/vgpu/libvgpu.so", "rw");
    let mut container = node.container(&plain, &[library]);
    is_held(&mut container);
    container.finish().success();

    let env = [plain[0], plain[1], plain[2], ("CUDA_DEVICE_MEMORY_SHARED_CACHE", cache.as_str())];
    let mut container = node.container(&env, &[(own.as_str(), "/usr/local/vgpu", "rw"), library]);
    is_held(&mut container);
    reads(hamis_monitor(&folder), 30);
    container.finish().success();
    Verdict::Kept
}

const CONTROL: (&str, &str, &str) =
    ("/etc/vgpu-manager/libvgpu-control.so", "/etc/vgpu-manager/driver/libvgpu-control.so", "ro");

/// vgpu-manager's preload file is in its own image.
fn control(node: &Node) -> [(&'static str, &'static str, &'static str); 2] {
    let preload = node.path("/etc/vgpu-manager/ld.so.preload");
    fs::write(preload, "/etc/vgpu-manager/driver/libvgpu-control.so").expect("ours");
    [CONTROL, ("/etc/vgpu-manager/ld.so.preload", "/etc/ld.so.preload", "ro")]
}

fn vgpu_manager() -> Verdict {
    let node = node!("vgpu-manager", "/etc/vgpu-manager");
    let devices = format!("{OTHER},{OTHER},{OTHER},{UUID}");
    // The container's only GPU is the host's fourth.
    let env = [
        ("VGPU_POD_UID", POD),
        ("VGPU_CONTAINER_NAME", "main"),
        ("CUDA_MEM_LIMIT_0", "512m"),
        ("CUDA_MEM_LIMIT_3", "2048m"),
        ("CUDA_CORE_LIMIT_3", "30"),
        ("CUDA_CORE_SOFT_LIMIT_3", ""),
        ("CUDA_MEM_RATIO_3", "1.00"),
        ("MANAGER_VISIBLE_DEVICES", devices.as_str()),
    ];
    let mut container = node.container(&env, &control(&node));
    is_held(&mut container);
    container.finish().success();
    Verdict::Kept
}

/// A `vgpu.config` of layout 1 with one device.
fn config(seq: u32) -> Vec<u8> {
    let mut file = vec![0; 8192];
    let mut put = |at: usize, value: u32| file[at..at + 4].copy_from_slice(&value.to_le_bytes());
    for (at, value) in [(0, 0x5647_4346), (4, 1), (8, 2560), (12, 16)] {
        put(at, value);
    }
    let device = 512 + 3 * 128;
    for (at, value) in
        [(0, seq), (56, 2 << 30), (64, 2 << 30), (72, 30), (76, 30), (80, 1), (84, 1), (88, 1), (96, 1)]
    {
        put(device + at, value);
    }
    file[device + 8..device + 8 + UUID.len()].copy_from_slice(UUID.as_bytes());
    file
}

fn vgpu_config() -> Verdict {
    let node = node!("vgpu-manager", "/etc/vgpu-manager");
    let folder = node.folder(&format!("/etc/vgpu-manager/{POD}_main/config"));
    let file = folder.join("vgpu.config");
    fs::write(&file, config(2)).expect("ours");
    let own = format!("/etc/vgpu-manager/{POD}_main/config");
    let [library, preload] = control(&node);
    let mounts = [library, preload, (own.as_str(), "/etc/vgpu-manager/config", "ro")];
    // What the tenant sets lifts nothing.
    let env = [("CUDA_MEM_LIMIT_0", "64g"), ("GPUQUOTA_MEMORY", "64GiB"), ("GPUQUOTA_MODE", "off")];
    let mut container = node.container(&env, &mounts);
    is_held(&mut container);
    container.finish().success();
    // A file that is damaged, or that its writer never finishes, is no file without limits.
    for damaged in [config(3), vec![0; 8192], vec![]] {
        fs::write(&file, damaged).expect("ours");
        let volume = format!("{}:/etc/vgpu-manager/config:ro", folder.display());
        let [library, preload] = [library, preload]
            .map(|(host, container, how)| format!("{}:{container}:{how}", node.path(host).display()));
        let options = ["-v", &volume, "-v", &library, "-v", &preload];
        let outcome = node.podman.start_on_h100("true", &options, "door_linked").finish();
        assert!(!outcome.status.success(), "{outcome}");
        assert!(outcome.stderr.contains("/etc/vgpu-manager/config/vgpu.config"), "{outcome}");
    }
    Verdict::Kept
}

fn fractioning() -> Verdict {
    let node = node!("standalone", "/usr/local/lib/gpuquota");
    let library = "/usr/local/lib/gpuquota/libgpuquota.so";
    fs::write(node.path("/etc-preload"), library).expect("ours");
    let mounts = [(library, library, "ro"), ("/etc-preload", "/etc/ld.so.preload", "ro")];
    let limits = [("NVIDIA_GPU_MEMORY_REQUEST", "1024"), ("NVIDIA_GPU_MEMORY_LIMIT", "2048")];
    let mut container = node.container(&limits, &mounts);
    is_held(&mut container);
    container.finish().success();
    Verdict::Kept
}

/// Where the devices of a node's root are for Podman.
fn with_cdi(node: &Node, file: &str) -> String {
    // What the file mounts lies below the root of this test.
    let text = fs::read_to_string(node.path(file)).expect("a specification");
    let root = node.root();
    let moved = text.replace("\"hostPath\": \"/", &format!("\"hostPath\": \"{}/", root.display()));
    let spec = node.scratch.file("gpuquota.json", moved);
    format!("mkdir -p /etc/cdi; cp {} /etc/cdi", spec.display())
}

fn cdi() -> Verdict {
    let node = node!("standalone", "/usr/local/lib/gpuquota");
    let gpu = format!("{UUID}=2GiB-30");
    let words = ["cdi", "generate", "--slice", "2GiB-30", "--slice", "1GiB", "--gpu", &gpu];
    let told = node.gpuquota(&words).success();
    assert!(told.out.contains("--device gpuquota.dev/gpu=2GiB-30\n"), "{told}");
    let script = with_cdi(&node, "/etc/cdi/gpuquota.json");
    for device in ["gpuquota.dev/gpu=2GiB-30".to_owned(), format!("gpuquota.dev/gpu={UUID}.2GiB-30")] {
        // What the tenant sets lifts no slice, and each container has its own region.
        let tenant = if device.contains(UUID) { "GPUQUOTA_LOG=warn" } else { "GPUQUOTA_MEMORY=64GiB" };
        let options = ["-i", "--device", &device, "-e", tenant];
        let start = || {
            let mut program = node.podman.start_on_h100(&script, &options, "hold");
            program.wait_for("pid");
            program
        };
        let (mut one, mut other) = (start(), start());
        is_held(&mut one);
        is_held(&mut other);
        for container in [one, other] {
            container.finish().success();
        }
    }
    let told = node.gpuquota(&["cdi", "remove"]).success();
    assert!(told.out.contains("/etc/cdi/gpuquota.json: removed"), "{told}");
    assert!(!node.path("/etc/cdi").exists() && !node.path("/var/lib/gpuquota/cdi").exists());
    Verdict::Kept
}

fn cdi_refused() -> Verdict {
    let scratch = Scratch::new();
    let root = scratch.path().join("node");
    fs::create_dir_all(&root).expect("ours");
    let run = |words: &[&str], root: Option<&Path>| {
        let mut command = Command::new(artifact("gpuquota"));
        command.args(words);
        if let Some(root) = root {
            command.arg("--root").arg(root);
        }
        Program::start(command).finish()
    };
    let refused = |outcome: Outcome, words: &[&str]| {
        assert_eq!((outcome.status.code(), outcome.stderr.lines().count()), (Some(2), 1), "{outcome}");
        for word in words {
            assert!(outcome.stderr.contains(word), "{word}: {outcome}");
        }
    };
    let generate = |words: &[&str]| run(&[&["cdi", "generate"], words].concat(), Some(&root));
    refused(generate(&["--slice", "2GiB"]), &["libgpuquota.so", "Run gpuquota install first"]);
    run(&["install"], Some(&root)).success();
    refused(generate(&[]), &["no slice is named", "--slice 2GiB-30"]);
    refused(generate(&["--slice", "2GB-30"]), &["--slice \"2GB-30\"", "1024", "Write"]);
    refused(generate(&["--slice", "2GiB-300"]), &["\"300\"", "more than 100 percent"]);
    refused(generate(&["--gpu", "0=2GiB"]), &["--gpu \"0=2GiB\"", "no UUID", "nvidia-smi -L"]);
    assert!(!root.join("etc/cdi").exists(), "a refusal leaves nothing");
    generate(&["--slice", "2GiB-30"]).success();

    let file = root.join("etc/cdi/gpuquota.json");
    let text = fs::read_to_string(&file).expect("a specification");
    let moved = text.replace("\"hostPath\": \"/", &format!("\"hostPath\": \"{}/", root.display()));
    let check = |text: &str| {
        let file = scratch.file("check.json", text);
        run(&["cdi", "validate", file.to_str().expect("text")], None)
    };
    let told = check(&moved).success();
    assert!(told.out.contains("1 devices of kind gpuquota.dev/gpu"), "{told}");
    refused(
        check(&moved.replace("/usr/local", "/usr/nowhere")),
        &["hostPath", "nowhere", "gpuquota install"],
    );
    refused(check(&moved.replace("0.5.0", "0.2.0")), &["cdiVersion \"0.2.0\""]);
    refused(check(&moved.replace("gpuquota.dev/gpu", "gpu")), &["kind \"gpu\""]);
    refused(check("nonsense"), &["no CDI specification"]);
    Verdict::Kept
}
