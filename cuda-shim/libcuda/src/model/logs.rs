//! The driver's error log: every call that fails says so, as drivers do from CUDA 12.9 on.
//!
//! Where `CUDA_LOG_FILE` is `stdout`, `stderr` or a path, messages go there as they come; the last hundred are kept. A call
//! that succeeds costs nothing.

use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::objects::thread::id;
use crate::tools::status::{NOT_READY, Status, describe};

/// Messages that are kept.
const KEPT: usize = 100;

/// `CU_LOG_LEVEL_ERROR`.
const ERROR: u32 = 0;

/// `CUlogsCallback`.
pub type Callback = extern "C" fn(*mut c_void, u32, *mut c_char, usize);

static LOGS: Mutex<Logs> =
    Mutex::new(Logs { kept: VecDeque::new(), count: 0, listeners: Vec::new(), next_handle: 1 });

/// One call that failed.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Since midnight, UTC.
    pub milliseconds: u64,
    pub thread: u64,
    pub call: &'static str,
    pub status: Status,
}

pub struct Logs {
    pub kept: VecDeque<Entry>,
    /// Messages ever.
    pub count: u64,
    /// By their handles, which are never given twice.
    pub listeners: Vec<(u64, Callback, usize)>,
    pub next_handle: u64,
}

pub fn logs() -> MutexGuard<'static, Logs> {
    LOGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where `CUDA_LOG_FILE` sends messages.
fn sink() -> Option<&'static Mutex<File>> {
    static SINK: OnceLock<Option<Mutex<File>>> = OnceLock::new();
    let open = || {
        let path = std::env::var_os("CUDA_LOG_FILE")?;
        let file = match path.to_str() {
            Some("stdout") => "/dev/stdout".into(),
            Some("stderr") => "/dev/stderr".into(),
            _ => path,
        };
        File::options().append(true).create(true).open(file).ok().map(Mutex::new)
    };
    SINK.get_or_init(open).as_ref()
}

impl std::fmt::Display for Entry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, rest) = (self.milliseconds / 1000, self.milliseconds % 1000);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let name = describe(self.status.code()).map_or("?".into(), |(name, _)| name.to_string_lossy());
        write!(
            out,
            "[{hour:02}:{minute:02}:{second:02}.{rest:03}][{}][CUDA][E] Returning {} ({name}) from {}",
            self.thread,
            self.status.code(),
            self.call
        )
    }
}

/// Notes that `call` failed. That something is not over yet is an answer, not a failure.
#[cold]
pub fn failed(call: &'static str, status: Status) {
    if status == NOT_READY {
        return;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let milliseconds = (since.as_millis() % 86_400_000) as u64;
    let entry = Entry { milliseconds, thread: id(), call, status };
    let listeners = {
        let mut logs = logs();
        if logs.kept.len() == KEPT {
            logs.kept.pop_front();
        }
        logs.kept.push_back(entry);
        logs.count += 1;
        logs.listeners.clone()
    };
    if let Some(sink) = sink() {
        // One write each: processes that share the place do not interleave.
        let line = format!("{entry}\n");
        let _ = sink.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
    if !listeners.is_empty() {
        let mut message = format!("{entry}\0");
        for (_, callback, data) in listeners {
            let data = std::ptr::with_exposed_provenance_mut(data);
            callback(data, ERROR, message.as_mut_ptr().cast(), message.len() - 1);
        }
    }
}
