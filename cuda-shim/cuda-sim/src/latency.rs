//! What a machine file says of the time that calls and front ends take.

use cuda_shim_device::{Latency, Startup};
use serde::de::{Deserialize, Deserializer, Error};

use crate::values::{Moment, Part};

/// Declares the keys of a table `latency`, and which of the numbers each of them is.
macro_rules! latencies {
    ($($(#[$doc:meta])* $key:ident: $number:ident,)*) => {
        /// The table of a machine, or of a device, where `Start` is [`OfNoDevice`]. What it leaves out is said elsewhere.
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields, expecting = "a table of times, such as { launch = \"4us\" }")]
        pub struct Latencies<Start> {
            $($(#[$doc])* $key: Option<Moment>,)*
            /// Of `cuInit`.
            init: Option<Start>,
            /// Of the first `nvmlInit`.
            nvml_init: Option<Start>,
            /// How much shorter or longer each of them is at most, as a part of itself.
            jitter: Option<Part>,
            /// Other numbers make other jitter.
            seed: Option<u32>,
        }

        impl<Start> Latencies<Start> {
            /// Puts what the table says into what is so without it.
            pub fn put(&self, latency: &mut Latency) {
                $(replace(&mut latency.$number, self.$key.as_ref().map(|moment| moment.0));)*
                replace(&mut latency.jitter.ppm, self.jitter.as_ref().map(|part| part.0));
                replace(&mut latency.jitter.seed, self.seed.map(u64::from));
            }
        }
    };
}

impl Latencies<Moment> {
    /// Likewise, of what concerns no device.
    pub fn put_startup(&self, startup: &mut Startup) {
        replace(&mut startup.init_ns, self.init.as_ref().map(|moment| moment.0));
        replace(&mut startup.nvml_init_ns, self.nvml_init.as_ref().map(|moment| moment.0));
        replace(&mut startup.jitter.ppm, self.jitter.as_ref().map(|part| part.0));
        replace(&mut startup.jitter.seed, self.seed.map(u64::from));
    }
}

fn replace(number: &mut u64, told: Option<u64>) {
    *number = told.unwrap_or(*number);
}

/// What no device's table can say.
pub enum OfNoDevice {}

impl<'de> Deserialize<'de> for OfNoDevice {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(Error::custom("this call belongs to no device: write it in the machine's table [latency]"))
    }
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
