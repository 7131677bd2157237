//! The file that sets the limits of this user's programs, as the library finds it (`src/container/source.rs`): the limits
//! file; where there is none, that of this person in limits.d; where there is none either, vgpu-manager's.

use gpuquota_quota::limits::{
    self, FilePath, LIMITS_FILE, LIMITS_FILE_BYTES, LIMITS_FOLDER, NoConfig, Person, VGPU_CONFIG,
    VGPU_CONFIG_BYTES, VGPU_CONFIG_READS, VGPU_LIBRARY, Words, vgpu_config,
};
use rustix::process::{getgid, getgroups, getuid};
use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The longest limits file.
const LONGEST: usize = LIMITS_FILE_BYTES - 1;

/// Which of them it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The limits file.
    File,
    /// That of this user; of this number, unless it may have chosen that itself.
    Person(Option<u32>),
    /// vgpu-manager's.
    VgpuManager,
}

/// One that is there.
pub struct LimitsFile {
    pub path: PathBuf,
    /// Its words, as a limits file has them.
    pub text: Vec<u8>,
    pub kind: Kind,
    system: PathBuf,
}

/// Why one that is there says nothing: programs have no GPU then.
pub struct Unread {
    pub path: PathBuf,
    pub why: String,
}

/// Finds it below a folder that stands for `/`.
pub fn find(system: &Path) -> Result<Option<LimitsFile>, Unread> {
    let found = |path: PathBuf, text, kind| LimitsFile { path, text, kind, system: system.to_owned() };
    let path = under(system, LIMITS_FILE);
    if let Some(text) = read(&path, LONGEST)? {
        return Ok(Some(found(path, text, Kind::File)));
    }
    if let Some((path, text, user)) = of_person(system)? {
        return Ok(Some(found(path, text, Kind::Person(user))));
    }
    let path = under(system, VGPU_CONFIG);
    let text = if is_there(&under(system, VGPU_LIBRARY)) { of_config(&path)? } else { None };
    Ok(text.map(|text| found(path, text, Kind::VgpuManager)))
}

impl LimitsFile {
    /// The region that it names.
    pub fn region(&self) -> Option<PathBuf> {
        let path = limits::read(&|_| None, Some(&self.text)).region?;
        let path = match self.kind {
            Kind::Person(user) => Person { user, groups: &[], cgroup: b"" }.region(&path)?,
            _ => path,
        };
        Some(below(&self.system, path.as_bytes()))
    }
}

fn under(system: &Path, path: &CStr) -> PathBuf {
    below(system, path.to_bytes())
}

fn below(system: &Path, path: &[u8]) -> PathBuf {
    let path = Path::new(OsStr::from_bytes(path));
    system.join(path.strip_prefix("/").unwrap_or(path))
}

/// A link that leads nowhere stands for a file that sets something.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// A file of at most so many bytes, if there is one. Whatever lies there, nothing waits for it.
fn read(path: &Path, longest: usize) -> Result<Option<Vec<u8>>, Unread> {
    let unread = |why: String| Unread { path: path.to_owned(), why };
    let all = || -> io::Result<Vec<u8>> {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
        let mut text = Vec::new();
        file.take(longest as u64 + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    match all() {
        Ok(text) if text.len() <= longest => Ok(Some(text)),
        Ok(_) => {
            let bytes = fs::metadata(path).map_or(0, |file| file.len());
            Err(unread(format!("it has {bytes} bytes; {longest} are read")))
        }
        Err(error) => {
            let is_absent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
            if is_absent && !is_there(path) { Ok(None) } else { Err(unread(error.to_string())) }
        }
    }
}

type OfPerson = (PathBuf, Vec<u8>, Option<u32>);

/// The first file of this user in limits.d. The folder belongs to root: where it does not seem so, this is a user namespace, in
/// which a user can have any number.
fn of_person(system: &Path) -> Result<Option<OfPerson>, Unread> {
    let folder = under(system, LIMITS_FOLDER);
    let Ok(stat) = fs::metadata(&folder) else { return Ok(None) };
    let user = (stat.uid() == 0).then(|| getuid().as_raw());
    let others = getgroups().unwrap_or_default();
    let groups: Vec<u32> = std::iter::once(getgid()).chain(others).map(|group| group.as_raw()).collect();
    let cgroup = fs::read("/proc/self/cgroup").unwrap_or_default();
    let mut found = Ok(None);
    let is_found = Person { user, groups: &groups, cgroup: &cgroup }.files(&mut |path: &FilePath| {
        let path = below(system, path.as_bytes());
        found = read(&path, LONGEST).map(|text| text.map(|text| (path, text, user)));
        !matches!(found, Ok(None))
    });
    if !is_found && user.is_none() {
        let why = "it has no file `default`, and this user may have chosen its own number".to_owned();
        return Err(Unread { path: folder, why });
    }
    found
}

/// vgpu-manager's file in the words of a limits file.
fn of_config(path: &Path) -> Result<Option<Vec<u8>>, Unread> {
    for _ in 0..VGPU_CONFIG_READS {
        let Some(mut config) = read(path, 4 * VGPU_CONFIG_BYTES)? else { return Ok(None) };
        config.truncate(VGPU_CONFIG_BYTES);
        let mut words = Words::new();
        match vgpu_config(&config, &mut words) {
            Ok(()) => return Ok(Some(words.as_bytes().to_vec())),
            Err(NoConfig::Unknown) => break,
            Err(NoConfig::BeingWritten) => std::thread::yield_now(),
        }
    }
    let why = "it is damaged, of a layout that is not known, or its writer does not finish".to_owned();
    Err(Unread { path: path.to_owned(), why })
}
