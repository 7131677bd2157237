//! Tests with needs that not every machine meets. Rust's own harness knows only passed and failed at run time. Here a test
//! may also be skipped with a reason, and does not count as passed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A promise about time, which a busy machine can spoil: one of two attempts must keep it. An attempt answers its figures,
/// and whether they keep the promise.
pub fn twice<T: std::fmt::Debug>(attempt: impl Fn() -> (T, bool)) -> Result<(), String> {
    let (first, kept) = attempt();
    if kept {
        return Ok(());
    }
    let (second, kept) = attempt();
    if kept { Ok(()) } else { Err(format!("{first:.1?}, then {second:.1?}")) }
}

/// The result of a test that did not panic.
pub enum Verdict {
    /// The promise was tested and kept.
    Kept,
    /// What is not reached yet: the figures, which are no worse than they were.
    Missed(String),
    /// The promise cannot be tested here, for this reason.
    Skipped(String),
}

impl Verdict {
    /// On a table of so many cells, of which some were missed, and some could not be tested because the host was busy.
    pub fn of_cells(all: usize, missed: usize, busy: usize) -> Self {
        match (missed, busy) {
            (0, 0) => Self::Kept,
            (0, _) => {
                Self::Skipped(format!("{busy} of {all} cells, because the host is busy; the others are kept"))
            }
            _ => Self::Missed(format!(
                "{missed} of {all} cells, above; {busy} skipped because the host is busy"
            )),
        }
    }
}

/// The name of a promise, and its test.
pub type Trial = (&'static str, fn() -> Verdict);

/// Runs the tests whose name contains the command line's first word; all of them without one. Of the options of `cargo test`
/// it understands `--list`.
pub fn trials(all: &[Trial]) -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.iter().any(|word| word == "--list") {
        all.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|word| !word.starts_with('-')).map_or("", String::as_str);
    let (mut passed, mut failed, mut missed, mut skipped) = (0, 0, 0, 0);
    println!("\nrunning {} tests", all.len());
    for (name, test) in all.iter().filter(|(name, _)| name.contains(wanted)) {
        match catch_unwind(AssertUnwindSafe(test)) {
            Ok(Verdict::Kept) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Ok(Verdict::Missed(figures)) => {
                missed += 1;
                println!("test {name} ... missed: {figures}");
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
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; {missed} missed; {skipped} skipped\n"
    );
    ExitCode::from(u8::from(failed > 0))
}
