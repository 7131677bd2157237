//! The accuracy bench itself: a few cells, judged by what no machine's noise explains.

use std::path::Path;
use std::process::{Command, Output};

use gpuquota_promises::{Scratch, artifact, program};
use serde_json::Value;

/// Runs the bench.
fn run(options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpuquota-accuracy"));
    command.arg("--quick").args(options).output().expect("it starts")
}

/// Runs the bench and answers its raw figures.
fn bench(folder: &Path, options: &[&str]) -> Value {
    let output = run(&[&["--json", folder.to_str().expect("text")], options].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(folder.join("raw.json")).expect("it writes the figures");
    serde_json::from_str(&text).expect("JSON")
}

/// The mean of a cell's only container, and its share.
fn mean(cell: &Value, rounds: &Value) -> (f64, f64) {
    let name = cell["cell"].as_str().expect("a name");
    let share = name.split(", ").find_map(|word| word.strip_suffix('%')?.parse().ok());
    (rounds[0]["mean"][0].as_f64().expect("one round"), share.expect("the name says the share"))
}

/// The table that it wrote.
fn table(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("README.md")).expect("it writes the table")
}

/// A library that does what a test says, compiled from C.
fn library(folder: &Scratch, name: &str, code: &str) -> String {
    let source = folder.file(&format!("{name}.c"), code);
    let library = folder.path().join(format!("{name}.so"));
    let mut command = Command::new("cc");
    let status = command.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(status.expect("a C compiler builds the test programs too").success());
    format!("{name}={}", library.display())
}

/// Exports that are not called, so that a library is taken for one that intercepts.
const EXPORTS: &str = "void cuMemAlloc_v2(void) {}\n";

#[test]
fn no_cell_has_much_more_than_its_share_and_none_is_starved() {
    let folder = Scratch::new();
    let cells = bench(folder.path(), &[]);
    let cells = cells.as_array().expect("a row for each cell");
    assert_eq!(cells.len(), 4);
    for cell in cells {
        let (mean, share) = mean(cell, &cell["ours"]);
        assert!(mean < share + 4.0 && mean > share / 4.0, "{cell:#}");
    }
    let plot = std::fs::read_to_string(folder.path().join("plot.svg")).expect("it draws a picture");
    assert!(plot.contains("<polyline") && plot.contains("30%"), "{plot}");
}

#[test]
fn a_library_that_does_nothing_is_found_out() {
    let folder = Scratch::new();
    let empty = format!("nothing={}", program("empty.so").display());
    let cells = bench(folder.path(), &["--only", "async", "--peer", &empty, "--peer-env", "X={cores}"]);
    let (mean, share) = mean(&cells[0], &cells[0]["peers"]["nothing"]);
    assert!(mean > share + 20.0, "{cells:#}");
    let table = table(folder.path());
    assert!(table.contains("| - nothing |") && table.contains("would miss"), "{table}");
    assert!(table.contains("nothing does not export cuLaunchKernel"), "it says why: {table}");
    let plot = std::fs::read_to_string(folder.path().join("plot.svg")).expect("it draws a picture");
    assert!(plot.contains("red: nothing"), "{plot}");
}

#[test]
fn peers_are_told_their_limits_each_in_its_own_way_and_ours_under_another_name_keeps_the_share() {
    let folder = Scratch::new();
    let ours = format!("again={}", artifact("libgpuquota.so").display());
    let empty = format!("nothing={}", program("empty.so").display());
    let variables = "GPUQUOTA_CORES={cores} GPUQUOTA_MEMORY={memory}GiB GPUQUOTA_REGION={region} GPUQUOTA_POLICY=fixed-share";
    let peers = ["--peer", &empty, "--peer", &ours, "--peer-env", variables];
    let cells = bench(folder.path(), &[&["--only", "async"], &peers[..]].concat());
    let (again, share) = mean(&cells[0], &cells[0]["peers"]["again"]);
    let (nothing, _) = mean(&cells[0], &cells[0]["peers"]["nothing"]);
    assert!((again - share).abs() < 4.0 && nothing > share + 20.0, "{cells:#}");
}

#[test]
fn a_peer_that_ends_its_programs_is_shown_so_and_never_as_a_number() {
    let folder = Scratch::new();
    let starts = "#include <stdlib.h>\nint cuLaunchKernel(void) { abort(); }\n";
    let crashes = library(&folder, "crashes", &format!("{starts}{EXPORTS}"));
    // Loaded before the driver, it ends the program before that is ready.
    let early = "#include <signal.h>\n__attribute__((constructor)) static void end(void) { raise(9); }\nvoid cuLaunchKernel(void) {}\n";
    let never = library(&folder, "never", &format!("{early}{EXPORTS}"));
    let cells = bench(folder.path(), &["--only", "async", "--peer", &crashes, "--peer", &never]);
    let peers = &cells[0]["peers"];
    assert_eq!(peers["crashes"]["failed"], "ended by signal 6", "{cells:#}");
    assert_eq!(peers["never"]["failed"], "does not start: ended by signal 9", "{cells:#}");
    let table = table(folder.path());
    assert!(table.contains("| - crashes | | - | - | | - | - | ended by signal 6 |"), "{table}");
    assert!(table.contains("crashes would keep 0 of 1"), "{table}");
}

#[test]
fn a_peer_that_hangs_does_not_hang_the_bench() {
    let folder = Scratch::new();
    let hangs = "#include <unistd.h>\nint cuLaunchKernel(void) { for (;;) pause(); }\n";
    let hangs = library(&folder, "hangs", &format!("{hangs}{EXPORTS}"));
    let cells = bench(folder.path(), &["--only", "async", "--peer", &hangs]);
    let failed = cells[0]["peers"]["hangs"]["failed"].as_str().expect("no figures");
    assert!(failed.starts_with("took more than "), "{cells:#}");
}

#[test]
fn like_for_like_has_a_column_for_each_library_and_judges_caps_by_the_device() {
    let folder = Scratch::new();
    let ours = format!("again={}", artifact("libgpuquota.so").display());
    let empty = format!("nothing={}", program("empty.so").display());
    let variables = "GPUQUOTA_CORES={cores} GPUQUOTA_MEMORY={memory}GiB GPUQUOTA_REGION={region}";
    let peers = ["--peer", &empty, "--peer", &ours, "--peer-env", variables];
    let raw =
        bench(folder.path(), &[&["--like-for-like", "--ideal", "--only", "sync, 10%"], &peers[..]].concat());
    let bytes = |of: &str, who: &str| raw[of][who].as_i64().unwrap_or_else(|| panic!("{who}: {:#}", raw[of]));
    for (of, cap) in [("filled_bytes", 2_i64 << 30), ("raced_bytes", 8 << 30)] {
        // A container without a card's first client has a few MiB that are not its own.
        assert!(bytes(of, "gpuquota") < cap + (16 << 20) && bytes(of, "again") < cap + (16 << 20), "{raw:#}");
    }
    assert!(bytes("filled_bytes", "nothing") > 8 << 30, "no cap: {:#}", raw["filled_bytes"]);
    assert!(raw["call_ns"]["nothing"][0].as_array().is_some_and(|figures| figures.len() == 6), "{raw:#}");
    let (mean, share) = mean(&raw["cells"][0], &raw["cells"][0]["peers"]["again"]);
    assert!((mean - share).abs() < 4.0, "{raw:#}");
    let table = table(folder.path());
    assert!(table.contains("| without | gpuquota | nothing | again |"), "{table}");
    assert!(table.contains(", missed |"), "the library that does nothing misses: {table}");
}

#[test]
fn a_command_line_that_names_no_library_is_refused_with_the_reason() {
    for (options, why) in [
        (&["--peer", "hami=/nowhere/libvgpu.so"][..], "/nowhere/libvgpu.so: No such file"),
        (&["--peer"], "--peer wants a value"),
        (&["--peer-env", "A=B"], "--peer-env comes behind the --peer"),
        (&["--peer", "/bin/sh/"], "/bin/sh/"),
    ] {
        let output = run(options);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains(why), "{options:?}: {error}");
    }
}
