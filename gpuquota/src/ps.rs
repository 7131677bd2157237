//! `gpuquota ps`: who is at the node's devices, whose container that is, and whether its quota counts it.

use crate::agent::card::look;
use crate::agent::identity::{Naming, Sources};
use crate::error::Error;
use crate::regions::{Index, harmless};
use crate::tools::node::Seat;
use crate::tools::output;
use crate::tools::source::{Source, Where};
use crate::words;
use std::process::ExitCode;

/// Show the processes at the node's devices, their containers, and which of them no quota counts.
#[derive(clap::Args)]
pub struct Ps {
    /// One JSON object per process and line.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: Where,

    #[command(flatten)]
    sources: Sources,
}

impl Ps {
    /// Shows them.
    pub fn run(self) -> Result<ExitCode, Error> {
        let seats = match self.of_agent()? {
            Some(seats) => seats,
            None => self.own()?,
        };
        output::write(&if self.json { output::lines(&seats) } else { people(&seats) })
    }

    /// By the node's agent, if it answers and knows them.
    fn of_agent(&self) -> Result<Option<Vec<Seat>>, Error> {
        if self.sources != Sources::default() {
            return Ok(None);
        }
        let Some(agent) = self.place.agent()? else { return Ok(None) };
        let node = Source::Agent(agent).look()?;
        Ok(node.processes.filter(|_| !node.cards.is_empty()))
    }

    fn own(&self) -> Result<Vec<Seat>, Error> {
        let names = Naming::start(&self.sources)?;
        names.settle();
        let view = look(&names, Index::once(self.place.places()).0).map_err(|error| {
            Error::Asked(format!("the cards of this node do not tell their processes: {error}"))
        })?;
        let seat = |seated| serde_json::to_value(seated).and_then(serde_json::from_value);
        let seats: Result<_, _> = view.seated.iter().map(seat).collect();
        seats.map_err(|error| Error::Asked(error.to_string()))
    }
}

fn people(seats: &[Seat]) -> String {
    let header = ["device", "pid", "card", "books", "standing", "engine", "container", "command"];
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), words::bytes);
    let word = |word: &str| if word.is_empty() { "-".to_owned() } else { harmless(word) };
    let rows = seats.iter().map(|seat| {
        vec![
            harmless(&seat.uuid),
            seat.pid.to_string(),
            size(seat.card_bytes),
            size(seat.booked_bytes),
            word(&seat.standing),
            word(&seat.engine),
            word(&seat.names.full()),
            seat.command.escape_debug().to_string(),
        ]
    });
    words::columns(&std::iter::once(header.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>())
}
