//! `gpuquota snapshot`: the node at one moment, for a report or a program; or a picture of its last minutes.

mod past;
mod svg;

use super::node::{Container, Device, Node};
use super::output;
use super::source::{Source, Where, silent};
use crate::error::Error;
use past::Past;
use std::process::ExitCode;

/// Print the node at one moment: containers, devices, cards, processes and events.
///
/// With --svg, a picture of its last ten minutes, for a bug report.
#[derive(clap::Args)]
pub struct Snapshot {
    /// As JSON, as the agent tells it. The default.
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// The containers' devices as comma-separated values, with a line of names before them.
    #[arg(long)]
    csv: bool,

    /// A picture of the last ten minutes, which the agent keeps. Without an agent the node is looked at for six seconds.
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    svg: bool,

    #[command(flatten)]
    place: Where,
}

const COLUMNS: [&str; 20] = [
    "taken",
    "namespace",
    "pod",
    "container",
    "engine",
    "ended",
    "device_uuid",
    "device_index",
    "memory_limit",
    "memory_used",
    "memory_peak",
    "denied",
    "core_limit",
    "gpu_time_ns",
    "waited_ns",
    "waited_for_others_ns",
    "launches",
    "waits",
    "processes",
    "unprotected",
];

impl Snapshot {
    /// Prints it.
    pub fn run(self) -> Result<ExitCode, Error> {
        let mut source = self.place.open()?;
        if self.svg {
            return output::write(&picture(&mut source)?);
        }
        if self.csv {
            return output::write(&csv(&source.look()?));
        }
        output::write(&(source.raw()?.trim_end().to_owned() + "\n"))
    }
}

fn picture(source: &mut Source) -> Result<String, Error> {
    if let Source::Own(_) = source {
        eprintln!("gpuquota: no agent has kept the last minutes, so the node is looked at for some seconds");
    }
    let told = source.history()?;
    let past = Past::parse(&told).map_err(|why| match source {
        Source::Agent(client) => silent(client, &format!("its history is not understood: {why}")),
        Source::Own(_) => Error::Asked(why),
    })?;
    let node = source.look()?;
    let by = match source {
        Source::Agent(client) => format!("agent {}", client.address()),
        Source::Own(_) => "this command, because no agent has kept them".to_owned(),
    };
    Ok(svg::picture(&past, &node, &by))
}

fn csv(node: &Node) -> String {
    let mut text = COLUMNS.join(",") + "\r\n";
    for container in &node.containers {
        for device in &container.devices {
            let cells = row(node, container, device).map(|cell| quoted(&cell));
            text.push_str(&(cells.join(",") + "\r\n"));
        }
    }
    text
}

fn row(node: &Node, container: &Container, device: &Device) -> [String; 20] {
    let or_nothing = |value: Option<u64>| value.map_or_else(String::new, |value| value.to_string());
    let names = &container.names;
    let living = container.processes.iter().filter(|process| process.alive).count();
    let unprotected = container.unprotected.as_ref().and_then(|by| by.get(&device.uuid).copied());
    [
        node.taken.clone(),
        names.namespace.clone(),
        names.pod.clone(),
        names.container.clone(),
        container.engine.clone(),
        container.ended.to_string(),
        device.uuid.clone(),
        device.index.to_string(),
        or_nothing(device.memory_limit),
        device.used.to_string(),
        device.peak.to_string(),
        device.denied.to_string(),
        or_nothing(device.core_limit.map(u64::from)),
        or_nothing(device.gpu_time_ns),
        device.waited_ns.to_string(),
        device.lease.waited_ns.to_string(),
        device.launches.to_string(),
        device.waits.to_string(),
        living.to_string(),
        or_nothing(unprotected),
    ]
}

/// A cell as RFC 4180 has it. One that a spreadsheet would take for a formula gets a blank before it.
fn quoted(cell: &str) -> String {
    let cell = if cell.starts_with(['=', '+', '-', '@']) { format!(" {cell}") } else { cell.to_owned() };
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_break_out_of_its_cell() {
        let told = ["web-0", "a,b", "say \"hi\"", "=1+1", "a\nb", ""].map(quoted);
        assert_eq!(told, ["web-0", "\"a,b\"", "\"say \"\"hi\"\"\"", " =1+1", "\"a\nb\"", ""]);
    }
}
