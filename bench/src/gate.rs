//! What one call costs: a run of the program `gate`.

use gpuquota_promises::{Lost, Outcome, Setting};

/// A kind of call that the program `gate` measures.
pub struct Call {
    /// The key under which it prints its figure.
    pub key: &'static str,
    /// The name of its row.
    pub name: &'static str,
    /// The most nanoseconds that our library may add.
    pub goal_ns: f64,
}

/// All of them, in the order of the table.
pub const CALLS: [Call; 6] = [
    Call { key: "pair", name: "cuMemAlloc + cuMemFree", goal_ns: 60.0 },
    Call { key: "pair_live", name: "the same, 10,000 live", goal_ns: 60.0 },
    Call { key: "any_pair_live", name: "any of 10,000 live", goal_ns: 60.0 },
    Call { key: "info", name: "cuMemGetInfo", goal_ns: 20.0 },
    Call { key: "launch", name: "cuLaunchKernel, no share", goal_ns: 5.0 },
    Call { key: "init", name: "cuInit", goal_ns: 100_000.0 },
];

/// Nanoseconds of each of [`CALLS`], by one run.
pub fn gate(setting: &Setting<'_>) -> Result<Vec<f64>, Lost> {
    let outcome = setting.start("gate", &[]).try_finish()?;
    Ok(CALLS.iter().map(|call| said(&outcome, call.key)).collect())
}

/// A figure that a program prints.
pub fn said(outcome: &Outcome, key: &str) -> f64 {
    outcome.text(key).parse().unwrap_or_else(|_| panic!("{key} is no number: {outcome}"))
}
