//! `gpuquota events`: what has happened in the node's containers and at its cards, and what happens.

pub mod fields;

use super::messages;
use super::name;
use super::node::{Event, Names, Node};
use super::output;
use super::source::{Source, Where, silent};
use crate::error::Error;
use crate::regions::harmless;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

/// How often the regions are read where no agent tells of them.
const LOOK: Duration = Duration::from_secs(1);

/// Show what has happened: refusals, limits that changed, processes that no limit holds, lost cards.
#[derive(clap::Args)]
pub struct Events {
    /// Of one container alone.
    container: Option<String>,

    /// Go on, and show what happens, until interrupted.
    #[arg(long, short)]
    follow: bool,

    /// As JSON, one object a line, as the agent tells it, and the event's code.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: Where,
}

impl Events {
    /// Shows them.
    pub fn run(self) -> Result<ExitCode, Error> {
        let mut source = self.place.open()?;
        let node = source.look()?;
        let of = match &self.container {
            Some(name) => Some(name::find(&node, name)?.names.clone()),
            None => None,
        };
        let mut shown = self.show(&node.events, of.as_ref());
        let mut last = node.events.last().map(|event| event.id.clone());
        if !self.follow || shown.is_break() {
            return Ok(ExitCode::SUCCESS);
        }
        if let Source::Agent(client) = &source {
            let each = |id: &str, data: &str| match serde_json::from_str::<Event>(data) {
                Ok(event) => self.show(&[Event { id: id.to_owned(), ..event }], of.as_ref()),
                // A later agent may tell what is no event.
                Err(_) => ControlFlow::Continue(()),
            };
            let followed = client.follow("/events", last.as_deref(), each);
            return followed.map(|()| ExitCode::SUCCESS).map_err(|why| silent(client, &why));
        }
        while shown.is_continue() {
            sleep(LOOK);
            let Node { events, .. } = source.look()?;
            let behind = events.iter().rposition(|event| Some(&event.id) == last.as_ref());
            let new = &events[behind.map_or(0, |at| at + 1)..];
            last = events.last().map(|event| event.id.clone()).or(last);
            shown = self.show(new, of.as_ref());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Shows those of the container. Breaks once nobody reads any more.
    fn show(&self, events: &[Event], of: Option<&Names>) -> ControlFlow<()> {
        let wanted = events.iter().filter(|event| of.is_none_or(|names| *names == event.names));
        let text: String = wanted.map(|event| if self.json { json(event) } else { people(event) }).collect();
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

fn json(event: &Event) -> String {
    let mut told = serde_json::to_value(event).unwrap_or_default();
    if let Some(fields) = told.as_object_mut() {
        fields.insert("code".to_owned(), messages::of_event(&event.event).code.into());
    }
    output::json(&told)
}

/// One line.
fn people(event: &Event) -> String {
    let code = messages::of_event(&event.event).code;
    let owner = event.names.full();
    let place = event.device_uuid.as_deref().filter(|_| owner.is_empty()).unwrap_or(&owner);
    let who = if event.pid == 0 { String::new() } else { format!(" process {}", event.pid) };
    let line = format!("{} {code} {place}{who} {} {}", event.time, event.event, fields::told(event));
    harmless(line.trim_end()).replace('\n', " ") + "\n"
}
