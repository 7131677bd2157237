//! The complaints of users of such libraries (`docs/complaints.md`): each row names promises that exist. This file has the
//! promises that belong to no other file.

use gpuquota_promises::{GIB, MIB, Machine};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const OUT_OF_MEMORY: i64 = 2;

/// The folder of the project.
fn project() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// The files with the promises of a subject, as `docs/complaints.md` names it.
fn sources(subject: &str) -> Vec<PathBuf> {
    let all = match subject.split_once('/') {
        None => vec![format!("tests/tests/{subject}.rs")],
        Some(("conformance", file)) => vec![format!("tests/conformance/{file}.c")],
        Some(("quota", "share")) => {
            ["tests/share/main.rs", "src/share/clock/tests.rs"].map(|file| format!("quota/{file}")).into()
        }
        Some(("quota", part)) => vec![format!("quota/src/{part}/tests.rs")],
        Some(_) => panic!("{subject}: no such subject"),
    };
    all.iter().map(|path| project().join(path)).collect()
}

#[test]
fn every_complaint_has_a_promise_that_is_kept() {
    let page = read(&project().join("docs/complaints.md"));
    let kept = page.split("## Not promised").next().expect("a page has a beginning");
    let rows = kept.lines().filter(|line| line.starts_with("| HAMi"));
    let mut promises = 0;
    for row in rows {
        let answer = row.rsplit('|').nth(1).expect("a row ends with |");
        let named: Vec<_> = answer.split('`').filter_map(|word| word.split_once("::")).collect();
        assert!(!named.is_empty(), "no promise in {row}");
        for (subject, promise) in named {
            promises += 1;
            let found = sources(subject).iter().any(|source| {
                let text = read(source);
                // A test, a trial of a list, or a promise of the conformance suite.
                let forms = [format!("fn {promise}("), format!("\"{promise}\""), format!("void {promise}(")];
                forms.iter().any(|form| text.contains(form))
            });
            assert!(found, "{subject}::{promise} is not there");
        }
    }
    assert!(promises > 40, "the page is not as this test reads it: {promises} promises");
}

/// [HAMi#1662](https://github.com/Project-HAMi/HAMi/issues/1662): a minute until hundreds of processes had started.
/// A process that starts reaps no living process, and waits for none.
#[test]
fn hundreds_of_processes_start_together_and_share_one_cap_exactly() {
    const PROCESSES: i64 = 200;
    const PIECE: i64 = 4 * MIB;
    let machine = Machine::with_driver("bound");
    let quota = machine.quota().memory(PROCESSES * PIECE);
    let mut all: Vec<_> = (0..PROCESSES).map(|_| quota.start("hold", &[])).collect();
    all.iter_mut().for_each(|one| one.tell(&format!("alloc {PIECE}")));
    for one in &mut all {
        assert_eq!(one.wait_for("rc"), 0, "there is room for each");
    }
    let last = all.last_mut().expect("there are some");
    assert_eq!(last.ask("alloc 1", "rc"), OUT_OF_MEMORY);
    let held = all.into_iter().map(|one| one.finish().success().value("driver_held"));
    assert_eq!(held.sum::<i64>(), PROCESSES * PIECE, "the driver's own count");
}

/// [HAMi-core#191](https://github.com/Project-HAMi/HAMi-core/issues/191): a second process saw all of the slice free.
#[test]
fn every_process_sees_the_bytes_that_all_of_them_left() {
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(8 * GIB);
    let mut first = quota.start("hold", &[]);
    let mut second = quota.start("hold", &[]);
    // The library charges a context at the first call after its creation.
    first.ask("info", "free");
    let free = second.ask("info", "free");
    assert_eq!(first.ask(&format!("alloc {GIB}"), "rc"), 0);
    assert_eq!(second.ask("info", "free"), free - GIB);
    assert_eq!(first.ask("info", "free"), free - GIB);
    first.kill();
    let until = Instant::now() + Duration::from_secs(10);
    // Its context too.
    while second.ask("info", "free") <= free {
        assert!(Instant::now() < until, "what the dead one held is still in use");
    }
    second.finish().success();
}
