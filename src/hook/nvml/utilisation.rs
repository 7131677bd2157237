//! How busy a device is, as the container's tools read it: by the container's own work. Of another figure no part of others'
//! may be shown; where the container's part is not known, the answer is that it is not supported.
//!
//! # Safety
//! This file may use `unsafe` because it rewrites records that NVML has just written successfully, within the count that it
//! wrote.
#![allow(unsafe_code)]

use super::{SUCCESS, sys, target};
use crate::devices::Target;
use crate::driver::nvml::instances;
use crate::driver::nvml::samples::{Engine, Percentages};
use crate::hook::hooks;
use crate::process::{Process, Quota, quota};
use crate::view::activity;
use core::ffi::{c_uint, c_ulonglong};
use sys::{nvmlDevice_t, nvmlReturn_t};

const NOT_SUPPORTED: nvmlReturn_t = nvmlReturn_t::NVML_ERROR_NOT_SUPPORTED;

/// The process's state, if tools see the container's own work on a device instead of the whole device's.
pub(super) fn sees_own_work(device: nvmlDevice_t) -> Option<&'static Process> {
    let Quota::On(process) = quota() else { return None };
    let container = &process.scope.container;
    let sees = |one| process.scope.devices.shows_own_work(container, one);
    let own = match target(process, device, 0)? {
        Target::One(one) => sees(one),
        Target::Split => {
            let mut any = false;
            instances::each(device, &mut |instance| {
                any |= matches!(target(process, instance, 0), Some(Target::One(one)) if sees(one));
            });
            any
        }
    };
    own.then_some(process)
}

/// The container's part of what the engines of a device do.
struct Part {
    own: Percentages,
}

impl Part {
    /// `None` where tools see the whole device.
    fn of(device: nvmlDevice_t) -> Option<Self> {
        let process = sees_own_work(device)?;
        let own = match target(process, device, 0)? {
            Target::One(one) => activity::own(&process.scope, one, device),
            Target::Split => [None; 6],
        };
        Some(Self { own })
    }

    /// The container's part of what an engine does in all; `None` if it is not known.
    fn of_whole(&self, engine: Engine, whole: c_uint) -> Option<c_uint> {
        if whole == 0 { Some(0) } else { Some(whole.min(*self.own.get(engine as usize)?.as_ref()?)) }
    }
}

fn rates(
    device: nvmlDevice_t,
    utilization: *mut sys::nvmlUtilization_t,
    answer: nvmlReturn_t,
) -> nvmlReturn_t {
    if answer != SUCCESS || utilization.is_null() {
        return answer;
    }
    // SAFETY: not null, and NVML has just written it.
    let rates = unsafe { &mut *utilization };
    if rates.gpu == 0 && rates.memory == 0 {
        return answer;
    }
    let Some(part) = Part::of(device) else { return answer };
    let processors = part.of_whole(Engine::Processors, rates.gpu);
    rates.gpu = processors.unwrap_or(0);
    // The structure has no place to say that this one alone is not known.
    rates.memory = part.of_whole(Engine::Memory, rates.memory).unwrap_or(0);
    if processors.is_some() { answer } else { NOT_SUPPORTED }
}

/// The figure of one engine.
fn rate(device: nvmlDevice_t, engine: Engine, percent: *mut c_uint, answer: nvmlReturn_t) -> nvmlReturn_t {
    if answer != SUCCESS || percent.is_null() {
        return answer;
    }
    // SAFETY: not null, and NVML has just written it.
    let percent = unsafe { &mut *percent };
    if *percent == 0 {
        return answer;
    }
    let Some(part) = Part::of(device) else { return answer };
    let own = part.of_whole(engine, *percent);
    *percent = own.unwrap_or(0);
    if own.is_some() { answer } else { NOT_SUPPORTED }
}

/// Averages over the sessions of all containers.
fn averages(
    device: nvmlDevice_t,
    sessions: *mut c_uint,
    others: &[*mut c_uint],
    answer: nvmlReturn_t,
) -> nvmlReturn_t {
    // SAFETY: not null, and NVML has just written it.
    if answer != SUCCESS || sessions.is_null() || unsafe { *sessions } == 0 || sees_own_work(device).is_none()
    {
        return answer;
    }
    for figure in others.iter().chain([&sessions]).filter(|figure| !figure.is_null()) {
        // SAFETY: as above.
        unsafe { **figure = 0 };
    }
    NOT_SUPPORTED
}

/// The engine of which a kind of samples tells; `None` for clocks, power and what else is the board's.
fn engine_of(kind: sys::nvmlSamplingType_t) -> Option<Engine> {
    match kind {
        sys::NVML_GPU_UTILIZATION_SAMPLES => Some(Engine::Processors),
        sys::NVML_MEMORY_UTILIZATION_SAMPLES => Some(Engine::Memory),
        sys::NVML_ENC_UTILIZATION_SAMPLES => Some(Engine::Encoder),
        sys::NVML_DEC_UTILIZATION_SAMPLES => Some(Engine::Decoder),
        sys::NVML_JPG_UTILIZATION_SAMPLES => Some(Engine::Jpeg),
        sys::NVML_OFA_UTILIZATION_SAMPLES => Some(Engine::OpticalFlow),
        _ => None,
    }
}

/// Samples of the device. NVML's samples of processes cannot be cut by the same times, so the newest sample alone remains,
/// with the container's part of the last second.
fn samples(
    device: nvmlDevice_t,
    kind: sys::nvmlSamplingType_t,
    count: *mut c_uint,
    samples: *mut sys::nvmlSample_t,
    answer: nvmlReturn_t,
) -> nvmlReturn_t {
    let Some(engine) = engine_of(kind) else { return answer };
    if answer != SUCCESS || count.is_null() || samples.is_null() {
        return answer;
    }
    // SAFETY: not null, and NVML has just written `count` entries.
    let (count, samples) = unsafe {
        let samples = core::slice::from_raw_parts_mut(samples, *count as usize);
        (&mut *count, samples)
    };
    let Some(part) = Part::of(device) else { return answer };
    // SAFETY: these kinds are of the type "unsigned int".
    let value = |sample: &sys::nvmlSample_t| unsafe { sample.sampleValue.uiVal };
    let Some(newest) = samples.iter().max_by_key(|sample| sample.timeStamp).copied() else { return answer };
    let own = part.of_whole(engine, value(&newest));
    for sample in samples.iter_mut() {
        sample.timeStamp = newest.timeStamp;
        sample.sampleValue = sys::nvmlValue_t { ullVal: own.unwrap_or(0).into() };
    }
    *count = c_uint::from(own.is_some());
    if own.is_some() { answer } else { NOT_SUPPORTED }
}

/// The domains that have an engine of ours; the others tell of the whole device alone, and count as absent.
fn domains(
    device: nvmlDevice_t,
    info: *mut sys::nvmlGpuDynamicPstatesInfo_t,
    answer: nvmlReturn_t,
) -> nvmlReturn_t {
    if answer != SUCCESS || info.is_null() {
        return answer;
    }
    let Some(part) = Part::of(device) else { return answer };
    // SAFETY: not null, and NVML has just written it.
    let info = unsafe { &mut *info };
    let engines =
        [Some(Engine::Processors), Some(Engine::Memory)].into_iter().chain(core::iter::repeat(None));
    for (domain, engine) in info.utilization.iter_mut().zip(engines) {
        match engine.and_then(|engine| part.of_whole(engine, domain.percentage)) {
            Some(own) => domain.percentage = own,
            None => (domain.bIsPresent, domain.percentage) = (0, 0),
        }
    }
    answer
}

/// Counters that tell of the whole device alone.
fn hidden(device: nvmlDevice_t, call: impl FnOnce() -> nvmlReturn_t) -> nvmlReturn_t {
    if sees_own_work(device).is_some() { NOT_SUPPORTED } else { call() }
}

/// Whether the device has counters for the caller.
fn counters(device: nvmlDevice_t, support: *mut sys::nvmlGpmSupport_t, answer: nvmlReturn_t) -> nvmlReturn_t {
    if answer == SUCCESS && !support.is_null() && sees_own_work(device).is_some() {
        // SAFETY: not null, and NVML has just written it.
        unsafe { (*support).isSupportedDevice = 0 };
    }
    answer
}

hooks! { sys;
    nvmlDeviceGetUtilizationRates: fn(
        device: nvmlDevice_t, utilization: *mut sys::nvmlUtilization_t
    ) -> nvmlReturn_t = |real| rates(device, utilization, real());
    nvmlDeviceGetEncoderUtilization: fn(
        device: nvmlDevice_t, percent: *mut c_uint, period: *mut c_uint
    ) -> nvmlReturn_t = |real| rate(device, Engine::Encoder, percent, real());
    nvmlDeviceGetDecoderUtilization: fn(
        device: nvmlDevice_t, percent: *mut c_uint, period: *mut c_uint
    ) -> nvmlReturn_t = |real| rate(device, Engine::Decoder, percent, real());
    nvmlDeviceGetJpgUtilization: fn(
        device: nvmlDevice_t, percent: *mut c_uint, period: *mut c_uint
    ) -> nvmlReturn_t = |real| rate(device, Engine::Jpeg, percent, real());
    nvmlDeviceGetOfaUtilization: fn(
        device: nvmlDevice_t, percent: *mut c_uint, period: *mut c_uint
    ) -> nvmlReturn_t = |real| rate(device, Engine::OpticalFlow, percent, real());
    nvmlDeviceGetSamples: fn(
        device: nvmlDevice_t, kind: sys::nvmlSamplingType_t, last: c_ulonglong,
        value: *mut sys::nvmlValueType_t, count: *mut c_uint, list: *mut sys::nvmlSample_t
    ) -> nvmlReturn_t = |real| samples(device, kind, count, list, real());
    nvmlDeviceGetDynamicPstatesInfo: fn(
        device: nvmlDevice_t, info: *mut sys::nvmlGpuDynamicPstatesInfo_t
    ) -> nvmlReturn_t = |real| domains(device, info, real());
    nvmlDeviceGetEncoderStats: fn(
        device: nvmlDevice_t, sessions: *mut c_uint, frames: *mut c_uint, latency: *mut c_uint
    ) -> nvmlReturn_t = |real| averages(device, sessions, &[frames, latency], real());
    nvmlDeviceGetFBCStats: fn(device: nvmlDevice_t, stats: *mut sys::nvmlFBCStats_t) -> nvmlReturn_t
        = |real| {
            let [count, frames, latency] = [0, 1, 2].map(|at| stats.cast::<c_uint>().wrapping_add(at));
            averages(device, count, &[frames, latency], real())
        };
    nvmlGpmSampleGet: fn(device: nvmlDevice_t, sample: sys::nvmlGpmSample_t) -> nvmlReturn_t
        = |real| hidden(device, real);
    nvmlGpmMigSampleGet: fn(
        device: nvmlDevice_t, instance: c_uint, sample: sys::nvmlGpmSample_t
    ) -> nvmlReturn_t = |real| hidden(device, real);
    nvmlGpmQueryDeviceSupport: fn(
        device: nvmlDevice_t, support: *mut sys::nvmlGpmSupport_t
    ) -> nvmlReturn_t = |real| counters(device, support, real());
}
