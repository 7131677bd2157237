//! What is installed where, and whether programs that run have another version.

use super::engine::SETS;
use super::mapped;
use crate::changes::{Changes, Disk, Root, State};
use crate::error::Error;
use crate::words;
use crate::{cdi, enforce};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

/// Digits of a SHA-256 that people read.
const SHORT: usize = 12;

/// Show what is installed where, and which version running programs have.
#[derive(clap::Args)]
pub struct Status {
    /// The file system below this folder instead of this machine.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,

    /// One JSON object.
    #[arg(long)]
    json: bool,

    /// Where the kernel tells what processes have mapped.
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    proc: PathBuf,
}

/// One installed path.
#[derive(serde::Serialize)]
struct Placed {
    engine: &'static str,
    path: PathBuf,
    sha256: Option<String>,
    state: &'static str,
}

/// One version that processes have mapped.
#[derive(serde::Serialize)]
struct Running {
    #[serde(flatten)]
    version: mapped::Version,
    is_installed: bool,
}

#[derive(serde::Serialize)]
struct All {
    installed: Vec<Placed>,
    running: Vec<Running>,
}

impl Status {
    /// Shows it.
    pub fn run(self) -> Result<ExitCode, Error> {
        let root = Root::at(&self.root)?;
        let disk = Disk::default();
        let mut installed = Vec::new();
        let sets = SETS.iter().map(|(engine, set)| (engine.name(), *set));
        for (by, set) in sets.chain([("cdi", cdi::SET), ("enforce", enforce::SET)]) {
            let changes = Changes::new(&root, &disk, set);
            for (path, sha256, now) in changes.placed()? {
                let state = match (&now, changes.holds(&path)?) {
                    (_, true) => "in place",
                    (State::Nothing, false) => "removed since",
                    (_, false) => "replaced since",
                };
                installed.push(Placed { engine: by, path, sha256, state });
            }
        }
        for (engine, _) in SETS {
            // A version that the engine brought since, and takes before ours.
            if let Some(folder) = installed.iter().find(|placed| placed.engine == engine.name()) {
                let folder = folder.path.parent().unwrap_or(&folder.path).to_path_buf();
                for library in engine.layout().libraries(&root.real(&folder.join("any")).with_file_name("")) {
                    let path = folder.join(library);
                    if installed.iter().all(|placed| placed.path != path) && root.real(&path).exists() {
                        let state = "not ours, and the engine takes it first: install again";
                        installed.push(Placed { engine: engine.name(), path, sha256: None, state });
                    }
                }
            }
        }
        let ours: BTreeSet<&String> = installed.iter().filter_map(|placed| placed.sha256.as_ref()).collect();
        let running: Vec<Running> = mapped::versions(&self.proc)
            .into_iter()
            .map(|version| Running {
                is_installed: version.sha256.as_ref().is_some_and(|sha256| ours.contains(sha256)),
                version,
            })
            .collect();
        let all = All { installed, running };
        if self.json {
            println!("{}", serde_json::to_string(&all).expect("plain data has a JSON form"));
        } else {
            print!("{}", people(&all));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn short(sha256: Option<&String>) -> String {
    sha256.map_or_else(|| "-".to_owned(), |sha256| sha256.chars().take(SHORT).collect())
}

fn people(all: &All) -> String {
    let mut text = String::new();
    if all.installed.is_empty() {
        text.push_str("Nothing is installed by gpuquota install.\n");
    } else {
        let header = ["engine", "version", "state", "path"].map(str::to_owned).to_vec();
        let row = |placed: &Placed| {
            let path = placed.path.display().to_string();
            vec![placed.engine.to_owned(), short(placed.sha256.as_ref()), placed.state.to_owned(), path]
        };
        text += &words::columns(
            &std::iter::once(header).chain(all.installed.iter().map(row)).collect::<Vec<_>>(),
        );
    }
    if all.running.is_empty() {
        text.push_str("No process has the library mapped that can be seen from here.\n");
        return text;
    }
    let header = ["processes", "version", "is", "path", "pids", "containers"].map(str::to_owned).to_vec();
    let row = |running: &Running| {
        let version = &running.version;
        let some = |all: &[String]| {
            let more = if all.len() > 6 { " ..." } else { "" };
            all.iter().take(6).cloned().collect::<Vec<_>>().join(" ") + more
        };
        let is = match (&version.sha256, running.is_installed) {
            (None, _) => "unknown",
            (_, true) => "as installed",
            (_, false) => "another",
        };
        let pids: Vec<String> = version.pids.iter().map(u32::to_string).collect();
        vec![
            version.pids.len().to_string(),
            short(version.sha256.as_ref()),
            is.to_owned(),
            version.path.to_string_lossy().escape_debug().to_string(),
            some(&pids),
            some(&version.containers),
        ]
    };
    text + &words::columns(&std::iter::once(header).chain(all.running.iter().map(row)).collect::<Vec<_>>())
}
