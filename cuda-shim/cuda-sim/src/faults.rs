//! What a machine file says of faults.

use std::num::NonZeroU64;

use cuda_shim_symbols::{CUDA_ERRORS, NVML_ERRORS, ROWS};
use serde::Deserialize;

use crate::states::Outcome;
use crate::values::{Duration, Pattern};

/// See [`cuda_shim_device::Fault`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    call: Pattern,
    nth: Option<NonZeroU64>,
    error: Option<String>,
    delay: Option<Duration>,
    late: Option<Duration>,
    one_in: Option<NonZeroU64>,
    #[serde(default)]
    sticky: bool,
    lost: Option<usize>,
    #[serde(default)]
    kill: bool,
    program: Option<String>,
}

impl Fault {
    /// The fault on a machine of so many devices; an error if it could never happen there.
    pub fn checked(self, devices: usize) -> Outcome<cuda_shim_device::Fault> {
        let call = self.call.0.clone();
        self.on(devices).map_err(|what| format!("fault of {call:?}: {what}"))
    }

    fn on(self, devices: usize) -> Outcome<cuda_shim_device::Fault> {
        if self.error.is_none()
            && self.delay.is_none()
            && self.late.is_none()
            && self.lost.is_none()
            && !self.kill
        {
            return Err("it says neither error nor delay nor late nor lost nor kill".into());
        }
        if self.nth.is_some() && self.one_in.is_some() {
            return Err("nth and one_in exclude each other".into());
        }
        if self.sticky && self.error.is_none() {
            return Err("sticky goes with an error".into());
        }
        if let Some(program) = self.program.as_deref().filter(|name| name.is_empty() || name.len() >= 48) {
            return Err(format!("program = {program:?} is no name of 1 to 47 bytes"));
        }
        if let Some(device) = self.lost.filter(|device| *device >= devices) {
            return Err(format!("lost = {device}, but the machine has {devices} devices"));
        }
        let fault = cuda_shim_device::Fault {
            error: self.error.map_or(Ok(0), |error| code(&self.call.0, &error))?,
            call: self.call.0,
            nth: self.nth.map(NonZeroU64::get),
            delay_ns: self.delay.map_or(0, |delay| delay.0),
            late_ns: self.late.map_or(0, |late| late.0),
            one_in: self.one_in.map(NonZeroU64::get),
            sticky: self.sticky,
            lost: self.lost,
            kill: self.kill,
            program: self.program,
        };
        let is_known = ROWS.iter().any(|row| fault.is_of(row.export));
        if is_known || fault.call.starts_with("nvml") { Ok(fault) } else { Err("no such function".into()) }
    }
}

/// The code of an error that a function can give.
fn code(call: &str, error: &str) -> Outcome<i32> {
    let (code, like) = if call.starts_with("nvml") {
        (
            NVML_ERRORS.iter().find(|(_, name)| *name == error).map(|(code, _)| *code),
            "NVML_ERROR_NOT_SUPPORTED",
        )
    } else {
        let all = &CUDA_ERRORS[1..];
        (
            all.iter().find(|(_, name)| name.to_bytes() == error.as_bytes()).map(|(code, _)| *code),
            "CUDA_ERROR_OUT_OF_MEMORY",
        )
    };
    code.ok_or_else(|| format!("{error:?} is none of its errors, such as {like}"))
}
