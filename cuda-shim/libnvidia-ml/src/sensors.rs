//! Temperature, power, clocks, fans and the PCI link: constants of a healthy board, but for power, which
//! follows the device's work.

use crate::abi::{Answer, Error, Out};
use crate::export::nvml;
use crate::library::{Device, Handle};
use crate::types::{Temperature, expect_version, struct_version};
use crate::utilisation::percent;

/// Degrees Celsius, always.
const TEMPERATURE_C: u32 = 40;
/// Degrees at which the board would slow down and shut down.
const SLOWDOWN_C: u32 = 87;
const SHUTDOWN_C: u32 = 92;
/// Generation and width of the PCI link.
const PCIE: (u32, u32) = (5, 16);
/// `NVML_PSTATE_0`, full performance.
const P0: u32 = 0;

/// `NVML_CLOCK_*`.
const GRAPHICS: u32 = 0;
const SM: u32 = 1;
const MEMORY: u32 = 2;
const VIDEO: u32 = 3;

/// Milliwatts of a device at rest: a tenth of its limit.
pub fn idle_mw(device: &Device) -> u32 {
    device.spec.power_limit_mw / 10
}

/// Milliwatts now: from rest to the limit as the device works from nought to all the time.
pub fn power_mw(device: &Device) -> u32 {
    power_at(device, percent(device))
}

/// Milliwatts of a device that works so many percent of the time.
pub fn power_at(device: &Device, percent: u32) -> u32 {
    let idle = idle_mw(device);
    idle + (device.spec.power_limit_mw - idle) / 100 * percent
}

fn clock_mhz(device: Handle, clock: u32, mhz: Out<u32>) -> Answer {
    let spec = device.device()?.spec;
    match clock {
        GRAPHICS | SM => mhz.put(spec.sm_clock_khz / 1000),
        MEMORY => mhz.put(spec.memory_clock_khz / 1000),
        VIDEO => Err(Error::NotSupported),
        _ => Err(Error::InvalidArgument),
    }
}

fn constant(device: Handle, place: Out<u32>, value: u32) -> Answer {
    device.device()?;
    place.put(value)
}

nvml! {
    /// Degrees Celsius of the one sensor on the die.
    fn nvmlDeviceGetTemperature(device: Handle, sensor: u32, degrees: Out<u32>) {
        if sensor != 0 {
            return Err(Error::InvalidArgument);
        }
        constant(device, degrees, TEMPERATURE_C)
    }

    /// The same with a version.
    fn nvmlDeviceGetTemperatureV(device: Handle, temperature: Out<Temperature>) {
        device.device()?;
        let asked = temperature.get()?;
        expect_version(asked.version, struct_version::<Temperature>(1))?;
        if asked.sensor_type != 0 {
            return Err(Error::InvalidArgument);
        }
        temperature.put(Temperature { temperature: TEMPERATURE_C.cast_signed(), ..asked })
    }

    /// Degrees Celsius at which the board shuts down or slows down.
    fn nvmlDeviceGetTemperatureThreshold(device: Handle, threshold: u32, degrees: Out<u32>) {
        match threshold {
            0 => constant(device, degrees, SHUTDOWN_C),
            1 | 3 => constant(device, degrees, SLOWDOWN_C),
            2 | 4..=7 => Err(Error::NotSupported),
            _ => Err(Error::InvalidArgument),
        }
    }

    /// Milliwatts.
    fn nvmlDeviceGetPowerUsage(device: Handle, milliwatts: Out<u32>) {
        milliwatts.put(power_mw(&device.device()?))
    }

    /// The limit in milliwatts.
    fn nvmlDeviceGetPowerManagementLimit(device: Handle, milliwatts: Out<u32>) {
        milliwatts.put(device.device()?.spec.power_limit_mw)
    }

    /// The limit after a reboot.
    fn nvmlDeviceGetPowerManagementDefaultLimit(device: Handle, milliwatts: Out<u32>) {
        milliwatts.put(device.device()?.spec.power_limit_mw)
    }

    /// The lowest of all limits in force.
    fn nvmlDeviceGetEnforcedPowerLimit(device: Handle, milliwatts: Out<u32>) {
        milliwatts.put(device.device()?.spec.power_limit_mw)
    }

    /// Between what the limit may be set.
    fn nvmlDeviceGetPowerManagementLimitConstraints(device: Handle, least: Out<u32>, most: Out<u32>) {
        let device = device.device()?;
        least.put(idle_mw(&device))?;
        most.put(device.spec.power_limit_mw)
    }

    /// Power management is on.
    fn nvmlDeviceGetPowerManagementMode(device: Handle, mode: Out<u32>) {
        constant(device, mode, 1)
    }

    /// Full performance, always.
    fn nvmlDeviceGetPerformanceState(device: Handle, state: Out<u32>) {
        constant(device, state, P0)
    }

    /// The same by its old name.
    fn nvmlDeviceGetPowerState(device: Handle, state: Out<u32>) {
        constant(device, state, P0)
    }

    /// MHz of a domain.
    fn nvmlDeviceGetClockInfo(device: Handle, clock: u32, mhz: Out<u32>) {
        clock_mhz(device, clock, mhz)
    }

    /// The highest; a simulated device runs at it.
    fn nvmlDeviceGetMaxClockInfo(device: Handle, clock: u32, mhz: Out<u32>) {
        clock_mhz(device, clock, mhz)
    }

    /// Every meaning of "the clock" (current, target, default, boost) is the same here.
    fn nvmlDeviceGetClock(device: Handle, clock: u32, id: u32, mhz: Out<u32>) {
        if id > 3 {
            return Err(Error::InvalidArgument);
        }
        clock_mhz(device, clock, mhz)
    }

    /// What the application asked for: the highest.
    fn nvmlDeviceGetApplicationsClock(device: Handle, clock: u32, mhz: Out<u32>) {
        clock_mhz(device, clock, mhz)
    }

    /// Nothing holds the clocks back.
    fn nvmlDeviceGetCurrentClocksThrottleReasons(device: Handle, reasons: Out<u64>) {
        device.device()?;
        reasons.put(0)
    }

    /// The same by its later name.
    fn nvmlDeviceGetCurrentClocksEventReasons(device: Handle, reasons: Out<u64>) {
        device.device()?;
        reasons.put(0)
    }

    /// The PCI link's generation.
    fn nvmlDeviceGetCurrPcieLinkGeneration(device: Handle, generation: Out<u32>) {
        constant(device, generation, PCIE.0)
    }

    /// The most that device and slot allow.
    fn nvmlDeviceGetMaxPcieLinkGeneration(device: Handle, generation: Out<u32>) {
        constant(device, generation, PCIE.0)
    }

    /// The most that the device allows.
    fn nvmlDeviceGetGpuMaxPcieLinkGeneration(device: Handle, generation: Out<u32>) {
        constant(device, generation, PCIE.0)
    }

    /// The PCI link's lanes.
    fn nvmlDeviceGetCurrPcieLinkWidth(device: Handle, lanes: Out<u32>) {
        constant(device, lanes, PCIE.1)
    }

    /// The most.
    fn nvmlDeviceGetMaxPcieLinkWidth(device: Handle, lanes: Out<u32>) {
        constant(device, lanes, PCIE.1)
    }

    /// KB/s over the PCI link: traffic is not simulated.
    fn nvmlDeviceGetPcieThroughput(device: Handle, counter: u32, rate: Out<u32>) {
        if counter > 1 {
            return Err(Error::InvalidArgument);
        }
        constant(device, rate, 0)
    }

    /// Replays on the PCI link.
    fn nvmlDeviceGetPcieReplayCounter(device: Handle, replays: Out<u32>) {
        constant(device, replays, 0)
    }

    /// The board is cooled by its server.
    fn nvmlDeviceGetNumFans(device: Handle, fans: Out<u32>) {
        constant(device, fans, 0)
    }
}
