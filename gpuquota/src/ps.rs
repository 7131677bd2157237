//! `gpuquota ps`: who is at the node's devices, whose container that is, and whether its quota counts it.

use crate::agent::card::{Seated, container, look};
use crate::agent::identity::{Naming, Sources};
use crate::error::Error;
use crate::regions::{Index, Places};
use crate::words;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Show the processes at the node's devices, their containers, and which of them no quota counts.
#[derive(clap::Args)]
pub struct Ps {
    /// One JSON object per process and line.
    #[arg(long)]
    json: bool,

    /// Look for regions in this directory instead of the known places. May be given several times.
    #[arg(long, value_name = "DIR")]
    root: Vec<PathBuf>,

    #[command(flatten)]
    sources: Sources,
}

impl Ps {
    /// Shows them.
    pub fn run(self) -> Result<ExitCode, Error> {
        let names = Naming::start(&self.sources)?;
        names.settle();
        let places = if self.root.is_empty() { Places::of_node() } else { Places::only(&self.root) };
        let view = look(&names, Index::once(places).0).map_err(|error| {
            Error::Asked(format!("the cards of this node do not tell their processes: {error}"))
        })?;
        let text = if self.json { json(&view.seated) } else { people(&view.seated) };
        match io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::system("write")(error)),
            _ => Ok(ExitCode::SUCCESS),
        }
    }
}

fn json(seated: &[Seated]) -> String {
    seated
        .iter()
        .map(|process| serde_json::to_string(process).expect("plain data has a JSON form") + "\n")
        .collect()
}

fn people(seated: &[Seated]) -> String {
    let header = ["device", "pid", "card", "books", "standing", "engine", "container", "command"];
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), words::bytes);
    let rows = seated.iter().map(|process| {
        let owner = container(&process.identity);
        vec![
            process.uuid.clone(),
            process.pid.to_string(),
            size(process.card_bytes),
            size(process.booked_bytes),
            process.standing.word().to_owned(),
            if process.identity.engine.is_empty() { "-" } else { process.identity.engine }.to_owned(),
            if owner.is_empty() { "-".to_owned() } else { owner },
            process.command.escape_debug().to_string(),
        ]
    });
    words::columns(&std::iter::once(header.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>())
}
