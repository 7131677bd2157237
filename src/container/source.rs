//! Which file sets this process's limits: the limits file; where there is none, that of this person in limits.d; where there
//! is none either, vgpu-manager's.

use gpuquota_quota::limits::{
    FilePath, LIMITS_FILE, LIMITS_FOLDER, NoConfig, Path, Person, VGPU_CONFIG, VGPU_CONFIG_BYTES,
    VGPU_CONFIG_READS, VGPU_LIBRARY, Words, vgpu_config,
};
use gpuquota_region::links;
use gpuquota_region::sys::{self, Descriptor, Errno};

/// What is opened here may be anything, and nothing waits for it.
const FLAGS: i32 = libc::O_RDONLY | libc::O_NOCTTY | libc::O_NONBLOCK;
/// So much of `/proc/self/cgroup` is read.
const CGROUP_BYTES: usize = 2048;
/// The real group and so many others, less one: a process with more of them is known by the real one alone.
const GROUPS: usize = 64;

/// A place of limits, for messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The limits file.
    File,
    /// The folder of limits by person.
    Folder,
    /// vgpu-manager's file.
    Config,
}

impl Place {
    /// Its name in a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "limits file /etc/gpuquota/limits",
            Self::Folder => "limits of users in /etc/gpuquota/limits.d",
            Self::Config => "vgpu-manager's file /etc/vgpu-manager/config/vgpu.config",
        }
    }
}

/// Why a file that sets limits could not be read.
#[derive(Clone, Copy)]
pub enum Unread {
    /// The system refused it.
    System(Errno),
    /// It is none.
    NoConfig,
    /// There is none for a process that may have chosen its own user.
    NoOne,
}

/// The file that sets this process's limits.
pub enum Source {
    /// There is none.
    Nothing,
    /// A limits file.
    File(Descriptor, Place),
    /// It cannot be read.
    Unread(Unread, Place),
}

/// Finds it.
pub fn find() -> Source {
    match open(LIMITS_FILE) {
        Ok(Some(file)) => return Source::File(file, Place::File),
        Err(error) => return Source::Unread(Unread::System(error), Place::File),
        Ok(None) => {}
    }
    match Descriptor::open(LIMITS_FOLDER, libc::O_PATH | libc::O_DIRECTORY, 0) {
        Ok(folder) => in_folder(&folder),
        Err(Errno(libc::ENOENT)) => Source::Nothing,
        Err(error) => Source::Unread(Unread::System(error), Place::Folder),
    }
}

/// A file, if there is one. A link that leads nowhere stands for a file that sets something.
fn open(path: &core::ffi::CStr) -> Result<Option<Descriptor>, Errno> {
    match Descriptor::open(path, FLAGS, 0) {
        Ok(file) => Ok(Some(file)),
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) if links::look(path).is_err() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cold]
fn in_folder(folder: &Descriptor) -> Source {
    with_person(folder, &mut |person| {
        let mut found = Source::Nothing;
        let is_found = person.files(&mut |path: &FilePath| {
            match open(path.as_c_str()) {
                Ok(None) => return false,
                Ok(Some(file)) => found = Source::File(file, Place::Folder),
                Err(error) => found = Source::Unread(Unread::System(error), Place::Folder),
            }
            true
        });
        if !is_found && person.user.is_none() {
            found = Source::Unread(Unread::NoOne, Place::Folder);
        }
        found
    })
}

/// A region's path from a file of that folder, for this person.
#[cold]
pub fn own_region(path: &Path) -> Option<Path> {
    let folder = Descriptor::open(LIMITS_FOLDER, libc::O_PATH | libc::O_DIRECTORY, 0).ok()?;
    with_person(&folder, &mut |person| person.region(path))
}

/// Calls `with` with who this process is. The folder belongs to root: where it does not seem so, this is a user namespace, in
/// which a user can have any number.
fn with_person<T>(folder: &Descriptor, with: &mut dyn FnMut(&Person<'_>) -> T) -> T {
    let mut groups = [0_u32; GROUPS];
    let mut cgroup = [0_u8; CGROUP_BYTES];
    let is_known = folder.stat().is_ok_and(|stat| stat.owner == 0);
    let person = Person {
        user: is_known.then(sys::real_user),
        groups: sys::groups(&mut groups),
        cgroup: sys::read_file(c"/proc/self/cgroup", &mut cgroup).unwrap_or_default(),
    };
    with(&person)
}

/// The words of vgpu-manager's file, if there is one.
#[cold]
pub fn read_config(words: &mut Words) -> Result<bool, Unread> {
    let Some(file) = open(VGPU_CONFIG).map_err(Unread::System)? else { return Ok(false) };
    if links::look(VGPU_LIBRARY).is_err() {
        return Ok(false);
    }
    for _ in 0..VGPU_CONFIG_READS {
        let mut config = [0_u8; VGPU_CONFIG_BYTES];
        let config = file.read_at(&mut config, 0).map_err(Unread::System)?;
        match vgpu_config(config, words) {
            Ok(()) => return Ok(true),
            Err(NoConfig::Unknown) => return Err(Unread::NoConfig),
            Err(NoConfig::BeingWritten) => core::hint::spin_loop(),
        }
    }
    Err(Unread::NoConfig)
}
