//! The descriptor of the region's file that a process keeps: its own classic lock depends on it, it asks for others' locks
//! through it, and newcomers find a region without names by it (`removed`).

use crate::names::open_again;
use crate::sys::{Descriptor, Errno, HIGH, Identity};
use core::ffi::CStr;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// One descriptor of the region's file that this process keeps. All-zero bytes: none yet.
#[derive(Default)]
pub struct RegionFile {
    /// Number + 1.
    number: AtomicI32,
    /// Which file: 0 and 0 until the first one is known.
    device: AtomicU64,
    inode: AtomicU64,
}

impl RegionFile {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { number: AtomicI32::new(0), device: AtomicU64::new(0), inode: AtomicU64::new(0) }
    }

    /// Which file it is, once that is known.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let identity = Identity { device: self.device.load(Relaxed), inode: self.inode.load(Relaxed) };
        (identity.inode != 0).then_some(identity)
    }

    /// Keeps this descriptor.
    pub fn keep(&self, file: Descriptor) -> Result<(), Errno> {
        // If the limit on descriptors forbids the high number, the low one has to do. It is closed here, before any lock is
        // taken through the other.
        let file = file.duplicate_above(HIGH).unwrap_or(file);
        let identity = file.identity()?;
        self.device.store(identity.device, Relaxed);
        self.inode.store(identity.inode, Relaxed);
        self.number.store(file.into_raw().wrapping_add(1), Release);
        Ok(())
    }

    /// The number that is kept, if the program has not closed it: it may be another file's by now.
    fn kept(&self) -> Option<ManuallyDrop<Descriptor>> {
        let number = self.number.load(Acquire).checked_sub(1).filter(|number| *number >= 0)?;
        let file = ManuallyDrop::new(Descriptor::from_raw(number));
        let known = self.identity()?;
        (file.identity() == Ok(known)).then_some(file)
    }

    /// Opens the file anew: another open file description.
    pub fn open(&self, path: &CStr) -> Result<Descriptor, Errno> {
        match self.identity() {
            Some(known) => open_again(path, known, self.kept().as_deref()),
            None => Descriptor::open(path, libc::O_RDWR | libc::O_NOCTTY, 0),
        }
    }

    /// Uses the descriptor, or the file at its path if it is this one: in a handler of signals, which may have little stack.
    pub fn with_at_hand<R>(&self, path: &CStr, then: impl FnOnce(&Descriptor) -> R) -> Option<R> {
        if let Some(file) = self.kept() {
            return Some(then(&file));
        }
        let file = Descriptor::open(path, libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK, 0).ok()?;
        (self.identity().is_some() && file.identity().ok() == self.identity()).then(|| then(&file))
    }

    /// Uses the descriptor, opened if need be: for the first time, or because the program has closed it. Of two threads that
    /// find it missing at once each opens one, and both stay open.
    pub fn with<R>(&self, path: &CStr, then: impl FnOnce(&Descriptor) -> R) -> Result<R, Errno> {
        if let Some(file) = self.kept() {
            return Ok(then(&file));
        }
        self.keep(self.open(path)?)?;
        self.kept().map(|file| then(&file)).ok_or(Errno(libc::ESTALE))
    }
}
