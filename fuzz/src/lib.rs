//! What the fuzz targets share: files of regions, and how an input damages one.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, FromRawFd};

use arbitrary::Arbitrary;
use gpuquota_region::Region;
use gpuquota_region::hami;
use gpuquota_region::layout::{FILE_BYTES, OURS, Ours};

/// How a file is damaged: some bytes at some places, and where it is cut off. An input of a few bytes so reaches every field
/// of a file of megabytes.
#[derive(Arbitrary, Debug)]
pub struct Damage<'i> {
    writes: Vec<(Place, &'i [u8])>,
    length: Option<Place>,
}

/// A place in a file, not far behind the beginning of one of its parts.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Place {
    part: u8,
    offset: u16,
}

/// Where the parts begin: HAMi's view, its last fields, our header, and our tables.
const PARTS: [usize; 7] = [
    0,
    offset_of!(hami::View, proc_num),
    OURS,
    OURS + offset_of!(Ours, devices),
    OURS + offset_of!(Ours, slots),
    OURS + offset_of!(Ours, journals),
    OURS + offset_of!(Ours, events),
];

impl Place {
    fn within(self, length: usize) -> usize {
        (PARTS[usize::from(self.part) % PARTS.len()] + usize::from(self.offset)) % length
    }
}

impl Damage<'_> {
    /// Damages `bytes`, shows what is left to `look`, and undoes it.
    pub fn shown<T>(&self, bytes: &mut [u8], look: impl FnOnce(&[u8]) -> T) -> T {
        let mut undo = Vec::new();
        for (place, new) in &self.writes {
            let start = place.within(bytes.len());
            let end = bytes.len().min(start + new.len());
            undo.push((start, bytes[start..end].to_vec()));
            bytes[start..end].copy_from_slice(&new[..end - start]);
        }
        let length = self.length.map_or(bytes.len(), |length| length.within(bytes.len() + 1));
        let seen = look(&bytes[..length]);
        for (start, old) in undo.into_iter().rev() {
            bytes[start..start + old.len()].copy_from_slice(&old);
        }
        seen
    }
}

/// A file without a name.
pub struct Unnamed(File);

impl Unnamed {
    /// One with these contents.
    pub fn new(contents: &[u8]) -> Self {
        // SAFETY: the name is a C string, and the descriptor is handed to its only owner.
        let mut file = unsafe {
            let descriptor = libc::memfd_create(c"fuzz".as_ptr(), 0);
            assert!(descriptor >= 0, "memfd_create");
            File::from_raw_fd(descriptor)
        };
        file.write_all(contents).expect("memory");
        Self(file)
    }

    /// What it contains now.
    pub fn contents(&self) -> Vec<u8> {
        std::fs::read(self.path()).expect("the file is ours")
    }

    /// Opens it as a region, and shows the region to `look`.
    pub fn opened<T>(&self, look: impl FnOnce(Result<Region, gpuquota_region::OpenError>) -> T) -> T {
        let region = Region::open(&CString::new(self.path()).expect("no NUL"), 1);
        let mapping = region.as_ref().ok().map(|region| std::ptr::from_ref(region.hami()).cast_mut());
        let seen = look(region);
        if let Some(mapping) = mapping {
            // SAFETY: a region is mapped for ever, which millions of inputs are too many for; `look` has had the only one.
            unsafe { libc::munmap(mapping.cast(), FILE_BYTES) };
        }
        seen
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}
