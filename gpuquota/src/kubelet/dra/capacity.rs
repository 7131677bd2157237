//! What may be asked of a card: steps, the least, and what is meant where nothing is said. The scheduler counts by these policies.

use crate::agent::nri::quantity::MIB;
use crate::error::Error;
use gpuquota_quota::limits::own_size;
use serde_json::{Value, json};

/// Percent of a card's time.
const ALL_CORES: u64 = 100;

/// The policies of this node's cards.
#[derive(clap::Args, Clone, Debug)]
pub struct Policies {
    /// Memory is given in steps of this size; the least is one step.
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    memory_step: String,

    /// What a claim gets that asks for no memory: a size, or all.
    #[arg(long, value_name = "SIZE", default_value = "all")]
    default_memory: String,

    /// Percent of time that a claim books that asks for none; with 0 it has what others leave.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100))]
    default_cores: u64,

    /// Time is booked in steps of so many percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=50))]
    cores_step: u64,
}

/// What may be asked, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// All that there is.
    pub value: u64,
    /// The least that a claim gets.
    pub min: u64,
    /// Above the least it is rounded up to these.
    pub step: u64,
    /// What a claim gets that asks for nothing.
    pub default: u64,
}

impl Policy {
    /// What a request becomes; `None` if it is more than there is at all.
    #[cfg(test)]
    pub fn consumed(self, asked: Option<u64>) -> Option<u64> {
        let asked = asked.unwrap_or(self.default).max(self.min);
        let rounded = self.min + (asked - self.min).div_ceil(self.step) * self.step;
        (rounded <= self.value).then_some(rounded)
    }

    /// As a ResourceSlice has it. `write` is how a number is written.
    fn capacity(self, write: impl Fn(u64) -> String) -> Value {
        let range = json!({ "min": write(self.min), "step": write(self.step) });
        json!({
            "value": write(self.value),
            "requestPolicy": { "default": write(self.default), "validRange": range },
        })
    }
}

/// The policies as they were read.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    step: u64,
    default: Option<u64>,
    default_cores: u64,
    cores_step: u64,
}

impl Policies {
    /// Reads them.
    pub fn read(&self) -> Result<Read, Error> {
        let size = |flag: &str, text: &str| {
            let refused =
                |why: &str| Error::Asked(format!("{flag} {text:?}: {why}. Write a size such as 256MiB"));
            let bytes = own_size(text.as_bytes()).map_err(|why| refused(why.words()))?;
            match bytes > 0 && bytes.is_multiple_of(MIB) {
                true => Ok(bytes),
                false => Err(refused("it is no whole number of MiB")),
            }
        };
        let step = size("--memory-step", &self.memory_step)?;
        let default = match self.default_memory.as_str() {
            "all" => None,
            text => Some(size("--default-memory", text)?),
        };
        if !self.default_cores.is_multiple_of(self.cores_step) {
            return Err(Error::Asked(format!(
                "--default-cores {}: it is no multiple of --cores-step {}. Write one",
                self.default_cores, self.cores_step
            )));
        }
        Ok(Read { step, default, default_cores: self.default_cores, cores_step: self.cores_step })
    }
}

impl Read {
    /// The memory of a card with so many bytes. Where it is less than two steps it is not divided.
    pub fn memory(&self, bytes: u64) -> Option<Policy> {
        let value = bytes / MIB * MIB;
        let step = self.step;
        if value < 2 * step {
            return None;
        }
        let most = value / step * step;
        let default = self.default.map_or(most, |default| default.div_ceil(step) * step).min(most);
        Some(Policy { value, min: step, step, default })
    }

    /// The time of a card.
    pub fn cores(&self) -> Policy {
        Policy { value: ALL_CORES, min: 0, step: self.cores_step, default: self.default_cores }
    }

    /// The capacity of a card that is divided, or of one that is not.
    pub fn capacity(&self, bytes: u64, is_shared: bool) -> (bool, Value) {
        let mebibytes = |bytes: u64| format!("{}Mi", bytes / MIB);
        match self.memory(bytes).filter(|_| is_shared) {
            Some(memory) => {
                let cores = self.cores().capacity(|percent| percent.to_string());
                (true, json!({ "memory": memory.capacity(mebibytes), "cores": cores }))
            }
            None => (false, json!({ "memory": { "value": mebibytes(bytes) } })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(step: u64, default: Option<u64>, default_cores: u64, cores_step: u64) -> Read {
        Read { step: step * MIB, default: default.map(|default| default * MIB), default_cores, cores_step }
    }

    #[test]
    fn a_card_is_told_as_the_scheduler_counts_it() {
        let (is_shared, capacity) = read(256, None, 0, 1).capacity(81_559 * MIB + 77, true);
        assert!(is_shared);
        let memory = json!({ "default": "81408Mi", "validRange": { "min": "256Mi", "step": "256Mi" } });
        assert_eq!(capacity["memory"], json!({ "value": "81559Mi", "requestPolicy": memory }));
        let cores = json!({ "default": "0", "validRange": { "min": "0", "step": "1" } });
        assert_eq!(capacity["cores"], json!({ "value": "100", "requestPolicy": cores }));
        assert_eq!(
            read(256, None, 0, 1).capacity(4096 * MIB, false),
            (false, json!({ "memory": { "value": "4096Mi" } }))
        );
        assert!(!read(256, None, 0, 1).capacity(300 * MIB, true).0);
    }

    proptest! {
        // What the API server checks of a policy, whatever card and flags there are.
        #[test]
        fn every_policy_is_one_that_kubernetes_takes(
            bytes in 0u64..200_000 << 20,
            step in 1u64..5000,
            default in proptest::option::of(1u64..200_000),
            cores_step in 1u64..=50,
            cores in 0u64..=2,
        ) {
            let read = read(step, default, cores * cores_step, cores_step);
            for policy in read.memory(bytes).into_iter().chain([read.cores()]) {
                prop_assert!(policy.min <= policy.value && policy.min + policy.step <= policy.value);
                prop_assert!(policy.default >= policy.min && policy.default <= policy.value);
                prop_assert!((policy.default - policy.min).is_multiple_of(policy.step));
            }
        }

        // The scheduler's arithmetic against a ledger that knows only sums.
        #[test]
        fn never_more_than_the_card_and_nothing_refused_that_fits(
            mebibytes in 512u64..100_000,
            step in 1u64..2000,
            steps in prop::collection::vec((any::<bool>(), proptest::option::of(0u64..120_000), proptest::option::of(0u64..120), any::<usize>()), 1..60),
        ) {
            let read = read(step, None, 0, 1);
            let Some(memory) = read.memory(mebibytes * MIB) else { return Ok(()) };
            let (cores, total) = (read.cores(), memory.value);
            let mut held: Vec<(u64, u64)> = Vec::new();
            for (takes, bytes, percent, which) in steps {
                if !takes {
                    if !held.is_empty() {
                        held.swap_remove(which % held.len());
                    }
                    continue;
                }
                let used = held.iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
                let asked = bytes.map(|bytes| bytes * MIB);
                let wanted = memory.consumed(asked).zip(cores.consumed(percent));
                let fits = wanted.filter(|of| used.0 + of.0 <= total && used.1 + of.1 <= 100);
                // What was asked to the byte, and rounded up by less than a step, fits exactly if the sums say so.
                let least = asked.unwrap_or(memory.default).max(memory.min);
                let surely = used.0 + least + memory.step <= total + 1 && used.1 + percent.unwrap_or(0) <= 100;
                prop_assert!(!surely || fits.is_some(), "{used:?} {asked:?} {percent:?}");
                if let Some((bytes, percent)) = fits {
                    prop_assert!(bytes >= least && bytes < least + memory.step);
                    held.push((bytes, percent));
                }
                let used = held.iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
                prop_assert!(used.0 <= total && used.1 <= 100);
            }
        }
    }
}
