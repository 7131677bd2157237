//! `gpuquota enforce`: a machine that several people share without containers. Each has a cap and a share of its own.
//!
//! Limits lie in /etc/gpuquota/limits.d, by user, group and cgroup, and /etc/ld.so.preload brings the library into every program.
//! A user's region lies in a folder of root's, so its user can neither remove nor replace it.
//!
//! [`people`]: names to numbers; [`rules`]: from what was asked to files.

mod people;
mod rules;

use crate::changes::{Changes, Content, Disk, Root, Wanted, tell};
use crate::error::Error;
use crate::library::{INSTALLED, PRELOAD};
use rules::{FOLDER, Files, HOME, OTHERS};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The name of this set of files.
pub const SET: &str = "enforce";

const TMPFILES: &str = "/etc/tmpfiles.d/gpuquota-enforce.conf";

/// Give each user, group or slice of this machine limits of its own.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct Enforce {
    /// What every user has for whom nothing else is said. Each has a region, so a cap, of its own.
    #[arg(long, value_name = "SIZE[-PERCENT]", group = "what")]
    each: Option<String>,

    /// What this user has. May be given several times.
    #[arg(long, value_name = "USER=SIZE[-PERCENT]", group = "what")]
    user: Vec<String>,

    /// What every member of this group has, each by itself. May be given several times.
    #[arg(long, value_name = "GROUP=SIZE[-PERCENT]", group = "what")]
    group: Vec<String>,

    /// What all processes of this systemd slice have together. May be given several times.
    #[arg(long, value_name = "NAME.slice=SIZE[-PERCENT]", group = "what")]
    slice: Vec<String>,

    /// What all processes of this cgroup have together, by its path in the kernel's tree. May be given several times.
    #[arg(long, value_name = "PATH=SIZE[-PERCENT]", group = "what")]
    cgroup: Vec<String>,

    /// A user without limits. May be given several times; root always is one.
    #[arg(long, value_name = "USER")]
    exempt: Vec<String>,

    /// Take it all back.
    #[arg(long, group = "what", conflicts_with_all = ["each", "user", "group", "slice", "cgroup", "exempt"])]
    undo: bool,

    /// The file system below this folder instead of this machine.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

impl Enforce {
    /// Does it.
    pub fn run(self) -> Result<ExitCode, Error> {
        let root = Root::at(&self.root)?;
        let disk = Disk::default();
        let changes = Changes::new(&root, &disk, SET);
        if self.undo {
            let told = changes.undo()?;
            tell(&told);
            println!(
                "{}",
                if told.is_empty() {
                    "Nothing was enforced."
                } else {
                    "Programs that start from now on have no limits; those that run keep theirs."
                }
            );
            return Ok(ExitCode::SUCCESS);
        }
        let library = library(&root)?;
        let files = self.files(&root)?;
        let wanted = |path: PathBuf, content| Wanted { path, content, origin: "gpuquota enforce".to_owned() };
        let text = |text: String| Content::File(text.into_bytes(), 0o644);
        let limits = files.limits.iter();
        let mut all: Vec<Wanted> =
            limits.map(|(name, limits)| wanted(Path::new(FOLDER).join(name), text(limits.clone()))).collect();
        all.push(wanted(TMPFILES.into(), text(files.tmpfiles())));
        // Last, so that no program has the library before its limits are there.
        all.push(wanted(PRELOAD.into(), Content::Line(library)));
        if root.is_this_machine() {
            regions(&files).map_err(Error::system(format!("make the regions in {HOME}")))?;
        }
        tell(&changes.apply(&all)?);
        println!(
            "Programs that start from now on have these limits. To take it back: gpuquota enforce --undo"
        );
        Ok(ExitCode::SUCCESS)
    }

    fn files(&self, root: &Root) -> Result<Files, Error> {
        let mut files = Files::default();
        files.exempt(0)?;
        for name in &self.exempt {
            files.exempt(people::user(root, name, "--exempt")?)?;
        }
        for text in &self.user {
            let (name, slice) = rules::rule(text, "--user")?;
            files.user(people::user(root, name, "--user")?, slice)?;
        }
        for text in &self.group {
            let (name, slice) = rules::rule(text, "--group")?;
            files.group(people::group(root, name, "--group")?, slice)?;
        }
        for text in &self.slice {
            let (name, slice) = rules::rule(text, "--slice")?;
            files.cgroup(&rules::slice_path(name)?, slice, "--slice")?;
        }
        for text in &self.cgroup {
            let (path, slice) = rules::rule(text, "--cgroup")?;
            files.cgroup(path, slice, "--cgroup")?;
        }
        if self.each.is_some() || !self.group.is_empty() {
            files.people(&people::everybody(root));
        }
        if let Some(text) = &self.each {
            files.each(crate::slice::Slice::parse(text, "--each")?)?;
        }
        Ok(files)
    }
}

/// The path for /etc/ld.so.preload: with the loader's `$LIB`, where the release's tree is, for programs of both classes. One that
/// does not load would be told of by every program of the machine, so it is tried first.
fn library(root: &Root) -> Result<String, Error> {
    let installed = root.real(Path::new(INSTALLED));
    if !installed.is_file() {
        return Err(Error::Asked(format!("{INSTALLED} is not there. Run gpuquota install first")));
    }
    let folder = Path::new(INSTALLED).parent().unwrap_or(Path::new("/"));
    let native = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    let name = Path::new(INSTALLED).file_name().unwrap_or_default();
    let has_tree = ["lib64", &native].iter().all(|below| root.real(&folder.join(below).join(name)).is_file());
    let line =
        if has_tree { format!("{}/$LIB/{}", folder.display(), name.display()) } else { INSTALLED.to_owned() };
    if root.is_this_machine() {
        let tried = Command::new("/bin/true").env("LD_PRELOAD", &line).output();
        let tried = tried.map_err(Error::system("try the library with /bin/true"))?;
        if !tried.status.success() || !tried.stderr.is_empty() {
            let said = String::from_utf8_lossy(&tried.stderr);
            let said = said.lines().next().unwrap_or("it ended badly").to_owned();
            return Err(Error::Asked(format!(
                "{line} cannot be preloaded into /bin/true: {said}. Run gpuquota install again with the library of this machine"
            )));
        }
    }
    Ok(line)
}

/// Makes the folders and files of the regions now; after the next boot systemd-tmpfiles makes them.
fn regions(files: &Files) -> io::Result<()> {
    for (path, mode) in [(HOME, 0o755), (OTHERS, 0o1777)] {
        match DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => fs::set_permissions(path, Permissions::from_mode(mode))?,
        }
    }
    for region in &files.regions {
        match OpenOptions::new().write(true).create_new(true).mode(region.mode).open(&region.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                chown(&region.path, Some(region.user), None)?;
                file.set_permissions(Permissions::from_mode(region.mode))?;
            }
        }
    }
    Ok(())
}
