//! Values of machine files, most of them written as text.

use cuda_shim_device::machine::{MAX_PARAMETERS, MAX_PATTERN, parse_duration};
use cuda_shim_device::spec::MAX_NAME;
use cuda_shim_device::{DeviceSpec, Latency, PRESETS, Startup};
use serde::Deserialize;

/// Declares values that are written as text, each with the function that reads it.
macro_rules! text {
    ($($(#[$doc:meta])* $name:ident($inner:ty) by $read:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(pub $inner);

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                $read(&text).map(Self)
            }
        }
    )*};
}

text! {
    /// The version of a driver.
    Version(String) by version;
    /// A CUDA version as `1000 * major + 10 * minor`.
    CudaVersion(i32) by cuda_version;
    /// Nanoseconds.
    Duration(u64) by duration;
    /// Nanoseconds, of a second at most.
    Moment(u64) by moment;
    /// Nanoseconds that a process has a device while others wait.
    Slice(u64) by slice;
    /// Bytes.
    Size(u64) by size;
    /// A built-in device by its name.
    Preset(String) by preset;
    /// The name of a device.
    Name(String) by name;
    /// A name in which `*` stands for any run of characters.
    Pattern(String) by pattern;
}

/// The number of a kernel's parameter.
#[derive(Deserialize)]
#[serde(try_from = "i64")]
pub struct Parameter(pub u8);

impl TryFrom<i64> for Parameter {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let known = u8::try_from(number).ok().filter(|number| *number < MAX_PARAMETERS);
        known
            .map(Self)
            .ok_or_else(|| format!("{number}: parameters have the numbers 0 to {}", MAX_PARAMETERS - 1))
    }
}

/// Queues between a process and a device.
#[derive(Deserialize)]
#[serde(try_from = "i64")]
pub struct Connections(pub u64);

impl TryFrom<i64> for Connections {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let known = u64::try_from(number).ok().filter(|number| (1..=32).contains(number));
        known.map(Self).ok_or_else(|| format!("{number}: write a number of queues from 1 to 32"))
    }
}

/// A part of something, in millionths.
#[derive(Deserialize)]
#[serde(try_from = "f64")]
pub struct Part(pub u64);

impl TryFrom<f64> for Part {
    type Error = String;

    fn try_from(part: f64) -> Result<Self, String> {
        if !(0.0..=1.0).contains(&part) {
            return Err(format!("{part}: write a part from 0 to 1, such as 0.2"));
        }
        Ok(Self((part * 1e6).round() as u64))
    }
}

/// What becomes of the handles of what is gone.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handles {
    /// They mean nothing any more.
    #[default]
    Checked,
    /// The next object of the same kind gets them.
    Reused,
}

fn version(text: &str) -> Result<String, String> {
    let numbers =
        text.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if numbers && text.len() < 32 {
        Ok(text.into())
    } else {
        Err(format!("{text:?}: a version is written 580.65.06"))
    }
}

fn cuda_version(text: &str) -> Result<i32, String> {
    let parts = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse::<u8>().ok()?, minor.parse::<u8>().ok()?)));
    let version = parts
        .filter(|(_, minor)| *minor < 100)
        .map(|(major, minor)| i32::from(major) * 1000 + i32::from(minor) * 10);
    version.ok_or_else(|| format!("{text:?}: a CUDA version is written 13.0"))
}

fn duration(text: &str) -> Result<u64, String> {
    parse_duration(text)
        .ok_or_else(|| format!("{text:?}: write a duration such as 2ms (units ns, us, ms, s)"))
}

fn moment(text: &str) -> Result<u64, String> {
    let ns = duration(text)?;
    if ns > 1_000_000_000 { Err(format!("{text:?}: write at most 1s")) } else { Ok(ns) }
}

fn slice(text: &str) -> Result<u64, String> {
    let ns = moment(text)?;
    if ns < 10_000 { Err(format!("{text:?}: write at least 10us")) } else { Ok(ns) }
}

fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "B" => 1u64,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let size =
        digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|size| *size > 0);
    size.ok_or_else(|| format!("{text:?}: write a size such as 80GiB (units B, KiB, MiB, GiB)"))
}

fn preset(text: &str) -> Result<String, String> {
    if !PRESETS.contains(&text) {
        return Err(format!("{text:?} is no built-in device: {}", PRESETS.join(", ")));
    }
    Ok(text.into())
}

impl Preset {
    /// The device, in the first place of its machine.
    pub fn spec(&self) -> DeviceSpec {
        DeviceSpec::preset(&self.0, 0).expect("a built-in device")
    }

    /// What its calls take.
    pub fn latency(&self) -> Option<Latency> {
        Latency::preset(&self.0)
    }

    /// What starting takes on a machine of such devices.
    pub fn startup(&self) -> Option<Startup> {
        Startup::preset(&self.0)
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() >= MAX_NAME {
        return Err(format!("{text:?}: a name has 1 to {} bytes", MAX_NAME - 1));
    }
    Ok(text.into())
}

fn pattern(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() >= MAX_PATTERN {
        return Err(format!("{text:?}: a pattern has 1 to {} bytes", MAX_PATTERN - 1));
    }
    Ok(text.into())
}
