//! A simulated machine, the programs on it with and without the quota, and the figures of its device.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::scratch::unique;
use crate::{Outcome, Program, Scratch, artifact, program};

/// A machine: a simulated one with a state of its own, which lives as long as this value, one with a driver that is not ours,
/// or the real one.
pub struct Machine {
    device: Device,
    /// The variables that put a program on the machine.
    environment: Vec<(OsString, OsString)>,
}

/// What knows what a machine's device did.
enum Device {
    /// The state of this name, by `cuda-sim`.
    Simulated(String),
    /// The memory file in this folder, by the program `truth` of the driver that keeps time.
    Timed(Scratch),
    /// Nobody.
    Silent,
}

impl Machine {
    /// A fresh machine of the kind that `cuda-sim run` takes, such as `H100`, `2xH100` or a machine file. Nothing takes time
    /// there but work and what its file says: what is promised to the instruction or to a fifth of a point is measured so.
    pub fn new(kind: &str) -> Self {
        Self::started(kind, &["--ideal"])
    }

    /// The same as a real one is: calls, contexts and switches between processes take what they take on a card. With these
    /// options of `cuda-sim run`.
    pub fn of_the_field(kind: &str, options: &[&str]) -> Self {
        Self::started(kind, options)
    }

    fn started(kind: &str, options: &[&str]) -> Self {
        let state = unique();
        let mut command = Command::new(artifact("cuda-sim"));
        command.args(["run", kind, "--state", &state]).args(options).args(["--", "env"]);
        // Programs start without the launcher, so that a kill reaches the program itself and nothing else.
        let environment = output(command)
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .filter(|(name, value)| name != "_" && std::env::var_os(name).as_ref() != Some(value))
            .collect();
        Self { device: Device::Simulated(state), environment }
    }

    /// A machine with a compiled driver of this kind (`programs/Makefile`) in place of the simulator's.
    pub fn with_driver(kind: &str) -> Self {
        let library = program(&format!("driver_{kind}/libcuda.so.1"));
        let folder = library.parent().expect("a file lies in a folder").as_os_str().to_owned();
        Self { device: Device::Silent, environment: vec![("LD_LIBRARY_PATH".into(), folder)] }
    }

    /// A fresh machine with the driver that keeps time (`drivers/timed.h`), and these settings of it.
    pub fn timed(settings: &[(&str, &str)]) -> Self {
        let mut machine = Self::with_driver("timed");
        let folder = Scratch::new();
        machine.environment.push(("TIMED_DEVICE".into(), folder.path().join("device").into()));
        machine.environment.extend(settings.iter().map(|(name, value)| (name.into(), value.into())));
        machine.device = Device::Timed(folder);
        machine
    }

    /// This machine, if a driver answers on it.
    pub fn real() -> Option<Self> {
        let here = Self { device: Device::Silent, environment: Vec::new() };
        let answer = here.bare().run("no_driver", &[]).success().value("init");
        (answer == 0).then_some(here)
    }

    /// Programs on this machine without the library.
    pub fn bare(&self) -> Setting<'_> {
        Setting { machine: self, home: None, preload: Vec::new(), variables: Vec::new(), before: Vec::new() }
    }

    /// Programs on this machine in one container: they share a quota, which has no limits yet.
    pub fn quota(&self) -> Setting<'_> {
        let home = Scratch::new();
        let region = region_in(home.path());
        Setting {
            machine: self,
            home: Some(home),
            preload: vec![artifact("libgpuquota.so")],
            variables: Vec::new(),
            before: Vec::new(),
        }
        .with("GPUQUOTA_REGION", region)
    }

    /// The device's own figures now.
    pub fn truth(&self) -> Truth {
        let before = Instant::now();
        let command = match &self.device {
            Device::Simulated(state) => {
                let mut command = Command::new(artifact("cuda-sim"));
                command.args(["truth", "--json", "--state", state]);
                command
            }
            Device::Timed(folder) => {
                let mut command = Command::new(program("driver_timed/truth"));
                command.env("TIMED_DEVICE", folder.path().join("device"));
                command
            }
            Device::Silent => panic!("this device does not tell"),
        };
        let figures = json(command);
        // The simulator reads its clock after its figures; the other device tells both of one instant.
        let is_late = matches!(self.device, Device::Simulated(_));
        Truth { figures, late: if is_late { before.elapsed() } else { Duration::ZERO } }
    }

    /// How busy a device is over the next moments, by its own clock, in percent.
    pub fn busy_percent(&self, device: usize, over: Duration) -> f64 {
        let busy = || {
            let truth = self.truth();
            (truth.clock_ns(), truth.of_device(device, "busy_ns"))
        };
        let (start, before) = busy();
        std::thread::sleep(over);
        let (end, after) = busy();
        100.0 * (after - before) as f64 / (end - start) as f64
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Device::Simulated(state) = &self.device {
            let mut command = Command::new(artifact("cuda-sim"));
            command.args(["forget", "--state", state]).output().ok();
        }
    }
}

/// The setting in which programs start on a machine.
pub struct Setting<'m> {
    machine: &'m Machine,
    home: Option<Scratch>,
    preload: Vec<PathBuf>,
    variables: Vec<(OsString, OsString)>,
    before: Vec<String>,
}

impl Setting<'_> {
    /// Sets an environment variable for the programs.
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The same container as other programs see it: the region, and none of the limits.
    pub fn without_limits(&self) -> Self {
        let region = self.variables.iter().filter(|(name, _)| name == "GPUQUOTA_REGION").cloned();
        let (machine, preload) = (self.machine, self.preload.clone());
        Self { machine, home: None, preload, variables: region.collect(), before: self.before.clone() }
    }

    /// Caps the memory of every device: a number of bytes, or one with a unit.
    pub fn memory(self, limit: impl ToString) -> Self {
        self.with("GPUQUOTA_MEMORY", limit.to_string())
    }

    /// The share of every device's time, in percent.
    pub fn cores(self, percent: u32) -> Self {
        self.with("GPUQUOTA_CORES", percent.to_string())
    }

    /// Preloads another library, `before` or after those of this setting.
    pub fn preloading(mut self, library: PathBuf, before: bool) -> Self {
        let place = if before { 0 } else { self.preload.len() };
        self.preload.insert(place, library);
        self
    }

    /// Starts every program by this command, which takes the program's command line as its last arguments.
    pub fn behind(mut self, command: Vec<String>) -> Self {
        self.before = command;
        self
    }

    /// The region that the programs under this quota share.
    pub fn region(&self) -> PathBuf {
        region_in(self.home())
    }

    /// The region's folder.
    pub fn home(&self) -> &Path {
        self.folder().expect("only a quota has a region")
    }

    /// The same, if it is a quota.
    pub fn folder(&self) -> Option<&Path> {
        self.home.as_ref().map(Scratch::path)
    }

    /// Starts a test program.
    pub fn start(&self, name: &str, arguments: &[&str]) -> Program {
        Program::start(self.command(program(name), arguments))
    }

    /// Runs a test program to its end.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Outcome {
        self.start(name, arguments).finish()
    }

    /// Runs any command to its end.
    pub fn run_command(&self, command: &str, arguments: &[&str]) -> Outcome {
        Program::start(self.command(command, arguments)).finish()
    }

    /// The command that runs a program on the machine. Its command line has the whole setting, so a test may put other
    /// commands in front. Only the program gets the preloaded libraries.
    pub fn command(&self, program: impl Into<OsString>, arguments: &[&str]) -> Command {
        let mut words = self.before.iter().map(String::as_str).chain(["env"]);
        let mut command = Command::new(words.next().expect("at least env"));
        command.args(words);
        for (name, value) in self.machine.environment.iter().chain(&self.variables) {
            command.arg(join(name, "=", value));
        }
        if !self.preload.is_empty() {
            let all: Vec<_> = self.preload.iter().map(|library| library.as_os_str()).collect();
            command.arg(join("LD_PRELOAD".as_ref(), "=", &all.join(":".as_ref())));
        }
        command.arg(program.into()).args(arguments);
        command
    }

    /// `gpuquota limit` with these options, on this quota's region.
    pub fn limit(&self, options: &[&str]) -> Outcome {
        let mut command = Command::new(artifact("gpuquota"));
        command.arg("limit").arg(self.region()).args(options);
        Program::start(command).finish()
    }

    /// The output of `gpuquota inspect --json` on this quota's region.
    pub fn inspect(&self) -> Value {
        let mut command = Command::new(artifact("gpuquota"));
        command.arg("inspect").arg(self.region()).arg("--json");
        json(command)
    }
}

/// The simulated device's own figures, independent of the library's books.
pub struct Truth {
    figures: Value,
    late: Duration,
}

impl Truth {
    /// A number of device 0, by its name in the JSON of `cuda-sim truth`.
    #[track_caller]
    pub fn device(&self, key: &str) -> i64 {
        self.of_device(0, key)
    }

    /// The same for any device.
    #[track_caller]
    pub fn of_device(&self, device: usize, key: &str) -> i64 {
        number(&self.figures["devices"][device], key)
    }

    /// The UUID of device 0.
    pub fn uuid(&self) -> &str {
        self.figures["devices"][0]["uuid"].as_str().expect("the device tells its UUID")
    }

    /// How long kernels of these processes, dead ones included, have occupied device 0, in nanoseconds.
    pub fn busy_ns_of(&self, pids: &[i64]) -> i64 {
        self.busy_ns_on(0, pids)
    }

    /// The same for any device.
    pub fn busy_ns_on(&self, device: usize, pids: &[i64]) -> i64 {
        let processes = self.figures["devices"][device]["processes"].as_array().into_iter().flatten();
        let theirs = processes.filter(|process| pids.iter().any(|pid| process["pid"] == *pid));
        theirs.map(|process| number(process, "busy_ns")).sum()
    }

    /// The device's clock at the time of the query, in nanoseconds.
    pub fn clock_ns(&self) -> i64 {
        number(&self.figures, "clock_ns")
    }

    /// By how much the clock may have been read later than the figures, at most.
    pub fn late(&self) -> Duration {
        self.late
    }
}

/// The region in a container's folder. Its name is unique, because the node's agent identifies containers by it.
fn region_in(home: &Path) -> PathBuf {
    home.join(home.file_name().expect("it is no root")).with_extension("cache")
}

#[track_caller]
fn number(object: &Value, key: &str) -> i64 {
    object[key].as_i64().unwrap_or_else(|| panic!("no number {key} in {object}"))
}

fn json(command: Command) -> Value {
    let text = output(command);
    serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}:\n{text}"))
}

/// The output of a command, which must succeed.
fn output(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{error}", output.status);
    text
}

fn join(a: &std::ffi::OsStr, between: &str, b: &std::ffi::OsStr) -> OsString {
    let mut all = a.to_owned();
    all.push(between);
    all.push(b);
    all
}
