//! The container image of the agent: built by podman, small, and it runs with no right and nothing that it may write.

use gpuquota_promises::{Scratch, Verdict, artifact, trials};
use std::path::Path;
use std::process::{Command, ExitCode, Output};

/// The image may be a few MiB large.
const MOST_BYTES: u64 = 16 << 20;

fn main() -> ExitCode {
    trials(&[("the_image_is_small_and_runs_without_any_right", image)])
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).trim().to_owned()
}

fn podman(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("podman").arg("--cgroup-manager=cgroupfs").args(arguments).output();
    let output = output.map_err(|why| format!("podman cannot be started: {why}"))?;
    if output.status.success() { Ok(text(&output)) } else { Err(text(&output)) }
}

/// The image, which goes with this value.
struct Image(String);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = podman(&["rmi", "--force", &self.0]);
    }
}

impl Image {
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let options = ["run", "--rm", "--runtime", "runc", "--network=host", "--ulimit", "nofile=1024:1024"];
        let rights = ["--ulimit", "nproc=1000:1000", "--read-only", "--cap-drop", "ALL"];
        podman(
            &[&options[..], &rights, &["--security-opt", "no-new-privileges", &self.0], arguments].concat(),
        )
    }
}

fn image() -> Verdict {
    for tool in ["podman", "runc"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return Verdict::Skipped(format!("{tool} is not here"));
        }
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project");
    let scratch = Scratch::new();
    let mut layout = Command::new(project.join("scripts/image"));
    layout.arg(artifact("gpuquota")).arg(artifact("libgpuquota.so")).arg(scratch.path());
    let laid_out = layout.output().expect("a shell");
    assert!(laid_out.status.success(), "{}", text(&laid_out));
    let name = format!("localhost/gpuquota-test-{}", std::process::id());
    let file = project.join("deploy/Containerfile").display().to_string();
    let folder = scratch.path().display().to_string();
    if let Err(why) = podman(&["build", "--quiet", "--tag", &name, "--file", &file, &folder]) {
        return Verdict::Skipped(format!("podman builds no image here: {why}"));
    }
    let image = Image(name);
    let size = podman(&["image", "inspect", &image.0, "--format", "{{.Size}}"]).expect("a size");
    let size: u64 = size.parse().expect("a number");
    assert!(size < MOST_BYTES, "{size} bytes");
    let version = match image.run(&["--version"]) {
        Ok(version) => version,
        Err(why) if !why.contains("gpuquota") => {
            return Verdict::Skipped(format!("podman starts no container here: {why}"));
        }
        Err(why) => panic!("{why}"),
    };
    assert!(version.starts_with("gpuquota "), "{version}");
    // The agent begins, and says what it lacks.
    let refused = image.run(&["agent", "--nri=nowhere"]).expect_err("refused");
    assert!(refused.contains("--nri: \"nowhere\" is neither"), "{refused}");
    Verdict::Kept
}
