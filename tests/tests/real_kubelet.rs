//! `gpuquota device-plugin` against a real kubelet. `make test-kubelet KUBELET=/path CRI=/run/containerd/containerd.sock` names it and a
//! container runtime, without which no kubelet starts. Without them all of this is skipped.
//!
//! The kubelet runs by itself, without an API server; then it knows device plugins, and no drivers of dynamic resource allocation.

use gpuquota_promises::{Machine, Scratch, Verdict, artifact, mount_namespace, trials};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// A kubelet alone, which does not touch the cgroups of this machine.
const CONFIG: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: { anonymous: { enabled: true }, webhook: { enabled: false } }
authorization: { mode: AlwaysAllow }
enableServer: false
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
";

fn main() -> ExitCode {
    trials(&[("a_real_kubelet_takes_the_device_plugin_in_and_again_when_it_was_started_anew", registration)])
}

/// Its path and the runtime's socket, or why there is none.
fn named() -> Result<(String, String), String> {
    let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let kubelet =
        of("KUBELET").ok_or("no kubelet is named: make test-kubelet KUBELET=/path CRI=/path/of/socket")?;
    let cri = of("CRI")
        .ok_or("no container runtime is named: make test-kubelet KUBELET=/path CRI=/path/of/socket")?;
    if !Path::new(&kubelet).is_file() {
        return Err(format!("{kubelet} is no kubelet"));
    }
    if !Path::new(&cri).exists() {
        return Err(format!("{cri} is no socket of a container runtime"));
    }
    Ok((kubelet, cri))
}

/// A process that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn count(log: &Path, words: &str) -> usize {
    fs::read_to_string(log).unwrap_or_default().matches(words).count()
}

fn eventually(log: &Path, words: &str, times: usize) {
    let until = Instant::now() + PATIENCE;
    while count(log, words) < times {
        let said = fs::read_to_string(log).unwrap_or_default();
        assert!(Instant::now() < until, "{words:?} is not there {times} times:\n{said}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn registration() -> Verdict {
    let (kubelet, cri) = match named() {
        Ok(named) => named,
        Err(why) => return Verdict::Skipped(why),
    };
    let Some(options) = mount_namespace() else {
        return Verdict::Skipped(gpuquota_promises::NO_NAMESPACE.to_owned());
    };
    let home = Scratch::new();
    home.file("config.yaml", CONFIG);
    let below = |name: &str| home.path().join(name).display().to_string();
    // A kubelet has its device plugins at one place of the machine: both see another one there.
    let own = format!(
        "mkdir -p /var/lib/kubelet {0}; mount --bind {0} /var/lib/kubelet; exec \"$@\"",
        below("kubelet")
    );
    let start = |command: &Command, log: &str| {
        let log = File::create(below(log)).expect("the scratch folder is ours");
        let mut all = Command::new("unshare");
        all.args(options).args(["sh", "-ec", &own, "sh"]).arg(command.get_program()).args(command.get_args());
        Running(all.stdout(Stdio::null()).stderr(log).spawn().expect("unshare starts"))
    };
    let started = |log: &str| {
        let mut command = Command::new(&kubelet);
        command.args(["--config", &below("config.yaml"), "--hostname-override", "node-1"]);
        command.arg(format!("--container-runtime-endpoint=unix://{cri}"));
        start(&command, log)
    };
    let machine = Machine::new("H100");
    let (regions, library) = (below("regions"), artifact("libgpuquota.so").display().to_string());
    let first = started("kubelet-1.log");
    let flags = ["device-plugin", "--root", &regions, "--library", &library];
    let _plugin = start(&machine.bare().command(artifact("gpuquota"), &flags), "plugin.log");
    let log = home.path().join("plugin.log");
    eventually(&log, "has taken in gpuquota.dev/memory", 1);
    eventually(&log, "has taken in gpuquota.dev/cores", 1);
    drop(first);
    let _second = started("kubelet-2.log");
    eventually(&log, "has taken in gpuquota.dev/memory", 2);
    Verdict::Kept
}
