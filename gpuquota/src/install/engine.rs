//! Where each engine looks for the library on the node.

use std::path::{Path, PathBuf};

/// An engine that brings the library into containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// HAMi's device plugin, and HAMi's DRA driver.
    Hami,
    /// Volcano's vgpu device plugin.
    Volcano,
    /// KAI Scheduler with kai-resource-isolator.
    Kai,
    /// Koordinator's koordlet.
    Koordinator,
    /// vgpu-manager.
    VgpuManager,
    /// No engine: `gpuquota run`, `gpuquota enforce`, `gpuquota cdi`, or mounts of your own.
    Standalone,
}

/// The sets of files, by engine: installing for one does not take back another's.
pub const SETS: [(Engine, &str); 6] = [
    (Engine::Hami, "install-hami"),
    (Engine::Volcano, "install-volcano"),
    (Engine::Kai, "install-kai"),
    (Engine::Koordinator, "install-koordinator"),
    (Engine::VgpuManager, "install-vgpu-manager"),
    (Engine::Standalone, "install-standalone"),
];

/// The name of an engine's set.
pub fn set(engine: Engine) -> &'static str {
    SETS.iter().find(|(known, _)| *known == engine).map_or("install", |(_, name)| name)
}

/// Where an engine looks.
#[derive(Debug)]
pub struct Layout {
    /// Its folder on the node.
    pub folder: &'static str,
    /// The library's name there.
    pub library: &'static str,
    /// Whether `LIBRARY.VERSION` is taken before `LIBRARY`.
    pub is_versioned: bool,
    /// The preload file in that folder, and the line in it: the path inside a container.
    pub preload: Option<(&'static str, &'static str)>,
    /// Whose device plugin puts its own library back when it starts.
    pub restored_by: Option<&'static str>,
}

const VGPU: &str = "/usr/local/vgpu/libvgpu.so";

impl Engine {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hami => "hami",
            Self::Volcano => "volcano",
            Self::Kai => "kai",
            Self::Koordinator => "koordinator",
            Self::VgpuManager => "vgpu-manager",
            Self::Standalone => "standalone",
        }
    }

    /// Where it looks.
    pub const fn layout(self) -> Layout {
        let vgpu = Layout {
            folder: "/usr/local/vgpu",
            library: "libvgpu.so",
            is_versioned: false,
            preload: Some(("ld.so.preload", VGPU)),
            restored_by: None,
        };
        match self {
            Self::Hami => Layout { is_versioned: true, restored_by: Some("HAMi"), ..vgpu },
            Self::Volcano => Layout { restored_by: Some("Volcano"), ..vgpu },
            Self::Kai => vgpu,
            // It sets LD_PRELOAD.
            Self::Koordinator => Layout { preload: None, ..vgpu },
            Self::VgpuManager => Layout {
                folder: "/etc/vgpu-manager",
                library: "libvgpu-control.so",
                is_versioned: true,
                preload: None,
                restored_by: None,
            },
            Self::Standalone => Layout {
                folder: "/usr/local/lib/gpuquota",
                library: "libgpuquota.so",
                is_versioned: false,
                preload: None,
                restored_by: None,
            },
        }
    }
}

impl Layout {
    /// What the operator should know.
    pub fn note(&self) -> String {
        let again = self.restored_by.map(|engine| {
            format!(
                " {engine}'s device plugin puts its own library back when it starts: run this again then, or put the library into its image."
            )
        });
        format!(
            "Containers that start from now on get it; those that run keep the one they have.{}",
            again.unwrap_or_default()
        )
    }

    /// The names in `folder` (as it is on the disk) that the engine would take: the versioned ones that are there, and the
    /// plain one.
    pub fn libraries(&self, folder: &Path) -> Vec<PathBuf> {
        let prefix = format!("{}.", self.library);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut versioned: Vec<String> =
            names.filter(|name| self.is_versioned && name.starts_with(&prefix)).collect();
        versioned.sort();
        versioned.push(self.library.to_owned());
        versioned.into_iter().map(PathBuf::from).collect()
    }
}
