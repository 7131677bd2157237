//! `gpuquota dra`: a driver of dynamic resource allocation. The cards of the node are ResourceSlices, with memory and time as
//! capacity that claims consume; a claim that the scheduler has placed becomes a CDI device.
//!
//! - [`api`]: the API server; [`capacity`]: what may be asked of a card; [`slices`]: what the scheduler is told;
//! - [`claim`], [`parameters`], [`pods`]: what was asked; [`store`]: what is prepared, and survives a kill; [`node`]: all of it together.

mod api;
mod capacity;
mod claim;
mod node;
mod parameters;
mod pods;
mod slices;
mod store;

use super::beside::{self, DRIVER};
use super::cards;
use super::common::Common;
use crate::changes::Disk;
use crate::error::Error;
use crate::given::BY_CLAIMS;
use api::{Api, Server};
use capacity::Policies;
use kubelet_plugin::{DriverOptions, keep_driver};
use node::Node;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::signal::unix::{SignalKind, signal};

/// Offer the memory and time of each card to Kubernetes' scheduler, as a driver of dynamic resource allocation.
#[derive(clap::Args)]
pub struct Dra {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    policies: Policies,

    #[command(flatten)]
    server: Server,

    /// The name of this node in the cluster. Without it: the host's.
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,

    /// Where CDI specifications are written.
    #[arg(long, value_name = "DIR", default_value = "/var/run/cdi")]
    cdi: PathBuf,

    /// How often slices and claims are compared with the API server's.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    period: Duration,
}

impl Dra {
    /// Serves until SIGTERM or SIGINT.
    pub fn run(self) -> Result<ExitCode, Error> {
        let policies = self.policies.read()?;
        let api = Api::of(&self.server)?;
        self.common.begin(DRIVER)?;
        let directory = self.common.kubelet.join("plugins").join(DRIVER);
        let options = DriverOptions {
            name: DRIVER.to_owned(),
            registry: self.common.kubelet.join("plugins_registry"),
            directory: directory.clone(),
        };
        for path in [&options.registry, &directory] {
            let doing = format!("make {}", path.display());
            std::fs::create_dir_all(path).map_err(Error::system(doing))?;
        }
        let files = self.common.files(BY_CLAIMS)?;
        let checkpoint = directory.join("checkpoint.json");
        let store = Store::open(&checkpoint, &self.cdi, &self.common, files, Disk::default());
        let store = store.map_err(Error::system("take up what was prepared"))?;
        let pieces = cards::watch(self.common.whole.clone())?;
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let name = self.node_name.unwrap_or_else(host);
        let node = Arc::new(Node::new(name, api, self.common, policies, pieces, store));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Error::system("start"))?.block_on(async {
            let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
            let [mut end, mut interrupt] = match signals {
                [Ok(end), Ok(interrupt)] => [end, interrupt],
                [Err(error), _] | [_, Err(error)] => return Err(Error::system("take signals")(error)),
            };
            let cleaning = async {
                loop {
                    tokio::time::sleep(self.period).await;
                    node.clean().await;
                }
            };
            tokio::select! {
                () = keep_driver(Arc::clone(&node), &options) => {}
                () = async { node.keep_slices(self.period).await; std::future::pending().await } => {}
                () = cleaning => {}
                () = beside::watch(&node.common.kubelet, DRIVER) => {}
                _ = end.recv() => {}
                _ = interrupt.recv() => {}
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
