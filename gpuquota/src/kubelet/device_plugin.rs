//! `gpuquota device-plugin`: units of memory and percents of time of each card as resources that every Kubernetes schedules.
//!
//! The kubelet allocates each resource by itself and does not say for whom. So a container's memory and its share may come from two
//! cards. The plugin prefers the card of what was allocated just before, and before a container is started it asks the kubelet
//! (PodResources) what that container has in all: what does not belong together is refused, and what does makes one limits file.
//!
//! - [`units`]: names of units, and which ones it should be; [`resource`]: one resource, as the kubelet calls it;
//!   [`books`]: what the resources know together; [`holder`]: what a container has by PodResources.

mod books;
mod holder;
mod resource;
mod units;

use super::beside::{self, PLUGIN};
use super::cards::{self, Piece};
use super::common::Common;
use crate::error::Error;
use crate::given::BY_UNITS;
use books::Books;
use gpuquota_quota::limits::own_size;
use kubelet_plugin::api::device_plugin::ListAndWatchResponse;
use kubelet_plugin::{Place, keep_device_plugin};
use prost::Message;
use resource::{Resource, devices};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use units::{Kind, Placement, Units};

/// Bytes of a list of devices that a kubelet takes: 4 MiB, less what stands around it.
const LONGEST_LIST: usize = (4 << 20) - 1024;
const MIB: u64 = 1 << 20;

/// Offer units of each card's memory and time to the kubelet, as a device plugin.
///
/// A container asks for gpuquota.dev/memory (in units of --unit) and, if it likes, gpuquota.dev/cores (percent).
#[derive(clap::Args)]
pub struct DevicePlugin {
    #[command(flatten)]
    common: Common,

    /// How much memory one unit of gpuquota.dev/memory is.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    unit: String,

    /// Which card a container gets: the fullest that has room (pack), or the emptiest (spread).
    #[arg(long, value_enum, default_value_t)]
    placement: Placement,

    /// Offer HAMi's names instead: nvidia.com/gpu, nvidia.com/gpumem (MiB) and nvidia.com/gpucores (percent).
    #[arg(long)]
    hami_names: bool,

    /// With --hami-names: how many MiB one nvidia.com/gpumem is. A kubelet takes a list of 4 MiB, which is two cards of
    /// 80 GiB in units of 1 MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1, requires = "hami_names", value_parser = clap::value_parser!(u64).range(1..))]
    hami_memory_factor: u64,

    /// With --hami-names: how many containers one card is for.
    #[arg(long, value_name = "COUNT", default_value_t = 10, requires = "hami_names", value_parser = clap::value_parser!(u64).range(1..=1000))]
    hami_split: u64,

    /// The kubelet's PodResources socket. Without it: pod-resources/kubelet.sock in its directory.
    #[arg(long, value_name = "SOCKET")]
    pod_resources: Option<PathBuf>,
}

impl DevicePlugin {
    /// The resources: name, name of the socket, units.
    fn resources(&self) -> Result<Vec<(&'static str, String, Units)>, Error> {
        let units = |kind, size, is_short| Units { kind, size, is_short };
        let all = match self.hami_names {
            true => vec![
                ("nvidia.com/gpumem", units(Kind::Memory, self.hami_memory_factor * MIB, true)),
                ("nvidia.com/gpucores", units(Kind::Cores, 1, true)),
                ("nvidia.com/gpu", units(Kind::Seat, self.hami_split, true)),
            ],
            false => {
                let size = own_size(self.unit.as_bytes()).map_err(|why| {
                    Error::Asked(format!(
                        "--unit {:?}: {}. Write a size such as 1GiB",
                        self.unit,
                        why.words()
                    ))
                })?;
                if size < MIB {
                    return Err(Error::Asked(format!("--unit {:?}: write 1MiB or more", self.unit)));
                }
                vec![
                    ("gpuquota.dev/memory", units(Kind::Memory, size, false)),
                    ("gpuquota.dev/cores", units(Kind::Cores, 1, false)),
                ]
            }
        };
        let socket = |name: &str| format!("{PLUGIN}{}.sock", name.replace('/', "-"));
        Ok(all.into_iter().map(|(name, units)| (name, socket(name), units)).collect())
    }

    /// Offers until SIGTERM or SIGINT.
    pub fn run(self) -> Result<ExitCode, Error> {
        let resources = self.resources()?;
        self.common.begin(PLUGIN)?;
        let pieces = cards::watch(self.common.whole.clone())?;
        let kubelet = &self.common.kubelet;
        let pod_resources =
            self.pod_resources.clone().unwrap_or_else(|| kubelet.join("pod-resources/kubelet.sock"));
        let directory = kubelet.join("device-plugins");
        let files = self.common.files(BY_UNITS)?;
        let kinds = resources.iter().map(|(name, _, units)| (*name, units.clone())).collect();
        let books = Arc::new(Books::new(
            self.common.clone(),
            files,
            kinds,
            pieces.clone(),
            self.placement,
            pod_resources,
        ));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Error::system("start"))?.block_on(async {
            let mut keeping = tokio::task::JoinSet::new();
            let (told, mut wrong) = tokio::sync::mpsc::channel(1);
            for (name, socket, units) in resources {
                let (sender, list) = watch::channel(Vec::new());
                let place = Place { directory: directory.clone(), socket, resource: name.to_owned() };
                let plugin = Arc::new(Resource::new(name, units.clone(), Arc::clone(&books), list));
                let (mut pieces, told) = (pieces.clone(), told.clone());
                keeping.spawn(async move {
                    pieces.mark_changed();
                    while pieces.changed().await.is_ok() {
                        let all = pieces.borrow_and_update().clone();
                        if let Err(error) = show(name, &units, &all, &sender) {
                            let _ = told.send(error).await;
                        }
                    }
                });
                keeping.spawn(async move { keep_device_plugin(plugin, &place).await });
            }
            keeping.spawn(async move { books.clean_for_ever().await });
            let kubelet = self.common.kubelet.clone();
            keeping.spawn(async move { beside::watch(&kubelet, PLUGIN).await });
            let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
            let [mut end, mut interrupt] = match signals {
                [Ok(end), Ok(interrupt)] => [end, interrupt],
                [Err(error), _] | [_, Err(error)] => return Err(Error::system("take signals")(error)),
            };
            tokio::select! {
                _ = end.recv() => Ok(ExitCode::SUCCESS),
                _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
                Some(error) = wrong.recv() => Err(error),
            }
        })
    }
}

/// Tells the kubelet the units of these cards.
fn show(
    name: &str,
    units: &Units,
    pieces: &[Piece],
    sender: &watch::Sender<Vec<kubelet_plugin::api::device_plugin::Device>>,
) -> Result<(), Error> {
    if let Some((one, other)) = units.twins(pieces) {
        return Err(Error::Asked(format!(
            "{} and {} have the same short name, so their units of {name} would too. Leave --hami-names out",
            one.uuid, other.uuid
        )));
    }
    let list = ListAndWatchResponse { devices: devices(units, pieces) };
    let bytes = list.encoded_len();
    if bytes > LONGEST_LIST {
        let times = bytes.div_ceil(LONGEST_LIST) as u64;
        let (flag, value) = match name {
            "nvidia.com/gpumem" => ("--hami-memory-factor", (units.size / MIB * times).to_string()),
            _ => ("--unit", format!("{}MiB", units.size / MIB * times)),
        };
        return Err(Error::Asked(format!(
            "{name} of this node is {} units, a list of {bytes} bytes, and a kubelet takes 4 MiB. Make a unit larger: {flag} {value}",
            list.devices.len()
        )));
    }
    sender.send_replace(list.devices);
    Ok(())
}
