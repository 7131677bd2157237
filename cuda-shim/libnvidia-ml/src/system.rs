//! `nvmlSystem*`: versions, names of processes, and what a machine of servers' GPUs does not have.

use core::ffi::c_char;

use crate::abi::{Code, Error, Out, code, put_text};
use crate::export::nvml;
use crate::library::{machine, open};

/// NVML's own version: the CUDA major version, a dot, the driver's. Answers before `nvmlInit`, too.
#[allow(unsafe_code, non_snake_case)]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetNVMLVersion(version: Out<c_char>, length: u32) -> Code {
    code(open().and_then(|state| {
        let machine = state.machine();
        put_text(version, length, format!("{}.{}", machine.cuda_version / 1000, machine.driver_version))
    }))
}

/// The command by which a process was started, without its arguments.
pub fn program(pid: u32) -> Result<Vec<u8>, Error> {
    let mut command = std::fs::read(format!("/proc/{pid}/cmdline")).map_err(|_| Error::NotFound)?;
    command.truncate(command.iter().position(|byte| *byte == 0).unwrap_or(command.len()));
    Ok(command)
}

nvml! {
    /// The version of the kernel driver.
    fn nvmlSystemGetDriverVersion(version: Out<c_char>, length: u32) {
        put_text(version, length, &machine()?.machine().driver_version)
    }

    /// The CUDA version of the driver, as `cuDriverGetVersion` has it.
    fn nvmlSystemGetCudaDriverVersion(version: Out<i32>) {
        version.put(machine()?.machine().cuda_version)
    }

    /// The same.
    fn nvmlSystemGetCudaDriverVersion_v2(version: Out<i32>) {
        version.put(machine()?.machine().cuda_version)
    }

    /// The command by which a process was started, cut to what fits.
    fn nvmlSystemGetProcessName(pid: u32, name: Out<c_char>, length: u32) {
        if name.is_null() || length == 0 {
            return Err(Error::InvalidArgument);
        }
        let program = program(pid)?;
        put_text(name, length, &program[..program.len().min(length as usize - 1)])
    }

    /// S-class units are not simulated.
    fn nvmlUnitGetCount(count: Out<u32>) {
        count.put(0)
    }

    /// No device is kept from use.
    fn nvmlGetExcludedDeviceCount(count: Out<u32>) {
        count.put(0)
    }
}
