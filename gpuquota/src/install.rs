//! `gpuquota install`, `uninstall` and `status`: the library where an engine looks for it, and back.
//!
//! Nothing is started, stopped or drained: programs that run have the old file mapped and keep it.
//!
//! - [`engine`]: where each engine looks; [`mapped`]: which version living processes have; [`status`]: what is told of it all.

mod engine;
mod mapped;
mod status;

use engine::{Engine, SETS, set};
pub use status::Status;

use crate::changes::{Changes, Content, Disk, Outcome, Root, Wanted, tell};
use crate::error::Error;
use crate::library;
use crate::run::library::find;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the program is put.
const PROGRAM: &str = "/usr/local/bin/gpuquota";
/// Where the systemd unit of the agent is put, and its text.
const UNIT: &str = "/etc/systemd/system/gpuquota-agent.service";
const UNIT_TEXT: &str = include_str!("install/gpuquota-agent.service");
/// The names below its folder by which the loader's `$LIB` finds the library; those that the release has are put there too.
const TREE: [&str; 7] = [
    "lib",
    "lib64",
    "lib32",
    "libx32",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "lib/i386-linux-gnu",
];

/// Put the library where an engine looks for it.
#[derive(clap::Args)]
pub struct Install {
    /// Whose place it takes.
    #[arg(long, value_enum, default_value = "standalone")]
    engine: Engine,

    /// Install into the file system below this folder, such as an image's, instead of this machine.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// The library. Without it: the one beside this program.
    #[arg(long, value_name = "FILE")]
    library: Option<PathBuf>,

    /// The engine's folder on the node, where it is not the usual one. It is made if it is not there.
    #[arg(long, value_name = "DIR")]
    engine_dir: Option<PathBuf>,

    /// Also put this program and a systemd unit for its agent in place. The unit is not started.
    #[arg(long)]
    service: bool,
}

/// Take the library away again, and put back what was there.
#[derive(clap::Args)]
pub struct Uninstall {
    /// Only what was installed for this engine. Without it: for all.
    #[arg(long, value_enum)]
    engine: Option<Engine>,

    /// The file system below this folder instead of this machine.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

impl Install {
    /// Installs.
    pub fn run(self) -> Result<ExitCode, Error> {
        let root = Root::at(&self.root)?;
        let source = match &self.library {
            Some(path) => path.clone(),
            None => find()?,
        };
        let layout = self.engine.layout();
        let origin = format!("--engine {}", self.engine.name());
        let folder = self.folder(&root, layout.folder)?;
        let bytes = library::read(&source, &root)?;
        let wanted = |path: PathBuf, content| Wanted { path, content, origin: origin.clone() };
        let mut all: Vec<Wanted> = layout
            .libraries(&root.real(&folder.join("any")).with_file_name(""))
            .into_iter()
            .map(|name| wanted(folder.join(name), Content::File(bytes.clone(), 0o644)))
            .collect();
        if self.engine == Engine::Standalone {
            all.extend(
                tree(&source)
                    .into_iter()
                    .map(|(name, bytes)| wanted(folder.join(name), Content::File(bytes, 0o644))),
            );
        }
        if let Some((name, line)) = layout.preload {
            all.push(wanted(folder.join(name), Content::Line(line.to_owned())));
        }
        if self.service || self.engine == Engine::Standalone {
            let own = std::fs::read("/proc/self/exe").map_err(Error::system("read this program"))?;
            all.push(wanted(PROGRAM.into(), Content::File(own, 0o755)));
        }
        if self.service {
            all.push(wanted(UNIT.into(), Content::File(UNIT_TEXT.as_bytes().to_vec(), 0o644)));
        }
        let disk = Disk::default();
        let told = Changes::new(&root, &disk, set(self.engine)).apply(&all)?;
        tell(&told);
        if told.iter().any(|(_, outcome)| *outcome != Outcome::Unchanged) {
            println!("{}", layout.note());
            if self.service {
                println!("Start the agent: systemctl daemon-reload && systemctl enable --now gpuquota-agent");
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The engine's folder. On a machine where the engine has never run there is none, and a library in a place where nobody
    /// looks would be a quota that is none.
    fn folder(&self, root: &Root, usual: &str) -> Result<PathBuf, Error> {
        if let Some(folder) = &self.engine_dir {
            let refused = |why: &str| Err(Error::Asked(format!("--engine-dir {}: {why}", folder.display())));
            return match folder.is_absolute() {
                true if !folder.components().any(|part| part.as_os_str() == "..") => Ok(folder.clone()),
                true => refused("it goes up by ... Name the folder itself"),
                false => refused("it is no absolute path. Write it as the node sees it"),
            };
        }
        let folder = PathBuf::from(usual);
        let is_there = root.real(&folder.join("any")).parent().is_some_and(Path::is_dir);
        if is_there || self.engine == Engine::Standalone {
            return Ok(folder);
        }
        Err(Error::Asked(format!(
            "--engine {}: {usual} is not there, so this engine has not run on this machine. Start it first, or name its folder by --engine-dir",
            self.engine.name()
        )))
    }
}

/// The files by which the loader's `$LIB` finds the library, where they lie beside it as in the release.
fn tree(source: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (Some(folder), Some(name)) = (source.parent(), source.file_name()) else { return Vec::new() };
    let files = TREE.iter().map(|below| Path::new(below).join(name));
    files.filter_map(|below| Some((below.clone(), std::fs::read(folder.join(&below)).ok()?))).collect()
}

impl Uninstall {
    /// Takes it away.
    pub fn run(self) -> Result<ExitCode, Error> {
        let root = Root::at(&self.root)?;
        let disk = Disk::default();
        let standalone = self.engine.is_none_or(|engine| engine == Engine::Standalone);
        if standalone && Changes::new(&root, &disk, crate::enforce::SET).is_there()? {
            return Err(Error::Asked(
                "/etc/ld.so.preload names the library (gpuquota enforce). Run gpuquota enforce --undo first"
                    .to_owned(),
            ));
        }
        let mut told = Vec::new();
        for (engine, name) in SETS {
            if self.engine.is_none_or(|only| only == engine) {
                told.extend(Changes::new(&root, &disk, name).undo()?);
            }
        }
        tell(&told);
        if told.contains(&(UNIT.into(), Outcome::Removed)) {
            println!(
                "An agent that runs goes on until it is stopped: systemctl disable --now gpuquota-agent"
            );
        }
        if told.is_empty() {
            println!("Nothing is installed below {}.", self.root.display());
        }
        Ok(ExitCode::SUCCESS)
    }
}
