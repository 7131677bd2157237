//! The one thread that gives leases, and what happens when a tenant's file holds it up.
//!
//! A tenant can make any call on its own file wait: by the file's lock of the kernel's (one large write), by a lease on the
//! file, by taking its pages away. A call on a thread of its own for each file would cost two changes of threads for each of
//! some thousand looks a second. So the thread that gives leases makes the calls itself, without holding anything, and says
//! which file it is at. Another thread sees when a call has not come back: it takes that file out, lets a new thread go on,
//! and the old one ends when its call does. A file that was late is left alone for a while, each time for longer.

use gpuquota_region::sys::{monotonic_ns, thread_id};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

/// A call on a file that takes longer holds up others.
const LATE_NS: u64 = 4_000_000;
/// A file that is late once is left alone until its call has come back: a busy disk does that too. One that is late again and
/// again is left alone for longer, at first and at most so long; it doubles each time.
const FREE: u32 = 3;
const LEFT_ALONE_NS: (u64, u64) = (100_000_000, 60_000_000_000);
/// A file that was in time for so long begins anew.
const FORGIVEN_NS: u64 = 2_000_000_000;
/// Threads whose calls have not come back. With more of them nobody gives leases, and each container is on its own.
const STUCK: u32 = 64;

/// How late a file was.
#[derive(Default)]
pub struct Lateness {
    /// Until when it is left alone.
    until_ns: AtomicU64,
    times: AtomicU32,
    /// A call on it has not come back.
    is_stuck: AtomicBool,
}

impl Lateness {
    /// Whether it is to be left alone now.
    pub fn is_late(&self, now_ns: u64) -> bool {
        self.is_stuck.load(SeqCst) || now_ns < self.until_ns.load(SeqCst)
    }

    fn was_late(&self, now_ns: u64) {
        if now_ns.saturating_sub(self.until_ns.load(SeqCst)) > FORGIVEN_NS {
            self.times.store(0, SeqCst);
        }
        let times = self.times.fetch_add(1, SeqCst);
        let (least, most) = LEFT_ALONE_NS;
        let alone_ns = times.checked_sub(FREE).map_or(0, |times| (least << times.min(16)).min(most));
        self.until_ns.store(now_ns.saturating_add(alone_ns), SeqCst);
    }
}

/// What one thread that gives leases is at.
#[derive(Default)]
struct Call {
    /// When the call began; 0: there is none.
    began_ns: AtomicU64,
    thread: AtomicU32,
    file: Mutex<Option<Arc<Lateness>>>,
}

/// Who gives leases now.
#[derive(Default)]
pub struct Desk {
    /// Counts the threads that have given leases.
    term: AtomicU64,
    call: Mutex<Arc<Call>>,
    stuck: AtomicU32,
}

/// A thread's right to give leases.
pub struct Seat<'d> {
    desk: &'d Desk,
    term: u64,
    call: Arc<Call>,
}

/// Another thread gives leases now.
#[derive(Debug)]
pub struct Unseated;

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// The calling thread gives leases from now on.
    pub fn sit_down(&self) -> Seat<'_> {
        let call = Arc::new(Call { thread: AtomicU32::new(thread_id()), ..Call::default() });
        *locked(&self.call) = Arc::clone(&call);
        let term = self.term.fetch_add(1, SeqCst).wrapping_add(1);
        Seat { desk: self, term, call }
    }

    /// Whether the thread that gives leases is held up by a file: that file is then left alone, and somebody else has to
    /// [`Self::sit_down`].
    pub fn is_held_up(&self, now_ns: u64) -> bool {
        let call = Arc::clone(&locked(&self.call));
        let began_ns = call.began_ns.load(SeqCst);
        let is_late = began_ns != 0 && now_ns.saturating_sub(began_ns) > LATE_NS;
        if !is_late || runs(call.thread.load(SeqCst)) || self.stuck.load(SeqCst) >= STUCK {
            return false;
        }
        let file = locked(&call.file);
        // It may have come back while we looked.
        let Some(file) = file.as_ref().filter(|_| call.began_ns.load(SeqCst) == began_ns) else {
            return false;
        };
        file.is_stuck.store(true, SeqCst);
        file.was_late(now_ns);
        self.stuck.fetch_add(1, SeqCst);
        self.term.fetch_add(1, SeqCst);
        true
    }
}

impl Seat<'_> {
    /// Whether this thread still gives leases.
    pub fn is_ours(&self) -> bool {
        self.desk.term.load(SeqCst) == self.term
    }

    /// Makes a call on a file.
    pub fn at<T>(&self, file: &Arc<Lateness>, call: impl FnOnce() -> T) -> Result<T, Unseated> {
        *locked(&self.call.file) = Some(Arc::clone(file));
        self.call.began_ns.store(monotonic_ns(), SeqCst);
        let answer = call();
        {
            let _file = locked(&self.call.file);
            self.call.began_ns.store(0, SeqCst);
        }
        if self.is_ours() {
            return Ok(answer);
        }
        file.is_stuck.store(false, SeqCst);
        self.desk.stuck.fetch_sub(1, SeqCst);
        Err(Unseated)
    }
}

/// Whether a thread of this process computes or waits for a processor: then no file holds it up.
fn runs(thread: u32) -> bool {
    let stat = std::fs::read(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    let state = stat.iter().rposition(|byte| *byte == b')').and_then(|at| stat.get(at.saturating_add(2)));
    state == Some(&b'R')
}
