//! NVML's samples of how busy processes keep a device.
//!
//! # Safety
//! This file may use `unsafe` because it calls NVML with pointers to its own locals and to the records of `records`.
#![allow(unsafe_code)]

use super::{pids, records, sys};
use sys::{nvmlDevice_t, nvmlProcessUtilizationInfo_v1_t, nvmlProcessUtilizationSample_t};

/// The engines of a device that have a figure of their own, in the order of [`Percentages`].
#[derive(Clone, Copy)]
pub enum Engine {
    /// The multiprocessors.
    Processors,
    /// The memory.
    Memory,
    /// The video encoders.
    Encoder,
    /// The video decoders.
    Decoder,
    /// The decoders of JPEG images.
    Jpeg,
    /// The optical flow accelerator.
    OpticalFlow,
}

/// How busy each engine is, in percent; `None` where it is not known.
pub type Percentages = [Option<u32>; 6];

/// A record of either layout.
trait Record {
    fn pid(&self) -> u32;
    /// Microseconds since 1970.
    fn time_stamp(&self) -> u64;
    fn percentages(&self) -> Percentages;
}

impl Record for nvmlProcessUtilizationSample_t {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn time_stamp(&self) -> u64 {
        self.timeStamp
    }

    fn percentages(&self) -> Percentages {
        [Some(self.smUtil), Some(self.memUtil), Some(self.encUtil), Some(self.decUtil), None, None]
    }
}

impl Record for nvmlProcessUtilizationInfo_v1_t {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn time_stamp(&self) -> u64 {
        self.timeStamp
    }

    fn percentages(&self) -> Percentages {
        [self.smUtil, self.memUtil, self.encUtil, self.decUtil, self.jpgUtil, self.ofaUtil].map(Some)
    }
}

/// Calls its argument with the pid of each process that is meant.
pub type EachPid<'a> = &'a mut dyn FnMut(&mut dyn FnMut(u32));

/// What some processes of this PID namespace did together with a device since a time, microseconds since 1970. `None`
/// where the driver does not tell it of single processes, or tells it by pids that the library cannot recognise.
pub fn of_processes(device: nvmlDevice_t, since_us: u64, each_pid: EachPid<'_>) -> Option<Percentages> {
    if !pids::of_samples_are_ours() {
        return None;
    }
    let later = sys::nvmlDeviceGetProcessesUtilizationInfo::REAL.get().and_then(|query| {
        let list = |count: &mut u32, records: *mut nvmlProcessUtilizationInfo_v1_t| {
            let mut info = sys::nvmlProcessesUtilizationInfo_t {
                version: size_of::<sys::nvmlProcessesUtilizationInfo_t>() as u32 | 1 << 24,
                processSamplesCount: *count,
                lastSeenTimeStamp: since_us,
                procUtilArray: records,
            };
            // SAFETY: writes to a local, and to as many records as it says.
            let answer = unsafe { query(device, &mut info) };
            *count = info.processSamplesCount;
            Some(answer)
        };
        // SAFETY: plain data.
        unsafe { records::read(list, |records| sum(records, since_us, each_pid)) }
    });
    if later.is_some() {
        return later;
    }
    let query = sys::nvmlDeviceGetProcessUtilization::REAL.get()?;
    // SAFETY: there is space for `count` records; plain data.
    unsafe {
        records::read(
            |count, records| Some(query(device, records, count, since_us)),
            |records: &[nvmlProcessUtilizationSample_t]| sum(records, since_us, each_pid),
        )
    }
}

/// The sum of the newest record of each process. Records of old samples, and figures that are no percentages, count as
/// unknown: drivers have given both.
fn sum<T: Record>(records: &[T], since_us: u64, each_pid: EachPid<'_>) -> Percentages {
    let mut total: Percentages = [Some(0); 6];
    each_pid(&mut |pid| {
        let new = records.iter().filter(|record| record.pid() == pid && record.time_stamp() > since_us);
        if let Some(newest) = new.max_by_key(|record| record.time_stamp()) {
            for (total, percent) in total.iter_mut().zip(newest.percentages()) {
                let percent = percent.filter(|percent| *percent <= 100);
                *total = total.zip(percent).map(|(total, percent)| total.saturating_add(percent));
            }
        }
    });
    total
}

#[cfg(test)]
mod tests;
