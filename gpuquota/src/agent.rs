//! `gpuquota agent`: the node's regions, served as metrics, JSON and events; and leases for containers that share a device.
//!
//! One thread serves; others give leases, watch the card, and ask who containers are. The node is searched by one of them at a
//! time, for those who ask at most once a second however many they are. Requests have no body, small heads and little time.

mod alone;
pub mod cap;
pub mod card;
pub mod config;
mod counters;
mod events;
mod history;
pub mod identity;
mod leases;
pub mod logs;
mod look;
mod looker;
mod metrics;
mod node;
pub mod nri;
mod picture;
mod server;
mod service;
mod snapshot;
mod who;

use crate::error::Error;
use crate::regions::{Index, Places};
pub use look::Look;
use node::Node;
use std::fs::read_dir;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;

/// Threads for looks and for what takes long to write.
const BLOCKING_THREADS: usize = 8;

/// Serve the quotas of this node: metrics, JSON, events and probes.
#[derive(clap::Args)]
pub struct Agent {
    #[command(flatten)]
    flags: config::Flags,

    /// Print every metric and what it means, as docs/metrics.md has it, and end.
    #[arg(long)]
    help_metrics: bool,
}

impl Agent {
    /// Serves until SIGTERM or SIGINT.
    pub fn run(self) -> Result<ExitCode, Error> {
        if self.help_metrics {
            let written = std::io::stdout().lock().write_all(metrics::page().as_bytes());
            return written.map(|()| ExitCode::SUCCESS).map_err(Error::system("write"));
        }
        let settings = self.flags.settle()?;
        logs::begin(&settings);
        for variable in &settings.unknown_variables {
            tracing::warn!("there is no setting {variable}");
        }
        for root in &settings.roots {
            match read_dir(root) {
                // What is not there may come.
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::Asked(format!("cannot read root {}: {error}", root.display())));
                }
                _ => {}
            }
        }
        let places =
            if settings.roots.is_empty() { Places::of_node() } else { Places::only(&settings.roots) };
        let _alone = alone::Alone::at(&settings.roots)?;
        let naming = Arc::new(identity::Naming::start(&settings.sources)?);
        let cards = Arc::new(card::Cards::default());
        let nri = nri::start(&settings.nri, &settings.roots, &settings.sources, Arc::clone(&cards))?;
        let who = who::Who::new(Arc::clone(&naming), Arc::clone(&cards), nri);
        service::raise_descriptors();
        let index = Arc::new(Index::new(places));
        let node = Arc::new(Node::new(&settings, Arc::clone(&index), who));
        let (watched, policy) = (Arc::clone(&index), settings.unprotected);
        // What it says comes behind what the settings have wrong.
        let begin = move || {
            let thread = std::thread::Builder::new().name("card".to_owned());
            let watch = move || cards.watch(&naming, || watched.regions(), policy);
            thread.spawn(watch).map(drop).map_err(Error::system("start a thread"))
        };
        let remembering = Arc::clone(&node);
        let thread = std::thread::Builder::new().name("history".to_owned());
        thread.spawn(move || remembering.remember()).map_err(Error::system("start a thread"))?;
        let turns = settings.turns;
        let thread = std::thread::Builder::new().name("guard".to_owned());
        thread.spawn(move || leases::watch(index, turns)).map_err(Error::system("start a thread"))?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(BLOCKING_THREADS).build();
        let runtime = runtime.map_err(Error::system("start"))?;
        let served = runtime.block_on(server::serve(&settings, node, begin));
        // A look that is under way concerns nobody any more.
        runtime.shutdown_background();
        served.map(|()| ExitCode::SUCCESS)
    }
}
