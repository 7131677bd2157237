//! Other libraries in place of ours, built elsewhere: how each is told its limits, and what its containers have of their own.

use std::path::{Path, PathBuf};

use gpuquota_promises::{Machine, Scratch, Setting, mount_namespace, own_etc, try_exports, words_after};

/// The variables of HAMi-core, and of libraries modelled on it.
const HAMI: &str = "CUDA_DEVICE_SM_LIMIT={cores} CUDA_DEVICE_MEMORY_LIMIT={memory}g CUDA_DEVICE_MEMORY_SHARED_CACHE={region} \
                    CUDA_REDIRECT={library} GPU_CORE_UTILIZATION_POLICY=force LIBCUDA_LOG_LEVEL=0";

/// The variables of vgpu-manager's library where no node manager has written its configuration.
const VGPU_MANAGER: &str =
    "CUDA_CORE_LIMIT={cores} CUDA_MEM_LIMIT={memory}g NVIDIA_VISIBLE_DEVICES={uuid} LOGGER_LEVEL=0";

/// The limits of a container; `None` sets none.
#[derive(Clone, Copy, Default)]
pub struct Limits {
    /// Percent of the device's time.
    pub cores: Option<u32>,
    /// GiB.
    pub memory: Option<u32>,
}

/// A library that is not ours.
pub struct Peer {
    /// The name in tables.
    pub name: String,
    library: PathBuf,
    /// `NAME=VALUE` words, in which a container's figures replace the names in braces. A word that needs a limit which is not
    /// set is left out.
    variables: String,
    /// The folder of /etc into which it writes its configuration.
    own_folder: Option<&'static str>,
    /// Why a table's reader should not trust its rows.
    pub warning: Option<String>,
}

impl Peer {
    /// From `NAME=LIBRARY` or `LIBRARY`. The name chooses the variables.
    pub fn named(word: &str) -> Result<Self, String> {
        let (name, path) = match word.split_once('=') {
            Some((name, path)) if !name.is_empty() && !name.contains('/') => (name.to_owned(), path),
            _ => (stem(word), word),
        };
        let library = Path::new(path).canonicalize().map_err(|why| format!("the peer {path}: {why}"))?;
        let exports = try_exports(&library).map_err(|why| format!("the peer {path}: {why}"))?;
        let lacks = ["cuLaunchKernel", "cuMemAlloc_v2"].into_iter().find(|symbol| !exports.contains(*symbol));
        let warning = lacks.map(|symbol| {
            format!("{name} does not export {symbol}: programs that are linked to the driver pass it by. Is it built as its makers do?")
        });
        let is_vgpu_manager = name.starts_with("vgpu-manager");
        Ok(Self {
            name,
            library,
            variables: if is_vgpu_manager { VGPU_MANAGER } else { HAMI }.to_owned(),
            own_folder: is_vgpu_manager.then_some("vgpu-manager"),
            warning,
        })
    }

    /// Replaces the variables that its name has chosen.
    pub fn with_variables(self, variables: String) -> Self {
        Self { variables, ..self }
    }

    /// Why it cannot keep several containers of one device apart, if so.
    pub fn cannot_share(&self) -> Option<&'static str> {
        self.own_folder.map(|_| "needs its node manager")
    }

    /// A container on a machine, with its files in `home`; or why there is none.
    pub fn container<'m>(
        &self,
        machine: &'m Machine,
        limits: Limits,
        home: &Scratch,
    ) -> Result<Setting<'m>, String> {
        let truth = machine.truth();
        let figure = |limit: Option<u32>| limit.map(|limit| limit.to_string());
        let places = [
            ("{cores}", figure(limits.cores)),
            ("{memory}", figure(limits.memory)),
            ("{region}", Some(home.path().join("peer.cache").display().to_string())),
            ("{library}", Some(self.library.display().to_string())),
            ("{uuid}", Some(truth.uuid().to_owned())),
        ];
        let mut setting = machine.bare().preloading(self.library.clone(), true);
        for (name, value) in self.variables.split_whitespace().filter_map(|word| word.split_once('=')) {
            let filled = places.iter().try_fold(value.to_owned(), |value, (place, figure)| {
                if value.contains(place) { Some(value.replace(place, figure.as_ref()?)) } else { Some(value) }
            });
            if let Some(value) = filled {
                setting = setting.with(name, value);
            }
        }
        let Some(folder) = self.own_folder else { return Ok(setting) };
        let options = mount_namespace().ok_or("this machine lets nobody here make a mount namespace")?;
        let kept = home.path().join(folder);
        std::fs::create_dir_all(kept.join("config")).map_err(|why| format!("{}: {why}", kept.display()))?;
        let mount = format!("mkdir -p /etc/{folder}; mount --bind {} /etc/{folder}", kept.display());
        Ok(setting.behind(words_after(options, &format!("{}; {mount}", own_etc(home)))))
    }
}

fn stem(path: &str) -> String {
    Path::new(path).file_stem().map_or_else(|| path.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// A library that enforces limits.
#[derive(Clone, Copy)]
pub enum Library<'p> {
    /// None at all.
    None,
    /// Ours.
    Ours,
    /// Another one.
    Peer(&'p Peer),
}

impl<'p> Library<'p> {
    /// None, ours, and all peers.
    pub fn all(peers: &'p [Peer]) -> Vec<Self> {
        [Self::None, Self::Ours].into_iter().chain(peers.iter().map(Self::Peer)).collect()
    }

    /// The name in tables.
    pub fn name(&self) -> &'p str {
        match self {
            Self::None => "without",
            Self::Ours => "gpuquota",
            Self::Peer(peer) => &peer.name,
        }
    }

    /// A container on a machine, with a peer's files in `home`; or why there is none.
    pub fn container<'m>(
        &self,
        machine: &'m Machine,
        limits: Limits,
        home: &Scratch,
    ) -> Result<Setting<'m>, String> {
        match self {
            Self::None => Ok(machine.bare()),
            Self::Ours => {
                let quota = limits
                    .memory
                    .into_iter()
                    .fold(machine.quota(), |quota, gib| quota.memory(format!("{gib}GiB")));
                Ok(limits.cores.into_iter().fold(quota, Setting::cores))
            }
            Self::Peer(peer) => peer.container(machine, limits, home),
        }
    }
}

/// Reads `--peer` and `--peer-env` from a command line: whether `flag` was one of them. The variables are the last peer's.
pub fn option(peers: &mut Vec<Peer>, flag: &str, value: Option<String>) -> Result<bool, String> {
    let value = || value.ok_or_else(|| format!("{flag} wants a value"));
    match flag {
        "--peer" => peers.push(Peer::named(&value()?)?),
        "--peer-env" => {
            let peer = peers.pop().ok_or("--peer-env comes behind the --peer that it is for")?;
            peers.push(peer.with_variables(value()?));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The figure of every round of a library; or why it has none.
pub type Side<T> = Result<Vec<T>, String>;

/// Some rounds of one measurement, in each of them every side once, so that a slow moment hits all. A side that has failed is
/// not tried again.
pub fn in_turn<T, E: ToString>(
    rounds: usize,
    sides: &[&Result<Setting<'_>, String>],
    measure: impl Fn(&Setting<'_>) -> Result<T, E>,
) -> Vec<Side<T>> {
    let mut all: Vec<Side<T>> = sides.iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..rounds {
        for (side, figures) in sides.iter().zip(&mut all) {
            let Ok(done) = figures else { continue };
            let one = side.as_ref().map_err(Clone::clone);
            match one.and_then(|setting| measure(setting).map_err(|why| why.to_string())) {
                Ok(figure) => done.push(figure),
                Err(why) => *figures = Err(why),
            }
        }
    }
    all
}
