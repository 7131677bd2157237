//! One suite, two drivers: what a CUDA driver promises, held to the simulated one and to this machine's, by the same
//! binary (`tests/conformance/`).

use std::process::ExitCode;

use gpuquota_promises::{Machine, Outcome, Promise, Verdict, trials};

fn main() -> ExitCode {
    trials(&[
        ("the_simulated_driver_keeps_every_promise", simulated),
        ("the_simulated_driver_keeps_them_under_a_quota_as_well", under_a_quota),
        ("the_driver_of_this_machine_keeps_every_promise", real),
    ])
}

/// Every promise was tested and kept. This prints the promises that cannot be tested on the device.
#[track_caller]
fn kept(outcome: &Outcome) -> Verdict {
    let answers = || outcome.out.lines().filter_map(|line| line.split_once('='));
    let broken: Vec<_> = answers().filter(|(_, answer)| *answer == "0").map(|(name, _)| name).collect();
    assert!(broken.is_empty(), "broken: {broken:?}\n{outcome}");
    assert!(answers().filter(|(_, answer)| *answer == "1").count() >= 60, "{outcome}");
    for (name, why) in answers().filter(|(_, answer)| answer.starts_with("skipped")) {
        println!("    {name}: {why}");
    }
    Verdict::Kept
}

fn simulated() -> Verdict {
    let outcome = Machine::new("H100").bare().run("conformance", &[]);
    assert!(!outcome.out.contains("skipped"), "the simulated driver is asked about everything: {outcome}");
    kept(&outcome)
}

fn under_a_quota() -> Verdict {
    let promise = &Promise::to(&["HAMi-core#281"]);
    let outcome = Machine::new("H100").quota().memory("40GiB").cores(90).run("conformance", &[]);
    promise.asserts(|| kept(&outcome))
}

fn real() -> Verdict {
    match Machine::real() {
        Some(machine) => kept(&machine.bare().run("conformance", &[])),
        None => Verdict::Skipped("no NVIDIA driver answers on this machine".into()),
    }
}
