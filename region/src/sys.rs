//! The few system calls beneath, in one place. None of them is a point at which a program's thread can be cancelled
//! (`uncancelled`).
//!
//! # Safety
//! This module may use `unsafe` because it is the crate's border to the kernel: every block passes pointers to live
//! locals or to constants, and hands nothing out but integers and [`Descriptor`]s.
#![allow(unsafe_code)]

pub use crate::clock::{monotonic_coarse_ns, monotonic_ns, realtime_ns, sleep_on, sleep_until};
use crate::paths::PathBuffer;
use crate::uncancelled;
use core::ffi::CStr;

#[allow(clippy::cast_possible_truncation, reason = "constants that fit, converted by the compiler")]
const WRITE_LOCK: libc::c_short = libc::F_WRLCK as libc::c_short;
#[allow(clippy::cast_possible_truncation, reason = "as above")]
const UNLOCK: libc::c_short = libc::F_UNLCK as libc::c_short;
#[allow(clippy::cast_possible_truncation, reason = "as above")]
const SEEK_SET: libc::c_short = libc::SEEK_SET as libc::c_short;

/// An errno value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

/// Keeps the caller's errno: hooks run inside programs that may look at theirs afterwards.
pub struct KeepErrno(i32);

impl KeepErrno {
    /// Remembers errno until dropped.
    #[must_use]
    pub fn new() -> Self {
        Self(errno().0)
    }
}

impl Default for KeepErrno {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for KeepErrno {
    fn drop(&mut self) {
        // SAFETY: __errno_location returns a valid pointer to this thread's errno.
        unsafe { *libc::__errno_location() = self.0 };
    }
}

/// This thread's errno.
#[must_use]
pub fn errno() -> Errno {
    // SAFETY: __errno_location returns a valid pointer to this thread's errno.
    Errno(unsafe { *libc::__errno_location() })
}

pub(crate) fn check(result: i32) -> Result<i32, Errno> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

/// [`check`] for calls without a function of their own in the C library; what they answer fits.
fn check_long(result: libc::c_long) -> Result<i32, Errno> {
    i32::try_from(result).map_err(|_| Errno(libc::EOVERFLOW)).and_then(check)
}

/// An open file description of ours: close-on-exec, never one of the numbers 0 to 2, closed when dropped.
#[derive(Debug)]
pub struct Descriptor(i32);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: closing a descriptor that we opened and that nobody else was given.
        unsafe { uncancelled::close(self.0) };
    }
}

/// Descriptors that stay open are moved up here, out of the way of programs that count on low numbers.
pub const HIGH: i32 = 700;

/// What [`Descriptor::identity`] tells of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Device of its file system.
    pub device: u64,
    /// Inode.
    pub inode: u64,
}

/// What [`Descriptor::stat`] tells of a file.
#[derive(Clone, Copy)]
pub struct Stat {
    /// Which file it is.
    pub identity: Identity,
    /// Bytes.
    pub size: u64,
    /// Who owns it, as this user namespace sees it.
    pub owner: u32,
    /// Whether it is a regular file.
    pub regular: bool,
    /// How many names it has.
    pub names: u64,
}

/// Which open file description may hold a lock, and how long to wait for it.
#[derive(Clone, Copy)]
pub enum LockKind {
    /// Held by the open file description.
    Ofd,
    /// Held by the process: the kernel translates its pid for whoever asks from another namespace.
    Classic,
}

impl Descriptor {
    /// Opens `path` with `flags` (O_CLOEXEC is added) and, when creating, `mode`.
    pub fn open(path: &CStr, flags: i32, mode: u32) -> Result<Self, Errno> {
        // SAFETY: path is a C string that outlives the call.
        let fd = check(unsafe { uncancelled::open(path.as_ptr(), flags | libc::O_CLOEXEC, mode) })?;
        Self(fd).above(3)
    }

    /// Moves the descriptor to a number of at least `floor`, so that it does not stand where the program expects
    /// its own (0 to 2 may be closed on purpose).
    pub fn above(self, floor: i32) -> Result<Self, Errno> {
        if self.0 >= floor { Ok(self) } else { self.duplicate_above(floor) }
    }

    /// Another descriptor of the same open file description, with a number of at least `floor`.
    pub fn duplicate_above(&self, floor: i32) -> Result<Self, Errno> {
        // SAFETY: plain fcntl on our own descriptor.
        check(unsafe { libc::fcntl(self.0, libc::F_DUPFD_CLOEXEC, floor) }).map(Self)
    }

    /// Gives the number away without closing it.
    #[must_use]
    pub fn into_raw(self) -> i32 {
        let fd = self.0;
        core::mem::forget(self);
        fd
    }

    /// Takes a number back that [`Self::into_raw`] gave. Whether it still is the same file is for
    /// [`Self::identity`] to tell: the program may have closed it and opened another under its number.
    #[must_use]
    pub fn from_raw(fd: i32) -> Self {
        Self(fd)
    }

    /// Size, kind and identity.
    pub fn stat(&self) -> Result<Stat, Errno> {
        // SAFETY: stat is plain data and fstat fills it when it returns 0.
        let stat = unsafe {
            let mut stat: libc::stat = core::mem::zeroed();
            check(libc::fstat(self.0, &mut stat))?;
            stat
        };
        Ok(Stat {
            identity: Identity { device: stat.st_dev, inode: stat.st_ino },
            size: u64::try_from(stat.st_size).unwrap_or(0),
            owner: stat.st_uid,
            regular: stat.st_mode & libc::S_IFMT == libc::S_IFREG,
            // Its type differs between architectures.
            #[allow(clippy::useless_conversion, reason = "as above")]
            names: u64::from(stat.st_nlink),
        })
    }

    /// Its path in /proc, through which the same file can be opened again.
    #[must_use]
    pub fn proc_path(&self) -> Option<PathBuffer> {
        let mut path = PathBuffer::of(&[b"/proc/self/fd/"])?;
        path.push_number(u32::try_from(self.0).ok()?)?;
        Some(path)
    }

    /// Which file the descriptor stands for.
    pub fn identity(&self) -> Result<Identity, Errno> {
        self.stat().map(|stat| stat.identity)
    }

    /// Whether the file lies on overlayfs, where a mapping does not keep an OFD lock alive.
    #[must_use]
    pub fn on_overlay(&self) -> bool {
        const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
        // SAFETY: statfs is plain data and fstatfs fills it when it returns 0.
        unsafe {
            let mut stat: libc::statfs = core::mem::zeroed();
            libc::fstatfs(self.0, &mut stat) == 0 && stat.f_type == OVERLAYFS_SUPER_MAGIC
        }
    }

    /// Makes the file readable and writable for every user of the container, whatever the umask: they share one
    /// quota. The umask itself is the program's and stays untouched. The sticky bit has no meaning for the kernel; programs
    /// that remove old files (systemd-tmpfiles) leave such a one.
    pub fn share_with_all_users(&self) {
        // SAFETY: plain fchmod on our own descriptor; failure means somebody else owns the file.
        unsafe { libc::fchmod(self.0, 0o1666) };
    }

    /// Takes disk space for the first `bytes` bytes: with ftruncate alone the first store to a page that the disk
    /// has no room for would be a SIGBUS.
    pub fn allocate(&self, bytes: u64) -> Result<(), Errno> {
        let length = i64::try_from(bytes).map_err(|_| Errno(libc::EFBIG))?;
        // Beyond RLIMIT_FSIZE the kernel would send SIGXFSZ, which ends the program.
        if self.stat()?.size < bytes && largest_file() < bytes {
            return Err(Errno(libc::EFBIG));
        }
        // SAFETY: plain fallocate on our own descriptor.
        match check(unsafe { uncancelled::fallocate(self.0, 0, 0, length) }) {
            Ok(_) => Ok(()),
            Err(Errno(libc::EOPNOTSUPP)) => self.write_blocks(length),
            Err(error) => Err(error),
        }
    }

    /// [`Self::allocate`] on file systems without fallocate: writes the last byte of every block, if it is zero.
    fn write_blocks(&self, length: i64) -> Result<(), Errno> {
        let mut at = 0i64;
        while at < length {
            let last = at.saturating_add(4095).min(length.wrapping_sub(1));
            let mut byte = 0u8;
            // SAFETY: one live byte, read and written.
            let written = unsafe {
                uncancelled::pread(self.0, (&raw mut byte).cast(), 1, last) == 1 && byte != 0
                    || uncancelled::pwrite(self.0, (&raw const byte).cast(), 1, last) == 1
            };
            if !written {
                return Err(errno());
            }
            at = last.saturating_add(1);
        }
        Ok(())
    }

    /// Reads from the start of the file; returns the bytes read.
    pub fn read_at<'b>(&self, buffer: &'b mut [u8], offset: u64) -> Result<&'b [u8], Errno> {
        let offset = i64::try_from(offset).map_err(|_| Errno(libc::EINVAL))?;
        // SAFETY: the buffer is ours and its length is passed along.
        let read = unsafe { uncancelled::pread(self.0, buffer.as_mut_ptr().cast(), buffer.len(), offset) };
        let read = usize::try_from(read).map_err(|_| errno())?;
        buffer.get(..read).ok_or(Errno(libc::EIO))
    }

    /// Tries to take a write lock on one byte; EAGAIN or EACCES when somebody else holds it.
    pub fn try_lock(&self, kind: LockKind, byte: u64) -> Result<(), Errno> {
        let command = match kind {
            LockKind::Ofd => libc::F_OFD_SETLK,
            LockKind::Classic => libc::F_SETLK,
        };
        self.lock_call(command, WRITE_LOCK, byte).map(|_| ())
    }

    /// Gives a byte back.
    pub fn unlock(&self, byte: u64) {
        let _ = self.lock_call(libc::F_OFD_SETLK, UNLOCK, byte);
    }

    /// Whether another open file description holds a lock on the byte.
    pub fn is_locked(&self, byte: u64) -> Result<bool, Errno> {
        self.lock_call(libc::F_OFD_GETLK, WRITE_LOCK, byte).map(|lock| lock.l_type != UNLOCK)
    }

    /// Process id of the holder of a classic lock on the byte, as seen from this PID namespace: `None` when the
    /// byte is free, `Some(0)` when the holder is not visible from here.
    pub fn classic_holder(&self, byte: u64) -> Result<Option<u32>, Errno> {
        let lock = self.lock_call(libc::F_GETLK, WRITE_LOCK, byte)?;
        if lock.l_type == UNLOCK {
            return Ok(None);
        }
        Ok(Some(u32::try_from(lock.l_pid).unwrap_or(0)))
    }

    fn lock_call(&self, command: i32, lock_type: libc::c_short, byte: u64) -> Result<libc::flock, Errno> {
        self.lock_bytes(command, lock_type, byte, 1)
    }

    fn lock_bytes(
        &self,
        command: i32,
        lock_type: libc::c_short,
        byte: u64,
        bytes: i64,
    ) -> Result<libc::flock, Errno> {
        let start = i64::try_from(byte).map_err(|_| Errno(libc::EINVAL))?;
        // SAFETY: flock is plain data; fcntl reads and, for the GETLK commands, writes it.
        unsafe {
            let mut lock: libc::flock = core::mem::zeroed();
            lock.l_type = lock_type;
            lock.l_whence = SEEK_SET;
            lock.l_start = start;
            lock.l_len = bytes;
            check(libc::fcntl(self.0, command, &mut lock))?;
            Ok(lock)
        }
    }

    /// The next entries of a directory as the kernel gives them; `None` where it gives none.
    pub(crate) fn entries<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        // SAFETY: the buffer is ours and its length is passed along.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, self.0, buffer.as_mut_ptr(), buffer.len()) };
        buffer.get(..usize::try_from(read).ok()?)
    }

    /// Takes a shared BSD lock, if nobody has it alone: programs that remove old files leave a locked one.
    pub fn lock_shared(&self) {
        // SAFETY: plain flock on our own descriptor.
        unsafe { libc::flock(self.0, libc::LOCK_SH | libc::LOCK_NB) };
    }

    /// A byte from `byte` on, of so many, on which another open file description holds a lock, not always the first one.
    pub fn any_locked(&self, byte: u64, bytes: u64) -> Result<Option<u64>, Errno> {
        let length = i64::try_from(bytes).map_err(|_| Errno(libc::EINVAL))?;
        let lock = self.lock_bytes(libc::F_OFD_GETLK, WRITE_LOCK, byte, length)?;
        let first = u64::try_from(lock.l_start).unwrap_or(byte).max(byte);
        Ok((lock.l_type != UNLOCK).then_some(first))
    }

    /// Maps the first `bytes` bytes, shared. The mapping is never undone.
    pub fn map_shared(&self, bytes: usize, writable: bool) -> Result<*mut u8, Errno> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        map(bytes, protection, libc::MAP_SHARED, self.0)
    }

    /// Maps the first `bytes` bytes, shared and writable, over a mapping at `address`.
    ///
    /// # Safety
    /// The mapping there is the caller's, and its users can live with the file's bytes.
    pub unsafe fn map_over(&self, address: usize, bytes: usize) -> Result<(), Errno> {
        // SAFETY: by the caller.
        unsafe { map_fixed(address, bytes, libc::MAP_SHARED, self.0) }
    }
}

/// Maps zeroes of this process alone over a mapping at `address`.
///
/// # Safety
/// The mapping there is the caller's, and its users can live with zeroes.
pub unsafe fn map_zeroes_over(address: usize, bytes: usize) -> Result<(), Errno> {
    // SAFETY: by the caller.
    unsafe { map_fixed(address, bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1) }
}

/// # Safety
/// As [`map_zeroes_over`].
unsafe fn map_fixed(address: usize, bytes: usize, flags: i32, fd: i32) -> Result<(), Errno> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let place = core::ptr::with_exposed_provenance_mut(address);
    // SAFETY: by the caller.
    let mapped = unsafe { libc::mmap(place, bytes, protection, flags | libc::MAP_FIXED, fd, 0) };
    if mapped == libc::MAP_FAILED { Err(errno()) } else { Ok(()) }
}

/// The largest file that this process may make, bytes.
fn largest_file() -> u64 {
    // SAFETY: rlimit is plain data that the call fills when it returns 0.
    let limit = unsafe {
        let mut limit = core::mem::zeroed::<libc::rlimit>();
        if libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) == 0 {
            limit.rlim_cur
        } else {
            libc::RLIM_INFINITY
        }
    };
    if limit == libc::RLIM_INFINITY { u64::MAX } else { limit }
}

fn map(bytes: usize, protection: i32, flags: i32, fd: i32) -> Result<*mut u8, Errno> {
    map_at(bytes, protection, flags, fd, 0)
}

fn map_at(bytes: usize, protection: i32, flags: i32, fd: i32, offset: i64) -> Result<*mut u8, Errno> {
    // SAFETY: a mapping at an address of the kernel's choice disturbs no other mapping.
    let address = unsafe { libc::mmap(core::ptr::null_mut(), bytes, protection, flags, fd, offset) };
    if address == libc::MAP_FAILED { Err(errno()) } else { Ok(address.cast()) }
}

/// Fresh private memory, zeroed.
pub fn map_private(bytes: usize) -> Result<*mut u8, Errno> {
    map(bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
}

/// How a child made by fork sees a mapping.
#[derive(Clone, Copy)]
pub enum InChild {
    /// Not at all.
    Absent,
    /// As zeroes.
    Zeroed,
}

/// Says how a child sees `bytes` bytes at `address`, a mapping made by this crate.
pub fn advise_fork(address: *mut u8, bytes: usize, child: InChild) -> Result<(), Errno> {
    let advice = match child {
        InChild::Absent => libc::MADV_DONTFORK,
        InChild::Zeroed => libc::MADV_WIPEONFORK,
    };
    // SAFETY: the range is a mapping of ours, and the advice changes nothing for this process.
    check(unsafe { libc::madvise(address.cast(), bytes, advice) }).map(|_| ())
}

/// Gives private memory from [`map_private`] back.
pub fn unmap_private(address: *mut u8, bytes: usize) {
    // SAFETY: the caller of map_private hands its mapping back and uses it no more.
    unsafe { libc::munmap(address.cast(), bytes) };
}

/// A page of a file on whose words other processes sleep ([`sleep_on`]). This process itself neither reads nor writes it, so a
/// tenant that truncates the file cannot harm it.
pub struct WakePage {
    page: *mut u8,
}

// SAFETY: the page is only named to the kernel, and unmapped once, when dropped.
unsafe impl Send for WakePage {}
// SAFETY: as above.
unsafe impl Sync for WakePage {}

impl WakePage {
    const BYTES: usize = 4096;

    /// The page at `offset`, a multiple of 4,096, of a file that is open for reading and writing.
    pub fn of(file: &Descriptor, offset: u64) -> Result<Self, Errno> {
        let offset = i64::try_from(offset).map_err(|_| Errno(libc::EINVAL))?;
        let may = libc::PROT_READ | libc::PROT_WRITE;
        map_at(Self::BYTES, may, libc::MAP_SHARED, file.0, offset).map(|page| Self { page })
    }

    /// Has the kernel write into the page. Unlike a write to the file that waits for nobody who writes to it, and changes no
    /// times that the file system would have to record. `EFAULT`: the page is gone.
    pub fn store(&self, at: usize, bytes: &[u8]) -> Result<(), Errno> {
        if at.checked_add(bytes.len()).is_none_or(|end| end > Self::BYTES) {
            return Err(Errno(libc::EINVAL));
        }
        let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: self.page.wrapping_add(at).cast(), iov_len: bytes.len() };
        // SAFETY: the kernel reads `bytes` and writes within the page, which is ours; it answers an error where that is gone.
        let written = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) };
        if usize::try_from(written) == Ok(bytes.len()) { Ok(()) } else { Err(errno()) }
    }

    /// Wakes all that sleep on the word at `at`, a multiple of 4, in the page.
    pub fn wake(&self, at: usize) {
        if at < Self::BYTES {
            let word = self.page.wrapping_add(at);
            // SAFETY: the kernel only looks up the sleepers on that address of ours; it answers EFAULT if the page is gone.
            unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX) };
        }
    }
}

impl Drop for WakePage {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the kernel alone was given it.
        unsafe { libc::munmap(self.page.cast(), Self::BYTES) };
    }
}

/// While this lives, no signal handler runs in this thread, and nobody cancels it: for short work that must not be left half
/// done. Signals that tell of a fault are not held back.
pub struct NoSignals(Option<u64>);

impl NoSignals {
    /// Holds all signals back until dropped. Where that is forbidden it does nothing.
    #[must_use]
    pub fn new() -> Self {
        let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
        let bit = |signal: i32| 1u64.wrapping_shl(signal.wrapping_sub(1).cast_unsigned());
        let all = faults.into_iter().fold(u64::MAX, |set, signal| set & !bit(signal));
        let mut before = 0u64;
        Self(Self::change(libc::SIG_BLOCK, &all, &raw mut before).then_some(before))
    }

    /// The kernel's call, because glibc's own keeps the signal of cancellation out.
    fn change(how: i32, set: &u64, before: *mut u64) -> bool {
        // SAFETY: both sets live, and are as long as the kernel expects.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, core::ptr::from_ref(set), before, 8usize) == 0 }
    }
}

impl Default for NoSignals {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for NoSignals {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            Self::change(libc::SIG_SETMASK, &before, core::ptr::null_mut());
        }
    }
}

/// The kernel's number of the calling thread.
#[must_use]
pub fn thread_id() -> u32 {
    // SAFETY: takes nothing, cannot fail.
    check_long(unsafe { libc::syscall(libc::SYS_gettid) }).map_or(0, i32::cast_unsigned)
}

/// Whether a thread of this process has not ended; true where the kernel does not say.
#[must_use]
pub fn thread_lives(id: u32) -> bool {
    // SAFETY: takes integers; signal 0 is only a question.
    let answer = unsafe { libc::syscall(libc::SYS_tgkill, pid(), id, 0) };
    check_long(answer) != Err(Errno(libc::ESRCH))
}

/// Whether the calling code runs on the thread's alternate signal stack.
#[must_use]
pub fn on_signal_stack() -> bool {
    // SAFETY: stack_t is plain data that the kernel fills when it answers 0; nothing is set.
    unsafe {
        let mut stack: libc::stack_t = core::mem::zeroed();
        let answer = libc::syscall(libc::SYS_sigaltstack, core::ptr::null::<libc::stack_t>(), &raw mut stack);
        answer == 0 && stack.ss_flags & libc::SS_ONSTACK != 0
    }
}

/// This process's id in its own namespace.
#[must_use]
pub fn pid() -> u32 {
    // SAFETY: getpid cannot fail.
    unsafe { libc::getpid() }.cast_unsigned()
}

/// This process's effective user.
#[must_use]
pub fn user() -> u32 {
    // SAFETY: geteuid cannot fail.
    unsafe { libc::geteuid() }
}

/// This process's real user: the one who started it, whatever the program may do as another.
#[must_use]
pub fn real_user() -> u32 {
    // SAFETY: getuid cannot fail.
    unsafe { libc::getuid() }
}

/// This process's groups, the real one first, as many as there is room for. All of them or, where there is no room for all,
/// the real one alone.
#[must_use]
pub fn groups(room: &mut [u32]) -> &[u32] {
    let Some((first, others)) = room.split_first_mut() else { return &[] };
    // SAFETY: getgid cannot fail.
    *first = unsafe { libc::getgid() };
    let most = i32::try_from(others.len()).unwrap_or(0);
    // SAFETY: the kernel writes at most as many groups as there is room for.
    let found = unsafe { libc::getgroups(most, others.as_mut_ptr()) };
    let all = usize::try_from(found).unwrap_or(0).saturating_add(1);
    room.get(..all).unwrap_or(&[])
}

/// Inode of a file such as `/proc/self/ns/pid`; 0 where it cannot be had.
#[must_use]
pub fn inode_of(path: &CStr) -> u64 {
    // SAFETY: path is a C string; stat is plain data that the call fills when it returns 0.
    unsafe {
        let mut stat: libc::stat = core::mem::zeroed();
        if libc::stat(path.as_ptr(), &mut stat) == 0 { stat.st_ino } else { 0 }
    }
}

/// Whether this process is in the first PID namespace, where its pids are the node's. The kernel gives that namespace
/// a fixed inode (PROC_PID_INIT_INO).
#[must_use]
pub fn in_first_pid_namespace() -> bool {
    inode_of(c"/proc/self/ns/pid") == 0xEFFF_FFFC
}

/// Reads the beginning of a small file.
pub fn read_file<'b>(path: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    Descriptor::open(path, libc::O_RDONLY | libc::O_NOCTTY, 0)?.read_at(buffer, 0)
}

/// Kills a process if it `is` the right one, held by a handle while that is found out. Kernels before 5.3 have no
/// handles, and some sandboxes forbid them.
pub fn kill(pid: u32, is: impl FnOnce() -> bool) -> bool {
    let Ok(number) = i32::try_from(pid) else { return false };
    // SAFETY: takes integers, gives a descriptor.
    let handle = check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, number, 0) }).map(Descriptor);
    if number <= 1 || !is() {
        return false;
    }
    match handle {
        // SAFETY: a descriptor of ours and integers; no information is passed along.
        Ok(Descriptor(handle)) => unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                handle,
                libc::SIGKILL,
                core::ptr::null::<libc::siginfo_t>(),
                0,
            ) == 0
        },
        // SAFETY: takes integers.
        Err(Errno(libc::ENOSYS | libc::EPERM)) => unsafe { libc::kill(number, libc::SIGKILL) == 0 },
        Err(_) => false,
    }
}

/// Puts a line behind what a plain file has, if there is one; nobody makes it, and nobody waits for it.
pub fn append(path: &CStr, line: &[u8]) {
    const FLAGS: i32 = libc::O_WRONLY | libc::O_APPEND | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    let Ok(file) = Descriptor::open(path, FLAGS, 0) else { return };
    if !file.stat().is_ok_and(|stat| stat.regular) {
        return;
    }
    // SAFETY: so many bytes are there.
    unsafe { uncancelled::write(file.0, line.as_ptr().cast(), line.len()) };
}

/// Writes to standard error, if that can be done at once: nobody waits for a reader that is stuck, and nobody dies of
/// one that is gone.
pub fn write_stderr(text: &[u8]) {
    let mut stderr = libc::pollfd { fd: 2, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one live record, no waiting.
    if unsafe { uncancelled::poll(&raw mut stderr, 1, 0) } != 1 || stderr.revents & libc::POLLOUT == 0 {
        return;
    }
    // SAFETY: signal sets are plain data that sigemptyset fills; all pointers are to live locals. Only this thread's
    // mask changes, and it changes back; a SIGPIPE that was not there before is ours and is taken away.
    unsafe {
        let mut pipe: libc::sigset_t = core::mem::zeroed();
        let (mut before, mut pending) = (pipe, pipe);
        libc::sigemptyset(&mut pipe);
        libc::sigaddset(&mut pipe, libc::SIGPIPE);
        libc::sigpending(&mut pending);
        libc::sigprocmask(libc::SIG_BLOCK, &pipe, &mut before);
        let written = uncancelled::write(2, text.as_ptr().cast(), text.len());
        if written < 0 && errno() == Errno(libc::EPIPE) && libc::sigismember(&pending, libc::SIGPIPE) == 0 {
            uncancelled::take_signal(&raw const pipe);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &before, core::ptr::null_mut());
    }
}
