//! NVML's samples of how busy processes keep a device.
//!
//! # Safety
//! This file may use `unsafe` because it calls NVML with pointers to its own locals and to the records of `records`.
#![allow(unsafe_code)]

use super::{handle, initialise, pids, records, sys};
use crate::uuid::Uuid;
use gpuquota_region::sys as kernel;
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

/// Finds the newest record of a process by its pid: when its sample was closed, microseconds since 1970, and what it says.
type Find<'a> = &'a dyn Fn(u32) -> Option<(u64, Percentages)>;

/// What some processes of this PID namespace did together with a device since a time, microseconds since 1970. `None`
/// where the driver does not tell it of single processes, or tells it by pids that the library cannot recognise.
pub fn of_processes(device: nvmlDevice_t, since_us: u64, each_pid: EachPid<'_>) -> Option<Percentages> {
    let mut total = None;
    newest(device, since_us, &mut |find| total = Some(sum(find, each_pid)))?;
    total
}

/// When the newest sample since a time in which this process did something on a device was closed, microseconds since 1970,
/// and for how much of it, in percent, it kept the multiprocessors busy. The inner `None`: there is no such sample.
#[cold]
pub fn of_this_process(uuid: &Uuid, since_us: u64) -> Option<Option<(u64, u32)>> {
    let device = if initialise() { handle(uuid) } else { None }?;
    let mut own = None;
    newest(device, since_us, &mut |find| {
        let known =
            |(at, [processors, ..]): (u64, Percentages)| Some((at, processors.filter(|it| *it <= 100)?));
        own = find(kernel::pid()).and_then(known);
    })?;
    Some(own)
}

/// Calls `then` with the newest records of processes since a time. `None` where the driver does not tell them.
fn newest(device: nvmlDevice_t, since_us: u64, then: &mut dyn FnMut(Find<'_>)) -> Option<()> {
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
        unsafe { records::read(list, |records| then(&|pid| find(records, since_us, pid))) }
    });
    if later.is_some() {
        return later;
    }
    let query = sys::nvmlDeviceGetProcessUtilization::REAL.get()?;
    // SAFETY: there is space for `count` records; plain data.
    unsafe {
        records::read(
            |count, records| Some(query(device, records, count, since_us)),
            |records: &[nvmlProcessUtilizationSample_t]| then(&|pid| find(records, since_us, pid)),
        )
    }
}

/// The newest record of a process. Drivers have given records of old samples too.
fn find<T: Record>(records: &[T], since_us: u64, pid: u32) -> Option<(u64, Percentages)> {
    let new = records.iter().filter(|record| record.pid() == pid && record.time_stamp() > since_us);
    let newest = new.max_by_key(|record| record.time_stamp())?;
    Some((newest.time_stamp(), newest.percentages()))
}

/// The sum of the newest record of each process. Figures that are no percentages count as unknown: drivers have given them.
fn sum(find: Find<'_>, each_pid: EachPid<'_>) -> Percentages {
    let mut total: Percentages = [Some(0); 6];
    each_pid(&mut |pid| {
        if let Some((_, percentages)) = find(pid) {
            for (total, percent) in total.iter_mut().zip(percentages) {
                let percent = percent.filter(|percent| *percent <= 100);
                *total = total.zip(percent).map(|(total, percent)| total.saturating_add(percent));
            }
        }
    });
    total
}

#[cfg(test)]
mod tests;
