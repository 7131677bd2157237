//! What a machine file says of the time that calls and front ends take.

use cuda_shim_device::Latency;
use serde::Deserialize;

use crate::values::{Connections, Moment, Part};

/// Declares the keys of the table `[latency]`, and which of the numbers each of them is.
macro_rules! latencies {
    ($($(#[$doc:meta])* $key:ident: $number:ident,)*) => {
        /// What is left out takes what it takes on the built-in device, or nothing.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Latencies {
            $($(#[$doc])* $key: Option<Moment>,)*
            /// How much shorter or longer each of them is at most, as a part of itself.
            jitter: Option<Part>,
            /// Other numbers make other jitter.
            seed: Option<u32>,
        }

        impl Latencies {
            fn put(self, latency: &mut Latency) {
                $(if let Some(moment) = self.$key {
                    latency.$number = moment.0;
                })*
                if let Some(part) = self.jitter {
                    latency.jitter_ppm = part.0;
                }
                if let Some(seed) = self.seed {
                    latency.seed = seed.into();
                }
            }
        }
    };
}

latencies! {
    /// The host's part of a launch call.
    launch: launch_ns,
    /// What the first launch out of a module takes more.
    module_launch: module_launch_ns,
    /// What the first launch of a function takes more.
    function_launch: function_launch_ns,
    /// Of `cuEventRecord`.
    record: record_ns,
    /// Of `cuEventQuery` and `cuStreamQuery`.
    query: query_ns,
    /// Of calls that wait.
    synchronize: synchronize_ns,
    /// From the end of what a call waits for to its return.
    wake: wake_ns,
    /// Of `cuInit`.
    init: init_ns,
    /// Of making a context.
    context: context_ns,
    /// Of loading a module or a library.
    module: module_ns,
    /// Of `cuMemAlloc`.
    allocate: allocate_ns,
    /// Of `cuMemFree`.
    free: free_ns,
    /// Of `cuMemGetInfo`.
    memory_info: memory_info_ns,
    /// Of the first `nvmlInit`.
    nvml_init: nvml_init_ns,
    /// Of a list of processes of NVML.
    processes: processes_ns,
    /// And of each process in it.
    each_process: each_process_ns,
    /// From the end of a launch call to the begin of its kernel in an idle stream.
    dispatch: dispatch_ns,
    /// Between kernels that are queued in one stream.
    gap: gap_ns,
    /// Between an event and a kernel queued behind it.
    gap_after_event: gap_after_event_ns,
    /// What an event takes of its stream's time.
    event: event_ns,
    /// Of a switch to another process that interrupts a kernel.
    preempt: preempt_ns,
    /// Of one from a process that has no work.
    switch: switch_ns,
}

/// What takes time on a machine: what is usual there, and what its file says.
pub fn of(
    usual: Option<Latency>,
    told: Option<Latencies>,
    connections: Option<Connections>,
) -> Option<Latency> {
    if told.is_none() && connections.is_none() {
        return usual;
    }
    let mut latency = usual.unwrap_or_default();
    if let Some(told) = told {
        told.put(&mut latency);
    }
    if let Some(connections) = connections {
        latency.connections = connections.0;
    }
    Some(latency)
}
