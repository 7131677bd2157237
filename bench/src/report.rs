//! Shows the figures: a table for people, and the raw data to check it.

use std::fmt::Write as _;
use std::path::Path;

use gpuquota_bench::peers::Peer;
use gpuquota_bench::{median, store};
use serde_json::{Map, json};

use crate::measure::{Goal, Row};

/// The table, in Markdown: medians, the nanoseconds that the library adds, and the goal; two columns for each peer.
pub fn table(rows: &[Row], peers: &[Peer]) -> String {
    let head: String = peers.iter().map(|peer| format!(" {0} | {0} adds, to ours |", peer.name)).collect();
    let rule = "--:|--:|".repeat(peers.len());
    let mut text =
        format!("| | without | with | ratio | added | goal | |{head}\n|---|--:|--:|--:|--:|--:|---|{rule}\n");
    let empty = rows.iter().find(|row| matches!(row.goal, Goal::None)).map_or(0.0, added);
    for row in rows {
        let most = match row.goal {
            Goal::Adds(most) => Some(most),
            Goal::TimesEmpty(times) => Some(times * empty),
            Goal::None => None,
        };
        let verdict = match most {
            Some(most) if added(row) <= most => "kept",
            Some(_) => "missed",
            None => "",
        };
        let goal = most.map_or(String::from("-"), |most| format!("<= {}", time(most)));
        let (without, with) = (time(median(&row.without)), time(median(&row.with)));
        let ratio = format!("{:.2}", median(&row.with) / median(&row.without));
        let line = [row.name, &without, &with, &ratio, &time(added(row)), &goal, verdict].join(" | ");
        let others: String = (0..peers.len()).map(|at| columns(row, at)).collect();
        writeln!(text, "| {line} |{others}").expect("a String takes everything");
    }
    for warning in peers.iter().filter_map(|peer| peer.warning.as_ref()) {
        writeln!(text, "\n{warning}").expect("a String takes everything");
    }
    text
}

/// Writes `raw.json`, every figure of every round in nanoseconds, and `README.md`, the table and the machine.
pub fn write(folder: &Path, rows: &[Row], peers: &[Peer], table: &str) -> std::io::Result<()> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let figures = row
                .peers
                .iter()
                .map(|side| side.as_ref().map_or_else(|why| json!({ "failed": why }), |ns| json!(ns)));
            let others: Map<_, _> = peers.iter().map(|peer| peer.name.clone()).zip(figures).collect();
            json!({ "name": row.name, "without_ns": row.without, "with_ns": row.with, "peers_ns": others })
        })
        .collect();
    store(folder, &rows.into(), table)
}

/// The nanoseconds that the library adds: the median of the differences within each round.
fn added(row: &Row) -> f64 {
    difference(&row.with, &row.without)
}

/// A peer's two columns: its nanoseconds, and its addition as a multiple of ours; or why it has none.
fn columns(row: &Row, at: usize) -> String {
    match row.peers.get(at) {
        None => " | |".into(),
        Some(Err(why)) => format!(" {why} | |"),
        Some(Ok(ns)) => {
            let times = difference(ns, &row.without) / added(row);
            format!(" {} | {times:.1} |", time(median(ns)))
        }
    }
}

fn difference(with: &[f64], without: &[f64]) -> f64 {
    median(&with.iter().zip(without).map(|(with, without)| with - without).collect::<Vec<_>>())
}

fn time(ns: f64) -> String {
    match ns.abs() {
        size if size < 1_000.0 => format!("{ns:.1} ns"),
        size if size < 1_000_000.0 => format!("{:.1} us", ns / 1_000.0),
        _ => format!("{:.2} ms", ns / 1_000_000.0),
    }
}
