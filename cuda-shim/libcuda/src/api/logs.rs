//! The driver's error log: every call that fails says so, as drivers do from CUDA 12.9 on.
//!
//! Where `CUDA_LOG_FILE` is `stdout`, `stderr` or a path, messages go there as they come; the last hundred can be
//! read back by `cuLogs*` at any time. A call that succeeds costs nothing.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::ffi::{Out, Outcome, Text, export};
use crate::status::{INVALID_VALUE, NOT_READY, Status, describe};

/// Messages that are kept.
const KEPT: usize = 100;
/// `CU_LOG_LEVEL_ERROR`.
const ERROR: u32 = 0;

/// `CUlogsCallback`.
type Callback = extern "C" fn(*mut c_void, u32, *mut c_char, usize);

/// One call that failed.
#[derive(Clone, Copy)]
struct Entry {
    /// Since midnight, UTC.
    milliseconds: u64,
    thread: u64,
    call: &'static str,
    status: Status,
}

struct Logs {
    kept: VecDeque<Entry>,
    /// Messages ever.
    count: u64,
    /// By their handles, which are never given twice.
    listeners: Vec<(u64, Callback, usize)>,
    next_handle: u64,
}

static LOGS: Mutex<Logs> =
    Mutex::new(Logs { kept: VecDeque::new(), count: 0, listeners: Vec::new(), next_handle: 1 });

fn logs() -> MutexGuard<'static, Logs> {
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
    let entry = Entry { milliseconds, thread: crate::thread::id(), call, status };
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

/// The messages from `iterator` on, which then stands behind the last one; all that are kept without one.
fn read(iterator: Out<u32>) -> Outcome<Vec<String>> {
    let logs = logs();
    let first = logs.count - logs.kept.len() as u64;
    let from = if iterator.is_null() { first } else { u64::from(iterator.get()?) };
    iterator.put_if(logs.count as u32);
    let lost = (from < first).then(|| "[older messages were overwritten]".to_owned());
    let kept = logs.kept.iter().skip(from.saturating_sub(first) as usize).map(Entry::to_string);
    Ok(lost.into_iter().chain(kept).collect())
}

export! {
    early fn cuLogsRegisterCallback(callback: Option<Callback>, data: *mut c_void, out: Out<u64>) {
        let callback = callback.ok_or(INVALID_VALUE)?;
        let mut logs = logs();
        let handle = logs.next_handle;
        logs.next_handle += 1;
        logs.listeners.push((handle, callback, data.expose_provenance()));
        out.put_if(handle);
        Ok(())
    }

    early fn cuLogsUnregisterCallback(handle: u64) {
        let mut logs = logs();
        let place = logs.listeners.iter().position(|(known, ..)| *known == handle).ok_or(INVALID_VALUE)?;
        logs.listeners.remove(place);
        Ok(())
    }

    early fn cuLogsCurrent(iterator: Out<u32>, flags: u32) {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        iterator.put(logs().count as u32)
    }

    early fn cuLogsDumpToFile(iterator: Out<u32>, path: Text, flags: u32) {
        let path = path.lossy()?;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let mut file = File::create(path).map_err(|_| INVALID_VALUE)?;
        for message in read(iterator)? {
            writeln!(file, "{message}").map_err(|_| INVALID_VALUE)?;
        }
        Ok(())
    }

    early fn cuLogsDumpToMemory(iterator: Out<u32>, buffer: Out<u8>, size: Out<u64>, flags: u32) {
        let room = size.get()? as usize;
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        let messages = read(iterator)?;
        // The newest messages that fit, each with its line feed, and the zero behind them.
        let mut used = 1;
        let fit = messages.iter().rev().take_while(|message| {
            used += message.len() + 1;
            used <= room
        });
        let count = fit.count();
        if count == 0 && !messages.is_empty() {
            size.put(0)?;
            return Err(INVALID_VALUE);
        }
        let text = messages[messages.len() - count..].iter().map(|message| format!("{message}\n"));
        let text: String = text.collect();
        size.put(text.len() as u64)?;
        if room > 0 {
            buffer.put_all(text.bytes().chain([0]));
        }
        Ok(())
    }
}
