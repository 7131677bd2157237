//! What calls take of their host's time, and the front end of a device of its streams'. Pure data.

/// What the calls that concern a device take, and its front end. Nanoseconds, where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The host's part of a launch.
    pub launch_ns: u64,
    /// What the first launch of any function of a module takes more: code is loaded late.
    pub module_launch_ns: u64,
    /// What the first launch of a function takes more.
    pub function_launch_ns: u64,
    /// The host's part of recording an event.
    pub record_ns: u64,
    /// The host's part of asking whether an event or a stream is over.
    pub query_ns: u64,
    /// The host's part of waiting for something.
    pub synchronize_ns: u64,
    /// How long after the end of what it waits for a call returns.
    pub wake_ns: u64,
    /// Making a context.
    pub context_ns: u64,
    /// Loading a module.
    pub module_ns: u64,
    /// `cuMemAlloc`.
    pub allocate_ns: u64,
    /// `cuMemFree`.
    pub free_ns: u64,
    /// `cuMemGetInfo`.
    pub memory_info_ns: u64,
    /// A list of processes of NVML.
    pub processes_ns: u64,
    /// And each process in it.
    pub each_process_ns: u64,
    /// From the end of a launch call to the begin of its kernel in an idle stream.
    pub dispatch_ns: u64,
    /// Between kernels that are queued in one stream, or follow each other in a graph.
    pub gap_ns: u64,
    /// Between an event and a kernel that is queued behind it.
    pub gap_after_event_ns: u64,
    /// By how much an event lies behind what is before it in its stream.
    pub event_ns: u64,
    /// A switch between processes that interrupts work.
    pub preempt_ns: u64,
    /// A switch from a process that has no work.
    pub switch_ns: u64,
    /// Queues between a process and a device; streams beyond share one. 0 for one each.
    pub connections: u64,
    /// By how much each of these times varies.
    pub jitter: Jitter,
}

/// How many numbers there are.
pub const NUMBERS: usize = 23;

/// What the calls take that concern no device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// `cuInit`.
    pub init_ns: u64,
    /// The first `nvmlInit`.
    pub nvml_init_ns: u64,
    /// By how much each of these times varies.
    pub jitter: Jitter,
}

/// By how much times are shorter or longer than what is said of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jitter {
    /// By so many millionths of themselves at most.
    pub ppm: u64,
    /// Another number makes other jitter.
    pub seed: u64,
}

/// Calls that a busy host holds up at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// One of so many calls is held up.
    pub one_in: u64,
    /// For how long at least.
    pub least_ns: u64,
    /// For how long at most.
    pub most_ns: u64,
    /// Another number picks other calls.
    pub seed: u64,
}

impl Latency {
    /// The numbers in the order of the state file.
    pub fn numbers(&mut self) -> [&mut u64; NUMBERS] {
        let Latency {
            launch_ns,
            module_launch_ns,
            function_launch_ns,
            record_ns,
            query_ns,
            synchronize_ns,
            wake_ns,
            context_ns,
            module_ns,
            allocate_ns,
            free_ns,
            memory_info_ns,
            processes_ns,
            each_process_ns,
            dispatch_ns,
            gap_ns,
            gap_after_event_ns,
            event_ns,
            preempt_ns,
            switch_ns,
            connections,
            jitter: Jitter { ppm, seed },
        } = self;
        [
            launch_ns,
            module_launch_ns,
            function_launch_ns,
            record_ns,
            query_ns,
            synchronize_ns,
            wake_ns,
            context_ns,
            module_ns,
            allocate_ns,
            free_ns,
            memory_info_ns,
            processes_ns,
            each_process_ns,
            dispatch_ns,
            gap_ns,
            gap_after_event_ns,
            event_ns,
            preempt_ns,
            switch_ns,
            connections,
            ppm,
            seed,
        ]
    }

    /// What a built-in device takes. The H200's and the H100's figures are medians of the GPU kit's stage `costs` on these
    /// cards (bench/runs, 2026-11-26 and 2026-11-27, driver 580.159.04); those of turns are the H200's. Nobody has measured the
    /// others with the kit yet: they take what the H200 takes.
    pub fn preset(device: &str) -> Option<Latency> {
        let h200 = Latency {
            launch_ns: 3520,
            module_launch_ns: 20_300,
            function_launch_ns: 4200,
            record_ns: 1044,
            query_ns: 316,
            synchronize_ns: 550,
            wake_ns: 4200,
            context_ns: 108_623_972,
            module_ns: 609_633,
            allocate_ns: 40_053,
            free_ns: 91_356,
            memory_info_ns: 5480,
            processes_ns: 15_200,
            each_process_ns: 8740,
            dispatch_ns: 375,
            gap_ns: 1312,
            gap_after_event_ns: 2048,
            event_ns: 1311,
            preempt_ns: 152_600,
            switch_ns: 137_000,
            connections: 8,
            ..Latency::default()
        };
        match device {
            "H200" | "A100" | "T4" => Some(h200),
            "H100" => Some(Latency {
                launch_ns: 2968,
                record_ns: 896,
                query_ns: 198,
                synchronize_ns: 350,
                wake_ns: 4600,
                context_ns: 101_411_837,
                module_ns: 602_632,
                allocate_ns: 47_000,
                free_ns: 94_175,
                memory_info_ns: 4637,
                processes_ns: 2500,
                each_process_ns: 18_700,
                dispatch_ns: 704,
                gap_ns: 1600,
                gap_after_event_ns: 2369,
                ..h200
            }),
            _ => None,
        }
    }
}

impl Startup {
    /// What starting takes on a machine of such devices, from the same measurements.
    pub fn preset(device: &str) -> Option<Startup> {
        let startup = |init_ns, nvml_init_ns| Startup { init_ns, nvml_init_ns, jitter: Jitter::default() };
        match device {
            "H200" | "A100" | "T4" => Some(startup(101_266_230, 11_634_095)),
            "H100" => Some(startup(95_773_477, 9_948_506)),
            _ => None,
        }
    }
}

impl Jitter {
    /// `ns` with the jitter of the call or the step with this number.
    pub fn vary(&self, ns: u64, number: u64) -> u64 {
        if self.ppm == 0 {
            return ns;
        }
        let most = u128::from(ns) * u128::from(self.ppm) / 1_000_000;
        let most = u64::try_from(most).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        (ns + scattered(self.seed, number) % (2 * most + 1)).saturating_sub(most)
    }
}

impl Delays {
    /// For how long the call with this number is held up before and after its work.
    pub fn of(&self, number: u64) -> [u64; 2] {
        let random = |which: u64| scattered(self.seed ^ which << 56, number);
        if !random(1).is_multiple_of(self.one_in) {
            return [0; 2];
        }
        let range = self.most_ns.saturating_sub(self.least_ns);
        let delay = self.least_ns + random(2) % (range + 1);
        if random(3) & 1 == 0 { [delay, 0] } else { [0, delay] }
    }
}

/// A number that looks random: SplitMix64.
pub fn scattered(seed: u64, number: u64) -> u64 {
    let mixed = (seed << 32 ^ seed >> 32 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_bounds_and_its_mean_is_the_time_itself() {
        let jitter = Jitter { ppm: 250_000, seed: 0 };
        let all: Vec<_> = (0..10_000).map(|number| jitter.vary(4000, number)).collect();
        assert!(all.iter().all(|ns| (3000..=5000).contains(ns)));
        assert!((all.iter().sum::<u64>() / 10_000).abs_diff(4000) < 20);
        assert_eq!(jitter.vary(4000, 7), jitter.vary(4000, 7));
        assert_ne!(jitter.vary(4000, 7), Jitter { seed: 1, ..jitter }.vary(4000, 7));
        assert_eq!(Jitter { ppm: 1_000_000, ..jitter }.vary(0, 1), 0);
    }

    #[test]
    fn delays_meet_one_of_so_many_calls_before_or_after_its_work() {
        let delays = Delays { one_in: 10, least_ns: 1_000_000, most_ns: 10_000_000, seed: 0 };
        let delays: Vec<_> = (0..10_000).map(|number| delays.of(number)).collect();
        for side in 0..2 {
            let hit: Vec<_> = delays.iter().map(|delay| delay[side]).filter(|ns| *ns > 0).collect();
            assert!((400..600).contains(&hit.len()), "{}", hit.len());
            assert!(hit.iter().all(|ns| (1_000_000..=10_000_000).contains(ns)));
        }
    }
}
