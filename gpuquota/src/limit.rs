//! `gpuquota limit`: another limit for programs that are running.
//!
//! The operator's limits stand in a row of the region. They outrank what processes bring by their environment, until they
//! are reset. What a limits file in the container says stays the ceiling: of both, the lower one holds (`docs/limits.md`).

use crate::agent::cap::{Backend, Cap, Driver, InRegion, Wanted, leaf_of};
use crate::asked;
use crate::environment::Environment;
use crate::error::Error;
use crate::regions::{self, Device};
use crate::tools::source::{self, Where};
use crate::words;
use gpuquota_quota::limits::{Limits, Selector};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Change the limits of a quota while programs run under it.
///
/// They hold from the next call on. Lowered below what is in use, nothing is taken away and nothing new is given.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["memory", "cores", "cores_request", "reset"])))]
pub struct Limit {
    /// A container, or a region file. Without it: the region that the environment names.
    ///
    /// A container is named as namespace/pod/container, by a part of that, or by a prefix that no other has. No agent is asked
    /// which one is meant, unless --agent names it.
    container: Option<OsString>,

    #[command(flatten)]
    place: Where,

    /// Device memory that all processes may hold together, such as 2GiB; with DEVICE= (an index as `gpuquota inspect`
    /// shows it, or a UUID) on that device alone. May be given several times.
    #[arg(long, value_name = "[DEVICE=]SIZE", allow_hyphen_values = true)]
    memory: Vec<String>,

    /// Share of GPU time, such as 30%, 100 for all of it; with DEVICE= of that device alone. May be given several times.
    #[arg(long, value_name = "[DEVICE=]PERCENT", allow_hyphen_values = true)]
    cores: Vec<String>,

    /// Of it, what is guaranteed beside other containers, where the node's agent runs; what they leave may then be had up
    /// to the share. As --cores.
    #[arg(long, value_name = "[DEVICE=]PERCENT", allow_hyphen_values = true)]
    cores_request: Vec<String>,

    /// Take back what was set by this command before: the limits that the processes brought hold again. With other options,
    /// those hold instead.
    #[arg(long)]
    reset: bool,

    /// Have the driver hold the memory limit too, by the container's cgroup: it binds every program, also one that does not
    /// load the library. Driver 615 or later, cgroups of version 2, no MIG; as root.
    #[arg(long)]
    driver: bool,

    /// The container's own cgroup, if its processes do not tell it. Implies --driver.
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
}

impl Limit {
    /// Changes the limits: all of them, or none if one cannot be understood.
    pub fn run(self) -> Result<ExitCode, Error> {
        let limits = asked::Asked::new(&self.memory, &self.cores, &self.cores_request, None).limits()?;
        let path = match &self.container {
            Some(name) => source::region(name, || self.place.open_for_writing())?,
            None => Environment::inherited().region()?.ok_or_else(|| {
                Error::Asked(
                    "which container? Name it; `gpuquota inspect` lists those of this node".to_owned(),
                )
            })?,
        };
        let refused = |why: String| Error::Asked(format!("region {}: {why}", regions::shown(&path)));
        let devices = regions::read_path(&path).map_err(|why| refused(why.to_string()))?.devices;
        check(&limits, &devices).map_err(refused)?;
        // The driver may refuse: then nothing has changed.
        let driver = self.driver(&path).map_err(refused)?;
        let region = InRegion::at(&path).map_err(refused)?;
        let backends = driver.iter().map(|driver| driver as &dyn Backend).chain([&region as &dyn Backend]);
        for backend in backends {
            for device in &devices {
                let set = backend.set(device, &wanted(&limits, device, self.reset));
                set.map_err(|why| refused(format!("{}: {why}", backend.name())))?;
            }
        }
        if let Some(driver) = driver {
            tell(&driver, &devices);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Limit {
    /// The driver's own limits, if they were asked for.
    fn driver(&self, region: &Path) -> Result<Option<Driver>, String> {
        match &self.cgroup {
            Some(cgroup) => Driver::of(cgroup).map(Some),
            None if self.driver => Driver::of(&leaf_of(region)?).map(Some),
            None => Ok(None),
        }
    }
}

/// Says what the driver holds, which no program inside can show.
fn tell(driver: &Driver, devices: &[Device]) {
    for device in devices {
        let cap = match driver.cap(device) {
            Ok(Cap::Unset) => "no limit".to_owned(),
            Ok(Cap::Of(bytes)) => words::bytes(bytes),
            Ok(Cap::Above(bytes, at)) => {
                format!(
                    "{}, set on {}, which programs inside are not shown",
                    words::bytes(bytes),
                    at.display()
                )
            }
            Err(why) => why,
        };
        println!("{} by the driver: {cap}", device.uuid);
    }
}

/// Every device that was named has to be there.
fn check(limits: &Limits, devices: &[Device]) -> Result<(), String> {
    let memory = limits.memory.iter().map(|entry| entry.selector);
    let time = limits.cores.iter().chain(limits.requests.iter()).map(|entry| entry.selector);
    let mut named = memory.chain(time);
    let there = |selector: &Selector| devices.iter().any(|device| matches(selector, device));
    match named.find(|selector| !there(selector)) {
        None => match devices.iter().find_map(|device| above_the_share(limits, device)) {
            Some((request, share)) => Err(format!("{request}% cannot be guaranteed of a share of {share}%")),
            None => Ok(()),
        },
        Some(_) if devices.is_empty() => {
            Err("no program has met a device yet: set the first limits with `gpuquota run`".to_owned())
        }
        Some(selector) => {
            let name = match selector {
                Selector::Uuid(uuid) => String::from_utf8_lossy(uuid.as_bytes()).into_owned(),
                Selector::Index(index) => index.to_string(),
                Selector::All => String::new(),
            };
            let there: Vec<_> =
                devices.iter().map(|device| format!("{} {}", device.index, device.uuid)).collect();
            Err(format!("it has no device {name}; there are: {}", there.join(", ")))
        }
    }
}

/// A request that is more than the share which then holds.
fn above_the_share(limits: &Limits, device: &Device) -> Option<(u32, u32)> {
    let (index, uuid) = (device.index as u32, device.uuid.as_bytes());
    let request = limits.request_for(index, uuid)?.into();
    let share = limits.cores_for(index, uuid).map(u32::from).or(device.core_limit)?;
    (request > share).then_some((request, share))
}

fn matches(selector: &Selector, device: &Device) -> bool {
    selector.matches(device.index as u32, device.uuid.as_bytes()).is_some()
}

/// What is wanted of a device.
fn wanted(limits: &Limits, device: &Device, reset: bool) -> Wanted {
    let (index, uuid) = (device.index as u32, device.uuid.as_bytes());
    Wanted {
        memory: limits.memory_for(index, uuid),
        cores: limits.cores_for(index, uuid),
        request: limits.request_for(index, uuid),
        reset,
    }
}
