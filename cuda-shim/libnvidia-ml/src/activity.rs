//! How busy a device is, as a whole and by process.
//!
//! A real driver samples between six times and once a second, by product; this one looks back over a sixth
//! of a second whenever it is asked. Traffic of memory, encoders and decoders is not simulated: 0.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::abi::{Error, Out, put_list};
use crate::library::{Device, Handle};
use crate::pids::as_seen;
use crate::types::{
    ProcessUtilizationInfo, ProcessUtilizationSample, ProcessesUtilizationInfo, Utilization, expect_version,
    struct_version,
};

/// The sample period.
const PERIOD_NS: u64 = 1_000_000_000 / 6;
const PERIOD_US: u32 = (PERIOD_NS / 1000) as u32;

/// Share of the last sample period in which the device worked, in percent.
pub fn percent(device: &Device) -> u32 {
    device.state.utilisation(device.index, PERIOD_NS)
}

/// Microseconds since 1970, by which samples are told apart.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Pid and percent of every process that worked in the last sample period, and when it ended.
fn samples(device: &Device, last_seen: u64) -> Result<(u64, Vec<(u32, u32)>), Error> {
    let now = now_us();
    let mut busy = device.state.process_utilisation(device.index, PERIOD_NS);
    busy.retain(|(_, percent)| *percent > 0);
    let busy = as_seen(busy);
    if busy.is_empty() || now <= last_seen { Err(Error::NotFound) } else { Ok((now, busy)) }
}

nvml! {
    /// Percent of the last sample period.
    fn nvmlDeviceGetUtilizationRates(device: Handle, utilization: Out<Utilization>) {
        utilization.put(Utilization { gpu: percent(&device.device()?), memory: 0 })
    }

    /// One sample per process that worked, newer than `last_seen`; without room it tells how many.
    fn nvmlDeviceGetProcessUtilization(
        device: Handle,
        utilization: Out<ProcessUtilizationSample>,
        count: Out<u32>,
        last_seen: u64,
    ) {
        let device = device.device()?;
        count.get()?;
        let (time_stamp, busy) = samples(&device, last_seen)?;
        if utilization.is_null() {
            count.put(busy.len() as u32)?;
            return Err(Error::InsufficientSize);
        }
        let found: Vec<_> = busy
            .into_iter()
            .map(|(pid, sm_util)| ProcessUtilizationSample {
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
        let device = device.device()?;
        let mut head = info.get()?;
        expect_version(head.version, struct_version::<ProcessesUtilizationInfo>(1))?;
        let (time_stamp, busy) = samples(&device, head.last_seen_time_stamp)?;
        let room = head.process_samples_count as usize;
        head.process_samples_count = busy.len() as u32;
        info.put(head)?;
        if room < busy.len() || head.proc_util_array.is_null() {
            return Err(Error::InsufficientSize);
        }
        busy.into_iter().enumerate().try_for_each(|(index, (pid, sm_util))| {
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
