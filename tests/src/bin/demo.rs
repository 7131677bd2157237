//! `make demo`: two real CUDA programs, each under a quota, and the figures that tools show of them. It runs on the GPU of
//! this machine if there is one, else on a simulated H100, and says which.

#![forbid(unsafe_code)]

use std::process::Command;
use std::time::Duration;

use gpuquota_promises::{Agent, Machine, Outcome, Program, Scratch, artifact, program};

const FILL: &[&str] = &["--memory", "2GiB"];
const COMPUTE: &[&str] = &["--memory", "1GiB", "--cores", "30%"];
const WATCHED: Duration = Duration::from_secs(5);

fn main() {
    let real = Machine::real();
    match &real {
        Some(_) => println!("gpuquota on this machine's GPU\n"),
        None => println!("gpuquota on a simulated H100: no NVIDIA driver answers on this machine\n"),
    }
    let simulated = real.is_none();
    let machine = real.unwrap_or_else(|| Machine::new("H100"));
    // As on a node, the regions of two containers lie side by side.
    let node = Scratch::new();

    let filling = start(&machine, &node, "fill", FILL, &[]);
    let computing = start(&machine, &node, "kernels_13", COMPUTE, &["8"]);
    std::thread::sleep(Duration::from_secs(2));

    let got = simulated.then(|| machine.busy_percent(0, WATCHED));
    if !simulated {
        std::thread::sleep(WATCHED);
    }
    let picture = picture(&node);

    show("fill", FILL, &filling.finish());
    show("kernels_13", COMPUTE, &computing.finish());
    match got {
        Some(got) => {
            println!("    share of the GPU's time: asked 30%, got {got:.1}% by the device's own count\n")
        }
        None => println!("    share of the GPU's time: asked 30%; what it got is below\n"),
    }
    print!("{picture}");
}

fn region(node: &Scratch, name: &str) -> String {
    node.path().join(format!("{name}.cache")).display().to_string()
}

/// Starts a program under a quota of its own.
fn start(machine: &Machine, node: &Scratch, name: &str, options: &[&str], arguments: &[&str]) -> Program {
    let (path, region) = (program(name).display().to_string(), region(node, name));
    let head = ["run", "--region", &region];
    let all: Vec<_> = head.iter().chain(options).chain(&["--", &path]).chain(arguments).copied().collect();
    Program::start(machine.bare().command(artifact("gpuquota"), &all))
}

fn show(name: &str, options: &[&str], outcome: &Outcome) {
    println!("$ gpuquota run {} -- {name}", options.join(" "));
    outcome.out.lines().chain(outcome.stderr.lines()).for_each(|line| println!("    {line}"));
    if !outcome.status.success() {
        println!("    ended with {}", outcome.status);
    }
}

/// The output of `gpuquota inspect` and the agent's metrics for both while they run.
fn picture(node: &Scratch) -> String {
    let mut text = String::new();
    for name in ["fill", "kernels_13"] {
        let output = Command::new(artifact("gpuquota")).arg("inspect").arg(region(node, name)).output();
        let output = output.expect("gpuquota starts");
        text += &format!("$ gpuquota inspect {name}.cache\n");
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).lines().for_each(|line| text += &format!("    {line}\n"));
    }
    let agent = Agent::start(node.path());
    text += &format!("\n$ curl http://{}/metrics\n", agent.address());
    let metrics = agent.metrics();
    let samples = metrics.lines().filter(|line| line.starts_with("gpuquota_") && line.contains("device"));
    samples.take(12).for_each(|line| text += &format!("    {line}\n"));
    text
}
