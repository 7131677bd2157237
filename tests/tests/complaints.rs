//! The complaints of users of such libraries (`docs/complaints.md`): each row names promises that assert something for it. This
//! file has the promises that belong to no other file.

#[path = "complaints/answers.rs"]
mod answers;

use gpuquota_promises::{GIB, MIB, Machine, Promise};
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

/// A row: the first thread, and the promises as subject and name.
struct Row {
    complaint: String,
    promises: Vec<(String, String)>,
}

/// The rows of the page that have promises.
fn rows() -> Vec<Row> {
    let page = read(&project().join("docs/complaints.md"));
    let kept = page.split("## Not promised").next().expect("a page has a beginning");
    let rows = kept.lines().filter(|line| line.starts_with("| ") && line.contains('#'));
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let complaint = cells[1].split(',').next().expect("a cell has a beginning").to_owned();
        let named = cells[3].split('`').filter_map(|word| word.split_once("::"));
        let promises = named.map(|(subject, name)| (subject.to_owned(), name.to_owned())).collect();
        Row { complaint, promises }
    };
    rows.map(row).collect()
}

#[test]
fn every_complaint_has_a_promise_that_asserts_something_for_it() {
    let mut faults = Vec::new();
    let mut promises = 0;
    for Row { complaint, promises: named } in rows() {
        assert!(!named.is_empty(), "no promise for {complaint}");
        for (subject, name) in named {
            promises += 1;
            let found: Vec<_> = sources(&subject)
                .iter()
                .map(|source| answers::fault(&read(source), &name, &complaint))
                .collect();
            if found.iter().all(Option::is_some) {
                faults.push(format!("{complaint}, {subject}::{name}: {found:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(promises > 60, "the page is not as this test reads it: {promises} promises");
}

/// Every subject with tests in Rust that can make promises.
fn subjects() -> Vec<String> {
    let files = std::fs::read_dir(project().join("tests/tests")).expect("the tests are here");
    let files = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let mut all: Vec<_> = files.filter_map(|name| Some(name.strip_suffix(".rs")?.to_owned())).collect();
    all.extend(["quota/ledger", "quota/share"].map(str::to_owned));
    all
}

/// A promise whose row is gone from the page would go unnoticed when it no longer asserts.
#[test]
fn every_promise_to_a_complaint_is_on_the_page() {
    let rows = rows();
    for subject in &subjects() {
        for source in sources(subject) {
            for complaint in answers::complaints(read(&source).parse().expect("Rust")) {
                let named =
                    rows.iter().filter(|row| row.complaint == complaint).flat_map(|row| &row.promises);
                assert!(
                    named.map(|(subject, _)| subject).any(|one| one == subject),
                    "{subject}: {complaint}"
                );
            }
        }
    }
}

#[test]
#[should_panic(expected = "ended without asserting")]
fn a_test_that_ends_without_its_assertion_fails() {
    let _promise = Promise::to(&["nobody"]);
}

/// [HAMi#1662](https://github.com/Project-HAMi/HAMi/issues/1662): a minute until hundreds of processes had started.
/// A process that starts reaps no living process, and waits for none.
#[test]
fn hundreds_of_processes_start_together_and_share_one_cap_exactly() {
    let promise = &Promise::to(&["HAMi#1662"]);
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
    promise.asserts(|| assert_eq!(held.sum::<i64>(), PROCESSES * PIECE, "the driver's own count"));
}

/// [HAMi-core#191](https://github.com/Project-HAMi/HAMi-core/issues/191): a second process saw all of the slice free.
#[test]
fn every_process_sees_the_bytes_that_all_of_them_left() {
    let promise = &Promise::to(&["HAMi-core#191"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(8 * GIB);
    let mut first = quota.start("hold", &[]);
    let mut second = quota.start("hold", &[]);
    // The library charges a context at the first call after its creation.
    first.ask("info", "free");
    let free = second.ask("info", "free");
    assert_eq!(first.ask(&format!("alloc {GIB}"), "rc"), 0);
    promise.asserts(|| assert_eq!(second.ask("info", "free"), free - GIB));
    assert_eq!(first.ask("info", "free"), free - GIB);
    first.kill();
    let until = Instant::now() + Duration::from_secs(10);
    // Its context too.
    while second.ask("info", "free") <= free {
        assert!(Instant::now() < until, "what the dead one held is still in use");
    }
    second.finish().success();
}
