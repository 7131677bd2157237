//! Containers get their quota when the runtime makes them: the agent as a plugin of NRI.
//!
//! A pod asks by annotations ([`annotations`]). Its containers get the library, a limits file that they cannot write, and a region of
//! their own ([`crate::given`], [`adjust`]). What cannot be understood fails the container, since a container without its limits would have
//! the whole device. What was started while nobody looked is found when the agent comes back ([`audit`]).

mod adjust;
mod annotations;
mod audit;
mod board;
mod plugin;
pub mod quantity;

pub use audit::Policy;
pub use board::{Board, Event, Figures};

use super::card::Cards;
use super::identity::Sources;
use crate::changes::Disk;
use crate::error::Error;
use crate::given::{BY_ANNOTATIONS, Files, REGIONS};
use crate::library::INSTALLED;
use nri_plugin::{DEFAULT_SOCKET, Options, keep};
use plugin::Injector;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The plugin's place among others: late, so that it sees what they have done, and none sees what it replaces.
const INDEX: u8 = 90;

/// What is asked of the plugin.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The runtime's socket, if there is to be a plugin.
    pub socket: Option<PathBuf>,
    /// The library on the node and, by the same path, in containers.
    pub library: Option<PathBuf>,
    /// What to do about containers that ask for a quota and were started without it.
    pub unprotected: Policy,
}

impl Settings {
    /// The socket: `true` is the usual one, `false` none.
    pub fn socket(word: &str) -> Result<Option<PathBuf>, String> {
        match word {
            "true" => Ok(Some(DEFAULT_SOCKET.into())),
            "false" => Ok(None),
            path if Path::new(path).is_absolute() => Ok(Some(path.into())),
            other => Err(format!("{other:?} is neither true nor false nor an absolute path of a socket")),
        }
    }
}

/// Starts the plugin, if there is to be one. Regions lie in the first of `roots`.
pub fn start(
    settings: &Settings,
    roots: &[PathBuf],
    sources: &Sources,
    cards: Arc<Cards>,
) -> Result<Option<Arc<Board>>, Error> {
    let Some(socket) = settings.socket.clone() else { return Ok(None) };
    let library = settings.library.clone().unwrap_or_else(|| INSTALLED.into());
    let base = roots.first().cloned().unwrap_or_else(|| REGIONS.into());
    let files = Files::at(&base, BY_ANNOTATIONS, Disk::default())
        .map_err(Error::system(format!("keep limits in {}", base.display())))?;
    let board = Arc::new(Board::default());
    let policy = settings.unprotected;
    let plugin = Injector::new(files, library, policy, sources.clone(), cards, Arc::clone(&board));
    let options = Options { socket, ..Options::new("gpuquota", INDEX) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::system("start the NRI plugin"))?;
    let work = move || runtime.block_on(keep(Arc::new(plugin), &options));
    let thread = std::thread::Builder::new().name("nri".to_owned());
    thread.spawn(work).map_err(Error::system("start a thread"))?;
    Ok(Some(board))
}
