//! `gpuquota inspect`: what a region says, for people or as JSON, one object per region and line.

use crate::environment::Environment;
use crate::error::Error;
use crate::regions::{self, Device, EventKind, Index, Kinds, Places, Process, ProcessDevice, Region, shown};
use crate::tools::messages::{REGION, refused};
use crate::tools::output;
use crate::tools::source::{self, Where};
use crate::words;
use gpuquota_region::layout::POLICY_IDLE_ONLY;
use serde::Serialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show limits, use and processes of a quota.
#[derive(clap::Args)]
pub struct Inspect {
    /// A container, or a region file. Without it: the region that the environment names, else all of this node.
    ///
    /// A container is named as namespace/pod/container, by a part of that, or by a prefix that no other has.
    container: Option<OsString>,

    #[command(flatten)]
    place: Where,

    /// One JSON object per region and line; it holds the events too.
    #[arg(long)]
    json: bool,

    /// Show what has happened: refusals and the largest holders, wrong limits, bytes of dead processes.
    #[arg(long)]
    events: bool,
}

#[derive(Serialize)]
struct JsonLine<'r> {
    region: &'r str,
    #[serde(flatten)]
    content: &'r Region,
}

impl Inspect {
    /// Shows the regions.
    pub fn run(self) -> Result<ExitCode, Error> {
        let named = match &self.container {
            Some(name) => Some(source::region(name, || self.place.open())?),
            None if !self.place.root.is_empty() => None,
            None => Environment::inherited().region()?,
        };
        let regions = match named {
            Some(path) => {
                let region = regions::read_path(&path)
                    .map_err(|why| refused(&REGION, format!("region {}: {why}", shown(&path))))?;
                vec![(path, region)]
            }
            None => all_of_node(self.place.places()),
        };
        if regions.is_empty() {
            eprintln!("gpuquota: no region on this node");
        }
        let text: String = regions
            .iter()
            .map(|(path, region)| match (self.json, self.events) {
                (true, _) => json(path, region),
                (false, true) => history(path, region),
                (false, false) => people(path, region),
            })
            .collect();
        output::write(&text)
    }
}

fn all_of_node(places: Places) -> Vec<(PathBuf, Region)> {
    let (found, mishaps) = Index::once(places);
    for mishap in mishaps {
        eprintln!("gpuquota: {} is skipped: {}", shown(&mishap.path), mishap.word);
    }
    found.into_iter().map(|found| (found.path, found.region)).collect()
}

fn json(path: &Path, content: &Region) -> String {
    output::json(&JsonLine { region: &path.to_string_lossy(), content })
}

fn people(path: &Path, region: &Region) -> String {
    let mut rows = vec![vec![format!("region {}", shown(path))]];
    for device in &region.devices {
        rows.push(vec![format!("device {} {}", device.index, device.uuid)]);
        rows.push(memory(device));
        rows.push(time(device));
    }
    let mut text = words::columns(&rows);
    if !region.processes.is_empty() {
        let header =
            ["  pid", "host pid", "state", "device", "memory", "pending", "of which"].map(str::to_owned);
        let lines = region.processes.iter().flat_map(process);
        text.push_str(&words::columns(&std::iter::once(header.to_vec()).chain(lines).collect::<Vec<_>>()));
    }
    if region.fallbacks != 0 {
        text.push_str(&format!("  {} calls fell back to the driver's own answer\n", region.fallbacks));
    }
    text
}

fn history(path: &Path, region: &Region) -> String {
    let mut rows = vec![vec![format!("region {}", shown(path))]];
    rows.extend(region.events.iter().map(|event| {
        let device = event.device.map_or_else(String::new, |device| format!("device {device}"));
        vec![format!("  {}", event.time), format!("process {}", event.pid), device, happened(&event.kind)]
    }));
    words::columns(&rows)
}

fn happened(kind: &EventKind) -> String {
    let size = |bytes: &u64| words::bytes(*bytes);
    match kind {
        EventKind::Denied { requested, used, limit } => {
            format!("was refused {}: {} of {} in use", size(requested), size(used), size(limit))
        }
        EventKind::Holder { holder, bytes, kind } => {
            format!("  of which {} by process {holder}, most of it {kind}", size(bytes))
        }
        EventKind::Killed { killed, bytes, priority } => {
            format!(
                "needed room: process {killed} of priority {priority}, which held {}, was killed",
                size(bytes)
            )
        }
        EventKind::BadLimits { problems } => format!("found {problems} limits that cannot be understood"),
        EventKind::Reaped { bytes } => format!("gave back {} of dead processes", size(bytes)),
        EventKind::StartedAnew => {
            "started the file anew: nobody used it, and it was of another boot or version, or damaged"
                .to_owned()
        }
        EventKind::LimitDiffers { limit_of, asked, limit } => {
            let holds = limit_text(limit_of, *limit);
            format!("asked for {} {}: {holds} holds", name_of_limit(limit_of), limit_text(limit_of, *asked))
        }
        EventKind::LimitChanged { limit_of, before, limit } => {
            let [before, limit] = [before, limit].map(|value| limit_text(limit_of, *value));
            format!("changed the {} from {before} to {limit}", name_of_limit(limit_of))
        }
        EventKind::NameRestored { nameless: true, holder } => {
            format!("joined the region, which was removed, through process {holder}")
        }
        EventKind::NameRestored { .. } => {
            "restored the region's path, which was removed or replaced while processes held it".to_owned()
        }
        EventKind::TwoRegions { holder } => {
            format!("found another region of this path, held by process {holder}: there are two caps")
        }
        EventKind::Shared { user, .. } => {
            format!("shares the region with user {user} or another container, which made it")
        }
        EventKind::ContentsLost { anew, bytes } => {
            let who = if *anew {
                "made the file, which was truncated or overwritten, anew"
            } else {
                "found the file made anew"
            };
            format!("{who}, and put back {} that it holds", size(bytes))
        }
        EventKind::Unknown { code } => format!("event {code}, which a later version knows"),
    }
}

fn name_of_limit(field: &str) -> &'static str {
    match field {
        "memory_limit" => "limit",
        "physical_limit" => "limit of bytes on the device",
        "core_limit" => "share",
        "request_percent" => "guaranteed share",
        "policy" => "policy",
        _ => "limit of an unknown kind",
    }
}

fn limit_text(field: &str, value: u64) -> String {
    match (value, field) {
        (0, "policy") => "fixed-share".to_owned(),
        (bits, "policy") if bits & u64::from(POLICY_IDLE_ONLY) != 0 => "best-effort".to_owned(),
        (_, "policy") => "burst-share".to_owned(),
        (0, _) => "none".to_owned(),
        (bytes, "memory_limit" | "physical_limit") => words::bytes(bytes),
        (percent, _) => format!("{percent}%"),
    }
}

/// A limit in force, and where it comes from.
fn limit(device: &Device, field: &str, value: Option<u64>) -> String {
    let value = value.unwrap_or(0);
    let origin = device.origin(field, value).filter(|_| value != 0);
    format!(
        "{} {}{}",
        name_of_limit(field),
        limit_text(field, value),
        origin.map_or_else(String::new, |origin| format!(" (by {origin})"))
    )
}

/// How often requests were refused, and why.
fn denied(device: &Device) -> String {
    let by = device.denied_by.named().filter(|(_, count)| *count != 0);
    let by: Vec<String> = by.map(|(reason, count)| format!("{count} {reason}")).collect();
    if by.is_empty() {
        format!("denied {}", device.denied)
    } else {
        format!("denied {} ({})", device.denied, by.join(", "))
    }
}

fn memory(device: &Device) -> Vec<String> {
    let mut row = vec![
        "  memory".to_owned(),
        limit(device, "memory_limit", device.memory_limit),
        format!("used {}", words::bytes(device.used)),
        format!("peak {}", words::bytes(device.peak)),
        denied(device),
    ];
    if device.spilled != 0 || device.spills != 0 {
        row.push(format!(
            "on the host {}, {} allocations so far",
            words::bytes(device.spilled),
            device.spills
        ));
    }
    if device.physical_limit.is_some() {
        row.push(limit(device, "physical_limit", device.physical_limit));
    }
    if device.estimated_contexts != 0 {
        row.push(format!(
            "{} contexts are estimated at {} each",
            device.estimated_contexts,
            words::bytes(device.context_bytes)
        ));
    }
    if device.limit_conflicts != 0 {
        row.push(format!("{} times a process asked for another limit", device.limit_conflicts));
    }
    if device.would_deny != 0 {
        row.push(format!("would deny {}", device.would_deny));
    }
    row
}

fn time(device: &Device) -> Vec<String> {
    let mut row = vec![
        "  time".to_owned(),
        limit(device, "core_limit", device.core_limit.map(u64::from)),
        device.gpu_time_ns.map_or_else(
            || "use not measured".to_owned(),
            |used| format!("used {:.3} s", words::seconds(used)),
        ),
        format!("waited {:.3} s", words::seconds(device.waited_ns)),
        format!("launches {}, {} waited", device.launches, device.waits),
    ];
    if device.would_wait != 0 {
        row.push(format!("{} would wait", device.would_wait));
    }
    if let Some(percent) = device.lease.request_percent {
        row.push(limit(device, "request_percent", Some(percent.into())));
    }
    if device.lease.waited_ns != 0 || device.lease.held_ns != 0 {
        row.push(format!("waited for others {:.3} s", words::seconds(device.lease.waited_ns)));
        row.push(format!("had it while others waited {:.3} s", words::seconds(device.lease.held_ns)));
    }
    row
}

fn process(process: &Process) -> Vec<Vec<String>> {
    let head = [
        format!("  {}", process.pid),
        process.host_pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
        if process.alive { "alive" } else { "dead" }.to_owned(),
    ];
    if process.devices.is_empty() {
        return vec![head.to_vec()];
    }
    let line = |share: &ProcessDevice| {
        let pending = format!("{:.3} ms", words::seconds(share.pending_ns) * 1e3);
        let tail = [share.device.to_string(), words::bytes(share.bytes), pending, kinds(&share.kinds)];
        head.iter().cloned().chain(tail).collect()
    };
    process.devices.iter().map(line).collect()
}

/// What of a process's bytes it did not ask for by an allocation.
fn kinds(kinds: &Kinds) -> String {
    let some = kinds.named().skip(1).filter(|(_, bytes)| *bytes != 0);
    some.map(|(name, bytes)| format!("{name} {}", words::bytes(bytes))).collect::<Vec<_>>().join(", ")
}
