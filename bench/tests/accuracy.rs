//! The accuracy bench itself: a few cells, judged by what no machine's noise explains.

use std::path::Path;
use std::process::Command;

use gpuquota_promises::{Scratch, program};
use serde_json::Value;

/// Runs the bench and answers its raw figures.
fn bench(folder: &Path, options: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpuquota-accuracy"));
    let output = command.args(["--quick", "--json"]).arg(folder).args(options).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(folder.join("raw.json")).expect("it writes the figures");
    serde_json::from_str(&text).expect("JSON")
}

/// The mean of a cell's only container, and its share.
fn mean(cell: &Value, side: &str) -> (f64, f64) {
    let name = cell["cell"].as_str().expect("a name");
    let share = name.split(", ").find_map(|word| word.strip_suffix('%')?.parse().ok());
    (cell[side][0]["mean"][0].as_f64().expect("one round"), share.expect("the name says the share"))
}

#[test]
fn no_cell_has_much_more_than_its_share_and_none_is_starved() {
    let folder = Scratch::new();
    let cells = bench(folder.path(), &[]);
    assert_eq!(cells.len(), 4);
    for cell in &cells {
        let (mean, share) = mean(cell, "ours");
        assert!(mean < share + 4.0 && mean > share / 4.0, "{cell:#}");
    }
    let plot = std::fs::read_to_string(folder.path().join("plot.svg")).expect("it draws a picture");
    assert!(plot.contains("<polyline") && plot.contains("30%"), "{plot}");
}

#[test]
fn a_library_that_does_nothing_is_found_out() {
    let folder = Scratch::new();
    let empty = program("empty.so");
    let peer = ["--only", "async", "--peer", empty.to_str().expect("text"), "--peer-env", "X={cores}"];
    let cells = bench(folder.path(), &peer);
    let (mean, share) = mean(&cells[0], "peer");
    assert!(mean > share + 20.0, "{cells:#?}");
    let table = std::fs::read_to_string(folder.path().join("README.md")).expect("it writes the table");
    assert!(table.contains("would miss"), "{table}");
}
