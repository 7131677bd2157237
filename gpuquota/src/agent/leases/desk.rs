//! The one thread that gives leases, and what happens when a tenant's file holds it up.
//!
//! A tenant can make any call on its own file wait: by the file's lock of the kernel's (one large write), by a lease on the
//! file, by taking its pages away. A call on a thread of its own for each file would cost two changes of threads for each of
//! some thousand looks a second. So the thread that gives leases makes the calls itself, without holding anything, and says
//! which file it is at. Another thread sees when a call has not come back: it takes that file out, lets a new thread go on,
//! and the old one ends when its call does. A file that was late is left alone for a while, each time for longer; for a short
//! while where files of several owners are late, because then the disk is slow, and none of them is to lose its leases for that.

use crate::regions::Owner;
use gpuquota_region::sys::{monotonic_ns, thread_id};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

/// A call on a file that takes longer holds up others.
const LATE_NS: u64 = 4_000_000;
/// A file that is late once is left alone until its call has come back: a busy disk does that too. One that is late again and
/// again is left alone for longer, at first and at most so long; it doubles each time.
const FREE: u32 = 3;
const LEFT_ALONE_NS: (u64, u64) = (100_000_000, 60_000_000_000);
/// The longest where files of other owners were late as well: whoever holds two containers and makes both late costs the others
/// twice [`LATE_NS`] of it.
const LEFT_ALONE_BY_ALL_NS: u64 = 400_000_000;
/// A file that was in time for so long begins anew.
const FORGIVEN_NS: u64 = 2_000_000_000;
/// Threads whose calls have not come back. With more of them nobody gives leases, and each container is on its own.
const STUCK: u32 = 64;

/// How late a file was.
pub struct Lateness {
    owner: Owner,
    /// Until when it is left alone.
    until_ns: AtomicU64,
    times: AtomicU32,
    /// A call on it has not come back.
    is_stuck: AtomicBool,
}

impl Lateness {
    /// Of a file that has not been late.
    pub const fn of(owner: Owner) -> Self {
        Self {
            owner,
            until_ns: AtomicU64::new(0),
            times: AtomicU32::new(0),
            is_stuck: AtomicBool::new(false),
        }
    }

    /// Whether it is to be left alone now.
    pub fn is_late(&self, now_ns: u64) -> bool {
        self.is_stuck.load(SeqCst) || now_ns < self.until_ns.load(SeqCst)
    }

    /// It was late; `alone`: no other owner's file has been lately.
    fn was_late(&self, now_ns: u64, alone: bool) {
        if now_ns.saturating_sub(self.until_ns.load(SeqCst)) > FORGIVEN_NS {
            self.times.store(0, SeqCst);
        }
        let times = self.times.fetch_add(1, SeqCst);
        let (least, most) = LEFT_ALONE_NS;
        let most = if alone { most } else { LEFT_ALONE_BY_ALL_NS };
        let left_alone_ns = times.checked_sub(FREE).map_or(0, |times| (least << times.min(16)).min(most));
        self.until_ns.store(now_ns.saturating_add(left_alone_ns), SeqCst);
    }
}

/// Whose files were late last, and when.
#[derive(Default)]
struct Recent([Option<(Owner, u64)>; 2]);

impl Recent {
    /// Notes that a file of an owner is late. Whether no file of another one has been for a while.
    fn note(&mut self, owner: Owner, now_ns: u64) -> bool {
        let [last, before] = self.0;
        let other = if last.is_some_and(|(late, _)| late == owner) { before } else { last };
        self.0 = [Some((owner, now_ns)), other];
        other.is_none_or(|(_, at_ns)| now_ns.saturating_sub(at_ns) > FORGIVEN_NS)
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
    recent: Mutex<Recent>,
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
        let alone = locked(&self.recent).note(file.owner, now_ns);
        file.was_late(now_ns, alone);
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Makes files late one after the other, each as soon as it is no longer left alone. How long each was left alone at most.
    fn left_alone(owners: &[Owner]) -> Vec<u64> {
        let mut recent = Recent::default();
        let files: Vec<Lateness> = owners.iter().map(|owner| Lateness::of(*owner)).collect();
        let mut longest = vec![0; files.len()];
        let mut now_ns = 1_000_000 * MS;
        for _ in 0..40 {
            for (file, longest) in files.iter().zip(&mut longest) {
                now_ns += 10 * MS;
                if !file.is_late(now_ns) {
                    file.was_late(now_ns, recent.note(file.owner, now_ns));
                    *longest = file.until_ns.load(SeqCst).saturating_sub(now_ns).max(*longest);
                }
            }
            let next = files.iter().map(|file| file.until_ns.load(SeqCst)).min().unwrap_or(0);
            now_ns = now_ns.max(next);
        }
        longest
    }

    #[test]
    fn a_file_that_is_late_by_itself_is_left_alone_for_ever_longer() {
        assert_eq!(left_alone(&[Owner::User(1)]), [LEFT_ALONE_NS.1]);
        // However many files its owner has.
        let seen = left_alone(&[Owner::User(1), Owner::User(1), Owner::User(1)]);
        assert!(seen.iter().all(|longest| *longest == LEFT_ALONE_NS.1), "{seen:?}");
    }

    #[test]
    fn a_disk_that_makes_files_of_several_owners_late_takes_no_leases_for_long() {
        let owners = [Owner::Container(1, 1), Owner::Container(1, 2), Owner::User(7)];
        let seen = left_alone(&owners);
        assert!(seen.iter().all(|longest| *longest <= LEFT_ALONE_BY_ALL_NS), "{seen:?}");
    }

    #[test]
    fn a_file_that_was_in_time_for_long_begins_anew() {
        let file = Lateness::of(Owner::User(1));
        let mut now_ns = MS;
        for _ in 0..20 {
            now_ns += FORGIVEN_NS + MS;
            file.was_late(now_ns, true);
            assert!(!file.is_late(now_ns));
        }
    }
}
