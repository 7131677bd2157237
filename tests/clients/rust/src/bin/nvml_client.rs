//! nvml-wrapper: what most Rust monitors reach NVML with. Says what it sees of device 0.

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

fn main() -> Result<(), NvmlError> {
    let nvml = Nvml::init()?;
    let device = nvml.device_by_index(0)?;
    println!("device={}", device.name()?);
    println!("driver={}", nvml.sys_driver_version()?);
    println!("uuid={}", device.uuid()?);
    let memory = device.memory_info()?;
    println!("total={}\nfree={}\nused={}", memory.total, memory.free, memory.used);
    println!("processes={}", device.running_compute_processes()?.len());
    println!("utilization={}", device.utilization_rates()?.gpu);
    println!("temperature={}", device.temperature(TemperatureSensor::Gpu)?);
    Ok(())
}
