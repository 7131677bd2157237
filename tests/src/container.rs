//! Mount namespaces, and containers of Podman without an image: what tests of mounts share.

use crate::{Outcome, Program, Scratch, Verdict, artifact, program};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The options of `unshare` that make a mount namespace here: for root plain ones, else a user namespace too.
pub fn mount_namespace() -> Option<&'static [&'static str]> {
    let works = |options: &[&str]| {
        Command::new("unshare").args(options).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output()
    };
    [&["--mount"][..], &["--mount", "--map-root-user"][..]]
        .into_iter()
        .find(|options| works(options).is_ok_and(|output| output.status.success()))
}

/// Why a test without one is skipped.
pub const NO_NAMESPACE: &str = "this machine lets nobody here make a mount namespace";

/// Runs a shell script in a mount namespace, then `command` in the same, to its end.
pub fn after(options: &[&str], script: &str, command: Command) -> Outcome {
    start_after(options, script, command).finish()
}

/// Starts that.
pub fn start_after(options: &[&str], script: &str, command: Command) -> Program {
    let words = words_after(options, script);
    let mut all = Command::new(&words[0]);
    all.args(&words[1..]).arg(command.get_program()).args(command.get_args());
    Program::start(all)
}

/// The command line that does it with the command behind it; it becomes the command, with the same pid.
pub fn words_after(options: &[&str], script: &str) -> Vec<String> {
    let script = format!("set -e; {script}; exec \"$@\"");
    ["unshare"].iter().chain(options).copied().chain(["sh", "-c", &script, "sh"]).map(str::to_owned).collect()
}

/// A script that puts a copy of /etc in its place, so that files can be added to it.
pub fn own_etc(scratch: &Scratch) -> String {
    let copy = scratch.path().join("etc");
    std::fs::create_dir_all(&copy).expect("the scratch folder is ours");
    let copy = copy.display();
    format!("mount -t tmpfs none {copy}; cp -a /etc/. {copy} 2>/dev/null || true; mount --rbind {copy} /etc")
}

/// Podman on this machine, with a root file system of the host's programs; or why there is none.
pub struct Podman {
    scratch: Scratch,
    root: PathBuf,
    options: &'static [&'static str],
}

impl Podman {
    /// The containers see the artifacts and the test programs under the host's paths, and nothing else of the host's but its
    /// programs and libraries.
    pub fn here() -> Result<Self, Verdict> {
        let options = mount_namespace().ok_or_else(|| Verdict::Skipped(NO_NAMESPACE.into()))?;
        for tool in ["podman", "runc"] {
            if Command::new(tool).arg("--version").output().is_err() {
                return Err(Verdict::Skipped(format!(
                    "{tool} is not installed; scripts/prerequisites container installs it"
                )));
            }
        }
        let scratch = Scratch::new();
        let root = root_file_system(&scratch);
        let podman = Self { scratch, root, options };
        let plain = podman.start("true", &[], &["/usr/bin/true"]).finish();
        if plain.status.success() {
            return Ok(podman);
        }
        Err(Verdict::Skipped(format!("podman starts no container here: {}", plain.stderr.trim())))
    }

    /// Starts a command in a container with `further` options of `podman run`. `script` runs before that, and sees an /etc of
    /// its own.
    pub fn start(&self, script: &str, further: &[&str], command: &[&str]) -> Program {
        let mut podman = Command::new("podman");
        podman
            .args(["--cgroup-manager=cgroupfs", "run", "--rm", "--runtime", "runc", "--network=host"])
            .args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]);
        for folder in host_folders() {
            podman.arg("--volume").arg(format!("{0}:{0}:ro", folder.display()));
        }
        podman.args(further).arg("--rootfs").arg(format!("{}:O", self.root.display())).args(command);
        let script = format!("{}; {script}", own_etc(&self.scratch));
        start_after(self.options, &script, podman)
    }

    /// Starts a test program there on a simulated H100 of the container's own.
    pub fn start_on_h100(&self, script: &str, further: &[&str], name: &str) -> Program {
        let (simulator, program) = (artifact("cuda-sim"), program(name));
        let command =
            [simulator.to_str().expect("text"), "run", "H100", "--", program.to_str().expect("text")];
        self.start(script, further, &command)
    }
}

/// What a container sees of the host.
fn host_folders() -> Vec<PathBuf> {
    let ours = [artifact("cuda-sim"), program("views")];
    let ours = ours.iter().map(|file| file.parent().expect("a file lies in a folder").to_path_buf());
    let usr = ["bin", "sbin", "lib", "lib64"].map(|name| Path::new("/usr").join(name));
    usr.into_iter().filter(|folder| folder.is_dir()).chain(ours).collect()
}

/// A root with the host's programs: enough for a C program.
fn root_file_system(scratch: &Scratch) -> PathBuf {
    let root = scratch.path().join("root");
    let plain =
        ["tmp", "proc", "sys", "dev", "etc", "run", "usr/local", "var/lib/gpuquota"].map(PathBuf::from);
    let host = host_folders().into_iter().map(|path| path.strip_prefix("/").expect("absolute").to_path_buf());
    for folder in plain.into_iter().chain(host) {
        std::fs::create_dir_all(root.join(folder)).expect("the scratch folder is ours");
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(Path::new("usr").join(link), root.join(link)).expect("a fresh folder");
    }
    root
}
