//! What lies at a path.

use crate::error::Error;
use std::fmt::Write;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Files above this are none that we replace.
const LARGEST: u64 = 256 << 20;

/// What a path shall hold.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file with these bytes and this mode, of root.
    File(Vec<u8>, u32),
    /// One line in a file that may hold others'.
    Line(String),
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Nothing,
    /// A file. Who owns it, if that matters.
    File {
        /// Its bytes.
        content: Vec<u8>,
        /// Its permissions.
        mode: u32,
        /// User and group.
        owner: Option<(u32, u32)>,
    },
    /// A symbolic link.
    Link(PathBuf),
}

/// The SHA-256 of bytes, in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

impl State {
    /// Looks.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let doing = || format!("look at {}", path.display());
        let found = match fs::symlink_metadata(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Self::Nothing);
            }
            found => found.map_err(Error::system(doing()))?,
        };
        if found.is_symlink() {
            return fs::read_link(path).map(Self::Link).map_err(Error::system(doing()));
        }
        if !found.is_file() || found.len() > LARGEST {
            return Err(Error::Asked(format!(
                "{}: there is something that is no file of at most 256 MiB. Move it away",
                path.display()
            )));
        }
        let file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let mut content = Vec::new();
        let read = file.and_then(|file| file.take(LARGEST).read_to_end(&mut content));
        read.map_err(Error::system(doing()))?;
        Ok(Self::File { content, mode: found.mode() & 0o7777, owner: Some((found.uid(), found.gid())) })
    }

    /// The SHA-256 of a file, and a word for what is none.
    pub fn digest(&self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Link(target) => format!("-> {}", target.display()),
            Self::File { content, .. } => digest(content),
        }
    }

    /// This, with something in it.
    pub fn with(&self, wanted: &Content, path: &Path) -> Result<Self, Error> {
        match (wanted, self) {
            (Content::File(content, mode), Self::File { content: old, mode: has, .. })
                if content == old && mode == has =>
            {
                Ok(self.clone())
            }
            (Content::File(content, mode), _) => {
                Ok(Self::File { content: content.clone(), mode: *mode, owner: None })
            }
            (Content::Line(line), Self::Nothing) => {
                Ok(Self::File { content: format!("{line}\n").into_bytes(), mode: 0o644, owner: None })
            }
            (Content::Line(line), Self::File { content, .. }) if has_line(content, line) => Ok(self.clone()),
            (Content::Line(line), Self::File { content, mode, owner }) => {
                let mut content = content.clone();
                if content.last().is_some_and(|last| *last != b'\n') {
                    content.push(b'\n');
                }
                content.extend_from_slice(line.as_bytes());
                content.push(b'\n');
                Ok(Self::File { content, mode: *mode, owner: *owner })
            }
            (Content::Line(_), Self::Link(target)) => Err(Error::Asked(format!(
                "{} is a link to {}, and a line is to be added to it. Put a file in its place",
                path.display(),
                target.display()
            ))),
        }
    }

    /// This without a line; nothing at all where nothing else is left in a file that was made for it.
    pub fn without(&self, line: &str, was_nothing: bool) -> Self {
        let Self::File { content, mode, owner } = self else { return self.clone() };
        let kept: Vec<u8> = content
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|have| have.trim_ascii() != line.as_bytes())
            .flatten()
            .copied()
            .collect();
        if kept.is_empty() && was_nothing {
            return Self::Nothing;
        }
        Self::File { content: kept, mode: *mode, owner: *owner }
    }
}

fn has_line(content: &[u8], line: &str) -> bool {
    content.split(|byte| *byte == b'\n').any(|have| have.trim_ascii() == line.as_bytes())
}
