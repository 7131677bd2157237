//! A region that has lost all its names, and that living processes hold all the same.
//!
//! Its processes go on with the file, which nobody can open by a name any more, and which the kernel gives no new name. But
//! each of them keeps a descriptor of it (`kept::RegionFile`), through which `/proc` lets processes of the same user,
//! and root, open it again. So a newcomer that finds no region at its path looks for such a file before it makes a new one:
//! a second region would be a second cap.
//!
//! This needs `/proc`, the same mount namespace (a path means the same there) and the right to look at the process.

use crate::links::{any_number, open_existing, read_link};
use crate::paths::{PATH_BYTES, PathBuffer, number, proc_path, split};
use crate::sys::{self, Descriptor};
use core::ffi::CStr;

/// How long a search may take.
const BUDGET_NS: u64 = 300_000_000;

/// A process that holds a region without a name, and the region where it could be opened.
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// The file; `None` where the process has closed its descriptor.
    pub file: Option<Descriptor>,
}

/// What the kernel calls a file that was removed.
const DELETED: &[u8] = b" (deleted)";

/// A living process that holds a region that was at `path` and was removed.
pub fn find(path: &CStr) -> Option<Holder> {
    let text = text_of_removed(path)?;
    let here = sys::inode_of(c"/proc/self/ns/mnt");
    let until = sys::monotonic_ns().saturating_add(BUDGET_NS);
    let mut found = None;
    any_number(c"/proc", &mut |pid| {
        if pid != sys::pid() && sees_the_same_paths(pid, here) {
            found = holder(pid, text.as_bytes());
        }
        found.is_some() || sys::monotonic_ns() > until
    });
    found
}

/// What a link to the removed file says: the path without links in it, and that it was removed.
fn text_of_removed(path: &CStr) -> Option<PathBuffer> {
    let (directory, name) = split(path);
    let directory = PathBuffer::of(&[directory, b"."])?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let opened = Descriptor::open(directory.as_c_str(), flags, 0).ok()?;
    let mut buffer = [0u8; PATH_BYTES];
    let directory = read_link(opened.proc_path()?.as_c_str(), &mut buffer).ok()?;
    let slash: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
    PathBuffer::of(&[directory, slash, name, DELETED])
}

fn sees_the_same_paths(pid: u32, here: u64) -> bool {
    here != 0 && proc_path(pid, b"/ns/mnt").is_some_and(|path| sys::inode_of(path.as_c_str()) == here)
}

fn holder(pid: u32, text: &[u8]) -> Option<Holder> {
    let mut file = None;
    let descriptors = proc_path(pid, b"/fd")?;
    any_number(descriptors.as_c_str(), &mut |number| {
        let path = proc_path(pid, b"/fd/").and_then(|mut path| path.push_number(number).map(|()| path));
        let Some(path) = path else { return false };
        let mut buffer = [0u8; PATH_BYTES];
        if read_link(path.as_c_str(), &mut buffer) == Ok(text) {
            file = open_link(path.as_c_str());
        }
        file.is_some()
    });
    if file.is_some() || maps(pid, text) { Some(Holder { pid, file }) } else { None }
}

/// Opens what a link of `/proc` stands for.
fn open_link(path: &CStr) -> Option<Descriptor> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    Descriptor::open(path, flags, 0).or_else(|_| open_existing(path)).ok()
}

/// Whether a process maps the file of which the kernel says `text`.
fn maps(pid: u32, text: &[u8]) -> bool {
    let Some(path) = proc_path(pid, b"/maps") else { return false };
    any_line(path.as_c_str(), &mut |line| {
        line.strip_suffix(text).is_some_and(|before| before.ends_with(b" "))
    })
}

/// Whether a process maps the file with an inode number: what a program that knows no slots of ours leaves to see.
pub fn maps_inode(pid: u32, inode: u64) -> bool {
    let Some(path) = proc_path(pid, b"/maps") else { return false };
    any_line(path.as_c_str(), &mut |line| {
        // Addresses, rights, offset, device, inode, path.
        let field = line.split(|byte| *byte == b' ').nth(4);
        field.and_then(number) == Some(inode)
    })
}

/// Whether any line of a text is the right one. Lines that are longer than a path are not looked at.
fn any_line(path: &CStr, is: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let Ok(file) = Descriptor::open(path, libc::O_RDONLY | libc::O_NOCTTY, 0) else { return false };
    let mut line = [0u8; PATH_BYTES];
    let mut length = 0usize;
    let mut buffer = [0u8; 4096];
    let mut offset = 0u64;
    loop {
        let bytes = match file.read_at(&mut buffer, offset) {
            Ok(bytes) if !bytes.is_empty() => bytes,
            _ => return false,
        };
        offset = offset.wrapping_add(bytes.len() as u64);
        for byte in bytes {
            if *byte == b'\n' {
                if line.get(..length).is_some_and(&mut *is) {
                    return true;
                }
                length = 0;
            } else {
                if let Some(place) = line.get_mut(length) {
                    *place = *byte;
                }
                length = length.saturating_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri reads no /proc")]
    fn lines_of_any_length_are_read_to_the_end() {
        let path = std::env::temp_dir().join(std::format!("gpuquota-lines-{}", std::process::id()));
        let text = std::format!("{}\nthe one\n{}\n", "x".repeat(5000), "y".repeat(3));
        std::fs::write(&path, text).expect("a file to write");
        let name = std::ffi::CString::new(path.to_str().expect("text")).expect("no NUL");
        assert!(any_line(&name, &mut |line| line == b"the one"));
        assert!(any_line(&name, &mut |line| line == b"yyy"));
        assert!(!any_line(&name, &mut |line| line == b"no line"));
        std::fs::remove_file(&path).expect("the file");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri reads no /proc")]
    fn a_path_is_looked_for_as_the_kernel_writes_it() {
        let text = text_of_removed(c"/proc/../tmp/./x.cache").expect("/tmp is there");
        assert_eq!(text.as_bytes(), b"/tmp/x.cache (deleted)");
    }
}
