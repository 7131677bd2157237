//! What the devices know, for programs and for people.

use cuda_shim_device::State;
use serde_json::json;

use crate::states::{Outcome, existing};

/// Prints the truth of a state.
pub fn print(name: Option<&str>, as_json: bool) -> Outcome<()> {
    let path = existing(name)?;
    let state = State::open(&path).map_err(|error| error.to_string())?;
    let truth = state.truth();
    let devices: Vec<_> = state.machine().devices.iter().zip(&truth.devices).enumerate().collect();
    if as_json {
        let devices: Vec<_> = devices
            .iter()
            .map(|(index, (spec, device))| {
                let processes: Vec<_> = device
                    .processes
                    .iter()
                    .map(|process| {
                        json!({
                            "pid": process.pid,
                            "alive": process.alive,
                            "requested_bytes": process.requested_bytes,
                            "requested_peak_bytes": process.requested_peak_bytes,
                            "physical_bytes": process.physical_bytes,
                            "context_bytes": process.context_bytes,
                            "busy_ns": process.busy_ns,
                            "kernels": process.kernels,
                        })
                    })
                    .collect();
                json!({
                    "index": index,
                    "uuid": spec.uuid_string(),
                    "name": spec.name,
                    "total_bytes": spec.total_bytes,
                    "requested_bytes": device.requested_bytes,
                    "requested_peak_bytes": device.requested_peak_bytes,
                    "physical_bytes": device.physical_bytes,
                    "physical_peak_bytes": device.physical_peak_bytes,
                    "context_bytes": device.context_bytes,
                    "teardown_bytes": device.teardown_bytes,
                    "busy_ns": device.busy_ns,
                    "kernels": device.kernels,
                    "processes": processes,
                })
            })
            .collect();
        println!("{}", json!({ "clock_ns": truth.clock_ns, "devices": devices }));
        return Ok(());
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for (index, (spec, device)) in devices {
        println!("device {index}  {}  {}  {:.0} MiB", spec.name, spec.uuid_string(), mib(spec.total_bytes));
        println!(
            "  asked for {:.1} MiB (highest {:.1})  taken {:.1} MiB (contexts {:.1})  busy {:.3} s  kernels {}",
            mib(device.requested_bytes),
            mib(device.requested_peak_bytes),
            mib(device.physical_bytes),
            mib(device.context_bytes),
            device.busy_ns as f64 / 1e9,
            device.kernels
        );
        for process in &device.processes {
            println!(
                "  pid {:<8} {:<6} asked for {:.1} MiB (highest {:.1})  busy {:.3} s  kernels {}",
                process.pid,
                if process.alive { "alive" } else { "ended" },
                mib(process.requested_bytes),
                mib(process.requested_peak_bytes),
                process.busy_ns as f64 / 1e9,
                process.kernels
            );
        }
    }
    Ok(())
}
