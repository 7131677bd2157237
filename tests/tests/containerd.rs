//! `gpuquota agent --nri` against a real containerd, with pods as the kubelet makes them. `make test-containerd CONTAINERD=/path`
//! names it; containerd-shim-runc-v2, ctr and crictl lie beside it, and runc is installed. Without it all of this is skipped.

use gpuquota_promises::{Agent, GIB, Scratch, Verdict, artifact, program, trials};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

const POD_UID: &str = "0f4c2d1e-5a6b-4c7d-8e9f-0a1b2c3d4e5f";
const PATIENCE: Duration = Duration::from_secs(60);
/// A program that does nothing, as pods need one.
const PAUSE: &str = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n";

fn main() -> ExitCode {
    trials(&[
        ("a_pod_of_containerd_gets_its_slice", slice),
        ("a_pod_of_containerd_whose_annotation_is_wrong_is_refused_with_the_reason", refusal),
        ("a_pod_of_containerd_that_was_started_without_its_quota_is_stopped", audit),
        ("a_containerd_that_was_started_anew_is_found_again", restart),
    ])
}

/// A containerd of its own.
struct Containerd {
    home: Scratch,
    programs: PathBuf,
    process: Option<Child>,
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Containerd {
    fn start() -> Result<Self, Verdict> {
        let skipped = |why: String| Err(Verdict::Skipped(why));
        let Some(binary) = std::env::var_os("CONTAINERD").filter(|path| !path.is_empty()) else {
            return skipped("no containerd is named: make test-containerd CONTAINERD=/path".to_owned());
        };
        let Some(programs) = Path::new(&binary).parent().map(Path::to_owned) else {
            return skipped(format!("{binary:?} is no path of a containerd"));
        };
        for name in ["containerd", "containerd-shim-runc-v2", "ctr", "crictl"] {
            if !programs.join(name).is_file() {
                return skipped(format!("{} has no {name}", programs.display()));
            }
        }
        if !is_root() {
            return skipped("containerd needs root".to_owned());
        }
        let mut containerd = Self { home: Scratch::new(), programs, process: None };
        containerd.configure();
        containerd.up();
        containerd.image();
        Ok(containerd)
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    fn configure(&self) {
        let config = format!(
            r#"
version = 3
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins.'io.containerd.nri.v1.nri']
  socket_path = "{nri}"
  plugin_path = "{plugins}"
  plugin_config_path = "{plugins}"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "native"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "localhost/empty:1"
[plugins.'io.containerd.cri.v1.runtime']
  # The machine of the tests may not lower it.
  restrict_oom_score_adj = true
"#,
            root = self.path("root"),
            state = self.path("state"),
            socket = self.path("containerd.sock"),
            nri = self.path("nri.sock"),
            plugins = self.path("plugins"),
        );
        self.home.file("config.toml", config);
        let crictl = format!("runtime-endpoint: unix://{}\ntimeout: 30\n", self.path("containerd.sock"));
        self.home.file("crictl.yaml", crictl);
    }

    fn up(&mut self) {
        let path = format!("{}:{}", self.programs.display(), std::env::var("PATH").unwrap_or_default());
        let log = fs::File::create(self.path("log")).expect("the scratch folder is ours");
        let mut command = Command::new(self.programs.join("containerd"));
        command.args(["-c", &self.path("config.toml")]).env("PATH", path);
        let process = command.stdout(Stdio::null()).stderr(log).spawn().expect("containerd starts");
        self.process = Some(process);
        eventually("containerd does not answer", || self.crictl(&["version"]).status.success());
    }

    fn down(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Its shims, and with them the containers, go on.
            process.kill().expect("it is ours");
            process.wait().expect("it is ours");
        }
    }

    /// An image of one program, and places for the host's.
    fn image(&self) {
        let root = self.home.path().join("image");
        for folder in ["usr", "tmp", "proc", "sys", "dev", "etc", "run"] {
            fs::create_dir_all(root.join(folder)).expect("the scratch folder is ours");
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(Path::new("usr").join(link), root.join(link)).expect("a fresh folder");
        }
        let source = self.home.file("pause.c", PAUSE);
        run(Command::new("cc").args(["-static", "-o"]).arg(root.join("pause")).arg(source));
        let tar = |name: &str, folder: &Path, of: &[&str]| {
            run(Command::new("tar").arg("-C").arg(folder).arg("-cf").arg(self.path(name)).args(of));
        };
        tar("layer.tar", &root, &["."]);
        let sum = run(Command::new("sha256sum").arg(self.path("layer.tar")));
        let digest = format!("sha256:{}", sum.split(' ').next().expect("a digest"));
        let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = serde_json::json!({
            "architecture": machine, "os": "linux",
            "config": { "Entrypoint": ["/pause"], "Env": ["PATH=/usr/bin:/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [digest] },
        });
        let manifest = serde_json::json!([{
            "Config": "config.json", "RepoTags": ["localhost/empty:1"], "Layers": ["layer.tar"],
        }]);
        self.home.file("config.json", config.to_string());
        self.home.file("manifest.json", manifest.to_string());
        tar("image.tar", self.home.path(), &["manifest.json", "config.json", "layer.tar"]);
        let mut import = Command::new(self.programs.join("ctr"));
        import.args(["-a", &self.path("containerd.sock"), "-n", "k8s.io", "images", "import", "--local"]);
        run(import.args(["--snapshotter", "native", &self.path("image.tar")]));
    }

    fn crictl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.programs.join("crictl"));
        command.args(["-c", &self.path("crictl.yaml")]).args(arguments);
        command.output().expect("crictl starts")
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = self.crictl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A pod with these annotations: its id, and the file that describes it.
    fn pod(&self, name: &str, annotations: &serde_json::Value) -> (String, String) {
        let pod = serde_json::json!({
            "metadata": { "name": name, "namespace": "team", "uid": POD_UID, "attempt": 0 },
            "annotations": annotations,
            "log_directory": self.path("logs"),
            // No network plugin is needed for the host's.
            "linux": { "security_context": { "namespace_options": { "network": 2 } } },
        });
        let file = self.home.file(&format!("{name}.json"), pod.to_string()).display().to_string();
        (self.says(&["runp", &file]), file)
    }

    /// Creates a container of a pod, which runs this script.
    fn create(&self, (pod, file): &(String, String), name: &str, script: &str) -> Result<String, String> {
        let shared = ["/usr".into(), artifact("cuda-sim"), program("views")];
        let folders = shared
            .iter()
            .map(|path: &PathBuf| if path.is_dir() { path } else { path.parent().expect("a folder") });
        let mounts: Vec<_> = folders
            .map(|folder| serde_json::json!({ "host_path": folder, "container_path": folder, "readonly": true }))
            .collect();
        let container = serde_json::json!({
            "metadata": { "name": name },
            "image": { "image": "localhost/empty:1" },
            "command": ["/usr/bin/sh", "-c", script],
            "mounts": mounts,
            "log_path": format!("{name}.log"),
            "linux": {},
        });
        let container = self.home.file(&format!("container-{name}.json"), container.to_string());
        let output = self.crictl(&["create", pod, &container.display().to_string(), file]);
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(text(&output))
        }
    }

    fn state(&self, id: &str) -> String {
        let told = self.says(&["inspect", "-o", "json", id]);
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        told["status"]["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Runs a container to its end; what it has said.
    fn output(&self, id: &str) -> String {
        self.says(&["start", id]);
        eventually("the container does not end", || self.state(id) == "CONTAINER_EXITED");
        text(&self.crictl(&["logs", id]))
    }

    fn agent(&self, flags: &[&str]) -> Agent {
        let regions = self.home.path().join("regions");
        let nri = format!("--nri={}", self.path("nri.sock"));
        let library = format!("--nri-library={}", artifact("libgpuquota.so").display());
        let cri = format!("--cri={}", self.path("containerd.sock"));
        let all = [&[nri.as_str(), library.as_str(), cri.as_str()], flags].concat();
        let agent = Agent::with(&[&regions], &all);
        eventually("the agent is not connected", || agent.metrics().contains("gpuquota_nri_connected 1"));
        agent
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.process.is_none() {
            self.up();
        }
        self.crictl(&["rmp", "--all", "--force"]);
        self.down();
    }
}

fn is_root() -> bool {
    run(Command::new("id").arg("-u")) == "0"
}

fn annotations() -> serde_json::Value {
    serde_json::json!({ "gpuquota.dev/memory": "2GiB", "gpuquota.dev/cores": "30" })
}

/// A script that asks the simulated GPU what a CUDA program sees.
fn views() -> String {
    format!("{} run H100 -- {}", artifact("cuda-sim").display(), program("views").display())
}

fn slice() -> Verdict {
    let containerd = match Containerd::start() {
        Ok(containerd) => containerd,
        Err(skipped) => return skipped,
    };
    let agent = containerd.agent(&[]);
    let pod = containerd.pod("web-0", &annotations());
    let script = format!(
        "cat /etc/gpuquota/limits; {}; touch /run/gpuquota/x && echo wrote; rm -f /run/gpuquota/region.cache && echo removed; \
         echo x >/etc/gpuquota/limits && echo overwrote; true",
        views()
    );
    let id = containerd.create(&pod, "main", &script).expect("a container");
    let said = containerd.output(&id);
    for line in ["memory = 2GiB", "cores = 30", "region = /run/gpuquota/region.cache"] {
        assert!(said.contains(line), "{said}");
    }
    let cap = 2 * GIB;
    assert!(said.contains(&format!("total={cap}")) && said.contains(&format!("nvml_total={cap}")), "{said}");
    for done in ["wrote", "removed", "overwrote"] {
        assert!(!said.lines().any(|line| line == done), "{said}");
    }
    let directory = containerd.home.path().join("regions").join(format!("{POD_UID}_main"));
    assert!(directory.join("region.cache").exists());
    let given = "gpuquota_nri_containers_total{result=\"given\"} 1";
    eventually("the container is not counted", || agent.metrics().contains(given));
    containerd.says(&["rm", &id]);
    eventually("the files of the container do not go", || !directory.exists());
    // Another pod is left alone.
    let pod = containerd.pod("plain", &serde_json::json!({}));
    let id = containerd.create(&pod, "plain", "ls /etc/gpuquota /run/gpuquota").expect("a container");
    assert!(containerd.output(&id).contains("No such file"), "it got something");
    Verdict::Kept
}

fn refusal() -> Verdict {
    let containerd = match Containerd::start() {
        Ok(containerd) => containerd,
        Err(skipped) => return skipped,
    };
    let _agent = containerd.agent(&[]);
    let pod = containerd.pod("web-0", &serde_json::json!({ "gpuquota.dev/memory": "2GB" }));
    let why = containerd.create(&pod, "main", "true").expect_err("it is refused");
    println!("{why}");
    for words in ["annotation gpuquota.dev/memory", "2GB", "Write a size such as 2GiB"] {
        assert!(why.contains(words), "{why}");
    }
    Verdict::Kept
}

fn audit() -> Verdict {
    let containerd = match Containerd::start() {
        Ok(containerd) => containerd,
        Err(skipped) => return skipped,
    };
    let pod = containerd.pod("web-0", &annotations());
    let bare = containerd.create(&pod, "bare", "exec sleep 1000").expect("a container");
    containerd.says(&["start", &bare]);
    let agent = containerd.agent(&[]);
    let told = "gpuquota_nri_without_quota{namespace=\"team\",pod=\"web-0\",container=\"bare\"} 1";
    eventually("the container is not found", || agent.metrics().contains(told));
    let held = containerd.create(&pod, "held", "exec sleep 1000").expect("a container");
    containerd.says(&["start", &held]);
    assert_eq!(containerd.state(&bare), "CONTAINER_RUNNING");
    drop(agent);
    let _agent = containerd.agent(&["--nri-unprotected=stop"]);
    eventually("the container is not stopped", || containerd.state(&bare) == "CONTAINER_EXITED");
    assert_eq!(containerd.state(&held), "CONTAINER_RUNNING");
    Verdict::Kept
}

fn restart() -> Verdict {
    let mut containerd = match Containerd::start() {
        Ok(containerd) => containerd,
        Err(skipped) => return skipped,
    };
    let agent = containerd.agent(&[]);
    containerd.down();
    eventually("the agent notices nothing", || agent.metrics().contains("gpuquota_nri_connected 0"));
    containerd.up();
    eventually("the agent does not come back", || agent.metrics().contains("gpuquota_nri_connected 1"));
    let pod = containerd.pod("web-0", &annotations());
    let id = containerd.create(&pod, "main", "cat /etc/gpuquota/limits").expect("a container");
    assert!(containerd.output(&id).contains("memory = 2GiB"));
    Verdict::Kept
}
