//! How busy a device is, as a whole and by process.
//!
//! The driver closes a sample six times a second (real ones between six times and once, by product) and keeps those of
//! the last second; what it tells is never younger than the last closed sample. Traffic of memory, encoders and decoders
//! is not simulated: 0. Of split devices and of instances nothing is told.

use std::collections::BTreeMap;

use cuda_shim_device::clock_ns;

use crate::abi::{Error, Out, put_list};
use crate::export::nvml;
use crate::library::{Device, Handle};
use crate::pids::Naming;
use crate::sensors::power_at;
use crate::types::{
    ProcessUtilizationInfo, ProcessUtilizationSample, ProcessesUtilizationInfo, Sample, Utilization,
    expect_version, struct_version,
};
use crate::utilisation::{Closed, KEPT, PERIOD_NS, PERIOD_US, closed, percent, since_1970_us};

/// Microseconds since 1970, by which samples are told apart.
pub fn now_us() -> u64 {
    since_1970_us(clock_ns())
}

/// What each process did in the samples after `last_seen`: its pid, the time of the last sample and whole percent, 0 for one
/// that worked for less. Processes that did nothing are left out.
fn samples(device: &Device, last_seen: u64) -> Result<Vec<(u32, u64, u32)>, Error> {
    let new: Vec<_> = closed(device).filter(|sample| sample.time_stamp > last_seen).collect();
    let Some(time_stamp) = new.last().map(|sample| sample.time_stamp) else { return Err(Error::NotFound) };
    let mut busy = BTreeMap::new();
    for (process, time) in new.iter().flat_map(|sample| &sample.busy) {
        *busy.entry(*process).or_insert(0) += time;
    }
    let naming = Naming::of(device.state);
    let whole = PERIOD_NS * new.len() as u64;
    let told: Vec<_> = busy
        .into_iter()
        .filter(|(_, busy)| *busy > 0)
        .map(|(process, busy)| (process, (busy.min(whole) * 100 / whole) as u32))
        .map(|(process, percent)| (naming.sampled(process), time_stamp, percent))
        .collect();
    if told.is_empty() { Err(Error::NotFound) } else { Ok(told) }
}

/// `NVML_*_SAMPLES`.
const TOTAL_POWER: u32 = 0;
const UTILIZATION: u32 = 1;
const MEMORY_UTILIZATION: u32 = 2;
const PROCESSOR_CLOCK: u32 = 5;
const MEMORY_CLOCK: u32 = 6;
/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const UNSIGNED_INT: u32 = 1;

nvml! {
    /// Percent of the last sample period.
    fn nvmlDeviceGetUtilizationRates(device: Handle, utilization: Out<Utilization>) {
        utilization.put(Utilization { gpu: percent(&device.unsplit()?), memory: 0 })
    }

    /// The samples of one kind that are newer than `last_seen`, the oldest first, as many as there is room for; without an
    /// array, how many are kept.
    fn nvmlDeviceGetSamples(
        device: Handle,
        kind: u32,
        last_seen: u64,
        value_type: Out<u32>,
        count: Out<u32>,
        samples: Out<Sample>,
    ) {
        let whole = match kind {
            TOTAL_POWER | PROCESSOR_CLOCK | MEMORY_CLOCK => device.device()?,
            UTILIZATION | MEMORY_UTILIZATION => device.unsplit()?,
            3 | 4 | 7..=9 => return Err(Error::NotSupported),
            _ => return Err(Error::InvalidArgument),
        };
        let room = count.get()?;
        value_type.put(UNSIGNED_INT)?;
        if samples.is_null() {
            return count.put(KEPT as u32);
        }
        if room == 0 {
            return Err(Error::InvalidArgument);
        }
        let value = |sample: &Closed| match kind {
            TOTAL_POWER => power_at(&whole, sample.percent()),
            UTILIZATION => sample.percent(),
            PROCESSOR_CLOCK => whole.spec.sm_clock_khz / 1000,
            MEMORY_CLOCK => whole.spec.memory_clock_khz / 1000,
            _ => 0,
        };
        let new = closed(&whole).filter(|sample| sample.time_stamp > last_seen).take(room as usize);
        let new: Vec<_> =
            new.map(|sample| Sample { time_stamp: sample.time_stamp, value: value(&sample).into() }).collect();
        if new.is_empty() {
            return Err(Error::NotFound);
        }
        put_list(count, samples, &new)
    }

    /// One sample per process that worked, newer than `last_seen`; without room it tells how many.
    fn nvmlDeviceGetProcessUtilization(
        device: Handle,
        utilization: Out<ProcessUtilizationSample>,
        count: Out<u32>,
        last_seen: u64,
    ) {
        let device = device.unsplit()?;
        count.get()?;
        let busy = samples(&device, last_seen)?;
        if utilization.is_null() {
            count.put(busy.len() as u32)?;
            return Err(Error::InsufficientSize);
        }
        let found: Vec<_> = busy
            .into_iter()
            .map(|(pid, time_stamp, sm_util)| ProcessUtilizationSample {
                pid,
                time_stamp,
                sm_util,
                mem_util: 0,
                enc_util: 0,
                dec_util: 0,
            })
            .collect();
        put_list(count, utilization, &found)
    }

    /// The same in the later layout.
    fn nvmlDeviceGetProcessesUtilizationInfo(device: Handle, info: Out<ProcessesUtilizationInfo>) {
        let device = device.unsplit()?;
        let mut head = info.get()?;
        expect_version(head.version, struct_version::<ProcessesUtilizationInfo>(1))?;
        let busy = samples(&device, head.last_seen_time_stamp)?;
        let room = head.process_samples_count as usize;
        head.process_samples_count = busy.len() as u32;
        info.put(head)?;
        if room < busy.len() || head.proc_util_array.is_null() {
            return Err(Error::InsufficientSize);
        }
        busy.into_iter().enumerate().try_for_each(|(index, (pid, time_stamp, sm_util))| {
            head.proc_util_array.put_at(index, ProcessUtilizationInfo {
                time_stamp,
                pid,
                sm_util,
                mem_util: 0,
                enc_util: 0,
                dec_util: 0,
                jpg_util: 0,
                ofa_util: 0,
            })
        })
    }

    /// No encoder is simulated.
    fn nvmlDeviceGetEncoderUtilization(device: Handle, percent: Out<u32>, period_us: Out<u32>) {
        device.device()?;
        percent.put(0)?;
        period_us.put(PERIOD_US)
    }

    /// Nor a decoder.
    fn nvmlDeviceGetDecoderUtilization(device: Handle, percent: Out<u32>, period_us: Out<u32>) {
        device.device()?;
        percent.put(0)?;
        period_us.put(PERIOD_US)
    }
}
