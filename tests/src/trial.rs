//! Tests that need what not every machine has. Rust's own harness knows only passed and failed at run time;
//! here a test may also find that it cannot be run, and says why, and is not counted as passed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A promise about time, which the machine that the test runs on can spoil: it must be kept at the second attempt at the
/// latest. An attempt answers what it saw, and whether that is as promised.
pub fn twice<T: std::fmt::Debug>(attempt: impl Fn() -> (T, bool)) -> Result<(), String> {
    let (first, kept) = attempt();
    if kept {
        return Ok(());
    }
    let (second, kept) = attempt();
    if kept { Ok(()) } else { Err(format!("{first:.1?}, then {second:.1?}")) }
}

/// What came of a test that did not panic.
pub enum Verdict {
    /// The promise was put to the test and was kept.
    Kept,
    /// It could not be put to the test here, for this reason.
    Skipped(String),
}

/// A name that says the promise, and what puts it to the test.
pub type Trial = (&'static str, fn() -> Verdict);

/// Runs the tests whose name contains the command line's first word, all of them without one; the other
/// words of `cargo test` are understood as far as they matter here.
pub fn trials(all: &[Trial]) -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--list") {
        all.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|word| !word.starts_with('-')).map_or("", String::as_str);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    println!("\nrunning {} tests", all.len());
    for (name, test) in all.iter().filter(|(name, _)| name.contains(wanted)) {
        match catch_unwind(AssertUnwindSafe(test)) {
            Ok(Verdict::Kept) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Ok(Verdict::Skipped(why)) => {
                skipped += 1;
                println!("test {name} ... skipped: {why}");
            }
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {passed} passed; {failed} failed; {skipped} skipped\n");
    ExitCode::from(u8::from(failed > 0))
}
