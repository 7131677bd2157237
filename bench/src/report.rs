//! Shows the figures: a table for people, and the raw data to check it.

use std::fmt::Write as _;
use std::path::Path;

use gpuquota_bench::{median, store};

use crate::measure::{Goal, Row};

/// The table, in Markdown: medians, the nanoseconds that the library adds, and the goal.
pub fn table(rows: &[Row]) -> String {
    let peers = rows.iter().any(|row| !row.peer.is_empty());
    let (head, rule) = if peers { (" peer | peer adds, to ours |", "--:|--:|") } else { ("", "") };
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
        let peer = if row.peer.is_empty() {
            " | |"
        } else {
            &format!(" {} | {:.1} |", time(median(&row.peer)), times(row))
        };
        writeln!(text, "| {line} |{}", if peers { peer } else { "" }).expect("a String takes everything");
    }
    text
}

/// Writes `raw.json`, every figure of every round in nanoseconds, and `README.md`, the table and the machine.
pub fn write(folder: &Path, rows: &[Row], table: &str) -> std::io::Result<()> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| serde_json::json!({ "name": row.name, "without_ns": row.without, "with_ns": row.with, "peer_ns": row.peer }))
        .collect();
    store(folder, &rows.into(), table)
}

/// The nanoseconds that the library adds: the median of the differences within each round.
fn added(row: &Row) -> f64 {
    difference(&row.with, &row.without)
}

/// The peer's addition as a multiple of ours.
fn times(row: &Row) -> f64 {
    difference(&row.peer, &row.without) / added(row)
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
