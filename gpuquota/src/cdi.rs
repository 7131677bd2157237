//! `gpuquota cdi`: slices as CDI devices, for Podman, Docker and CRI-O without any engine.
//!
//! A device brings the library, an ld.so.preload that names it, and a read-only limits file, which also names the region: in a
//! small tmpfs of the container's own, so that each container has its own cap.
//!
//! [`spec`] has the words of a specification.

pub mod spec;

use crate::changes::{Changes, Content, Disk, Root, Wanted, tell};
use crate::error::Error;
use crate::library::{self, INSTALLED, PRELOAD};
use crate::slice::Slice;
use spec::{Device, Edits, Mount, Spec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The name of this set of files.
pub const SET: &str = "cdi";
/// The kind of our devices.
const KIND: &str = "gpuquota.dev/gpu";
/// The version of the format that has all that is written here.
const VERSION: &str = "0.5.0";
/// The variables have numbers from 0 to 15.
const MOST_GPUS: usize = 16;
/// Where runtimes look.
const OUTPUT: &str = "/etc/cdi/gpuquota.json";
/// Where the files lie that are mounted.
const SOURCES: &str = "/var/lib/gpuquota/cdi";
/// The container's own tmpfs and the region in it.
const HOME: &str = "/run/gpuquota";

/// Slices of a GPU as CDI devices.
#[derive(clap::Args)]
pub struct Cdi {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write a specification, and the files that its devices mount.
    Generate(Generate),
    /// Check a specification and the files that it names.
    Validate(Validate),
    /// Remove what generate wrote.
    Remove(Remove),
}

#[derive(clap::Args)]
struct Generate {
    /// A slice: a device of this name that limits every GPU of the container, such as 2GiB-30. May be given several times.
    #[arg(long, value_name = "SIZE[-PERCENT]")]
    slice: Vec<String>,

    /// The same for one GPU alone, by its UUID. Several such devices can be given to one container.
    #[arg(long, value_name = "UUID=SIZE[-PERCENT]")]
    gpu: Vec<String>,

    /// The specification's file.
    #[arg(long, value_name = "FILE", default_value = OUTPUT)]
    output: PathBuf,

    /// The library on the node.
    #[arg(long, value_name = "FILE", default_value = INSTALLED)]
    library: PathBuf,

    /// The file system below this folder instead of this machine.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(clap::Args)]
struct Validate {
    /// The specification's file.
    #[arg(value_name = "FILE", default_value = OUTPUT)]
    file: PathBuf,
}

#[derive(clap::Args)]
struct Remove {
    /// The file system below this folder instead of this machine.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

impl Cdi {
    /// Does what was asked.
    pub fn run(self) -> Result<ExitCode, Error> {
        match self.command {
            Command::Generate(generate) => generate.run(),
            Command::Validate(validate) => validate.run(),
            Command::Remove(remove) => {
                let root = Root::at(&remove.root)?;
                tell(&Changes::new(&root, &Disk::default(), SET).undo()?);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Generate {
    fn run(self) -> Result<ExitCode, Error> {
        let root = Root::at(&self.root)?;
        let on_disk = root.real(&self.library);
        if !self.library.is_absolute() || !on_disk.is_file() {
            return Err(Error::Asked(format!(
                "--library {}: it is not there. Run gpuquota install first, or name the library as the node sees it",
                self.library.display()
            )));
        }
        library::read(&on_disk, &root)?;
        let slices = self.slice.iter().map(|text| Slice::parse(text, "--slice"));
        let slices: Vec<Slice> = slices.collect::<Result<_, _>>()?;
        let gpus: Vec<(String, Slice)> =
            self.gpu.iter().map(|text| one_gpu(text)).collect::<Result<_, _>>()?;
        if slices.is_empty() && gpus.is_empty() {
            return Err(Error::Asked(
                "no slice is named, so there would be no device. Write --slice 2GiB-30".to_owned(),
            ));
        }
        let file = |path: PathBuf, text: String| Wanted {
            path,
            content: Content::File(text.into_bytes(), 0o644),
            origin: "gpuquota cdi generate".to_owned(),
        };
        let preload = Path::new(SOURCES).join("ld.so.preload");
        let mut all = vec![file(preload.clone(), format!("{}\n", self.library.display()))];
        let mut devices = BTreeMap::new();
        for slice in slices {
            let source = Path::new(SOURCES).join(format!("limits-{}", slice.name()));
            all.push(file(source.clone(), format!("{}region = {HOME}/quota.cache\n", slice.limits())));
            let mounts = vec![Mount::read_only(&source, Path::new(library::limits_file()))];
            devices.insert(slice.name(), Edits { mounts, ..Edits::default() });
        }
        let mut uuids: Vec<String> = gpus.iter().map(|(uuid, _)| uuid.clone()).collect();
        uuids.sort();
        uuids.dedup();
        if uuids.len() > MOST_GPUS {
            let why =
                format!("--gpu names {} GPUs, and one container can be told of {MOST_GPUS}", uuids.len());
            return Err(Error::Asked(format!("{why}. Write a second specification for the others")));
        }
        for (uuid, slice) in gpus {
            let number = uuids.iter().position(|known| *known == uuid).unwrap_or(0);
            devices.insert(format!("{uuid}.{}", slice.name()), for_one(number, slice));
        }
        let mut mounts = vec![
            Mount::read_only(&self.library, &self.library),
            Mount::read_only(&preload, Path::new(PRELOAD)),
        ];
        mounts.push(Mount::tmpfs(Path::new(HOME)));
        let map = (!uuids.is_empty()).then(|| format!("MANAGER_VISIBLE_DEVICES={}", uuids.join(",")));
        let spec = Spec {
            cdi_version: VERSION.to_owned(),
            kind: KIND.to_owned(),
            annotations: BTreeMap::new(),
            devices: devices.into_iter().map(|(name, edits)| Device::new(name, edits)).collect(),
            container_edits: Edits {
                env: [format!("GPUQUOTA_REGION={HOME}/quota.cache")].into_iter().chain(map).collect(),
                mounts,
                ..Edits::default()
            },
        };
        spec.check("gpuquota cdi generate")?;
        all.push(file(self.output.clone(), spec.json()));
        tell(&Changes::new(&root, &Disk::default(), SET).apply(&all)?);
        for device in &spec.devices {
            println!("--device {KIND}={}", device.name());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `UUID=SLICE`.
fn one_gpu(text: &str) -> Result<(String, Slice), Error> {
    let refused = |why: &str| {
        Error::Asked(format!(
            "--gpu {text:?}: {why}. Write GPU-<UUID>=2GiB-30, the UUID as nvidia-smi -L prints it"
        ))
    };
    let (uuid, slice) = text.split_once('=').ok_or_else(|| refused("there is no = in it"))?;
    let is_uuid = (uuid.starts_with("GPU-") || uuid.starts_with("MIG-"))
        && uuid.len() > 4
        && uuid.len() < 48
        && uuid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_uuid {
        return Err(refused("before the = is no UUID of a GPU"));
    }
    Ok((uuid.to_owned(), Slice::parse(slice, "--gpu")?))
}

/// A limit of one GPU, in vgpu-manager's variables: their names have a number in them, which a list of all devices explains. So
/// a container can have several such devices, and none of their variables replaces another's.
fn for_one(number: usize, slice: Slice) -> Edits {
    let memory = slice.memory.map(|bytes| format!("CUDA_MEM_LIMIT_{number}={bytes}"));
    let cores = slice.cores.map(|cores| format!("CUDA_CORE_LIMIT_{number}={cores}"));
    Edits { env: memory.into_iter().chain(cores).collect(), ..Edits::default() }
}

impl Validate {
    fn run(self) -> Result<ExitCode, Error> {
        let origin = self.file.display().to_string();
        let spec = Spec::read(&self.file)?;
        spec.check(&origin)?;
        spec.check_sources(&origin)?;
        println!("{origin}: {} devices of kind {}", spec.devices.len(), spec.kind);
        Ok(ExitCode::SUCCESS)
    }
}
