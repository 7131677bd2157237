//! Where the regions of a node are.

use std::path::{Path, PathBuf};

/// Where `gpuquota enforce` makes the regions of users.
pub const OF_USERS: &str = "/run/gpuquota";
/// Where it makes those that users without limits of their own have.
pub const OF_OTHERS: &str = "/run/gpuquota/others";

/// What a directory or file is to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Region files, and directories with one region file each.
    Tree,
    /// The same, all of it of one user.
    UserTree,
    /// Directories `gpuquota-<uid>` of that user, among others.
    Users,
    /// A container's directory.
    Container,
    /// A directory of which one file may be a region.
    File,
}

/// A place that is searched.
#[derive(Clone, Debug)]
pub struct Place {
    pub kind: Kind,
    pub path: PathBuf,
    /// Whether somebody asked for it: then it is told if it is not there.
    pub is_asked_for: bool,
}

/// Where to look, in order of trust.
#[derive(Clone, Debug)]
pub struct Places(pub Vec<Place>);

impl Places {
    /// These directories and no others.
    pub fn only(roots: &[PathBuf]) -> Self {
        let asked = |path: &PathBuf| Place { kind: Kind::Tree, path: path.clone(), is_asked_for: true };
        Self(roots.iter().map(asked).collect())
    }

    /// The places of our own launcher, HAMi, KAI, HAMi DRA and Volcano.
    pub fn of_node() -> Self {
        let trees = [
            "/usr/local/vgpu/containers",
            "/usr/local/vgpu/claims",
            "/usr/local/vgpu/vgpu/containers",
            OF_USERS,
        ];
        let user = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| Path::new(path).is_absolute());
        let user = user.map(|path| Path::new(&path).join("gpuquota"));
        let trusted = trees.into_iter().map(PathBuf::from).chain(user).map(|path| (Kind::Tree, path));
        let open_to_all = [
            (Kind::Tree, OF_OTHERS.into()),
            (Kind::Tree, "/tmp/vgpu/containers".into()),
            (Kind::Users, "/tmp".into()),
            (Kind::File, "/tmp/cudevshr.cache".into()),
        ];
        let places = trusted.chain(open_to_all);
        Self(places.map(|(kind, path)| Place { kind, path, is_asked_for: false }).collect())
    }
}
