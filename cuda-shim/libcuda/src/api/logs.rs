//! The driver's error log: every call that fails says so, as drivers do from CUDA 12.9 on.
//!
//! Where `CUDA_LOG_FILE` is `stdout`, `stderr` or a path, messages go there as they come; the last hundred can be
//! read back by `cuLogs*` at any time. A call that succeeds costs nothing.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io::Write;

use crate::api::export::export;
use crate::model::logs::{Callback, Entry, logs};
use crate::tools::ffi::{Out, Text};
use crate::tools::status::{INVALID_VALUE, Outcome};

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
