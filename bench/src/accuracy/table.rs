//! Shows the figures: a table for people, and the raw data to check it.

use std::fmt::Write as _;
use std::path::Path;

use gpuquota_bench::{median, store};
use serde_json::json;

use crate::Row;
use crate::run::{Figures, Loss};

/// The head of the table.
const HEAD: &str =
    "| kernels, way, share | uncapped busy % | mean % | window error | goal | busy % of due | p99 launch | |";

/// The median of some rounds' figure.
fn of(rounds: &[Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    median(&rounds.iter().map(figure).collect::<Vec<_>>())
}

/// The mean of each container, each a median.
pub fn means(row: &Row<'_>, rounds: &[Figures]) -> Vec<f64> {
    (0..row.cell.shares.len()).map(|at| of(rounds, |figures| figures.means[at])).collect()
}

fn words(means: &[f64]) -> String {
    means.iter().map(|mean| format!("{mean:.2}")).collect::<Vec<_>>().join(" : ")
}

fn time(ns: f64) -> String {
    if ns < 1e6 { format!("{:.0} us", ns / 1e3) } else { format!("{:.1} ms", ns / 1e6) }
}

fn cells(row: &Row<'_>, rounds: &[Figures]) -> [String; 3] {
    let busy = 100.0 * of(rounds, |figures| figures.busy) / row.cell.due();
    [
        words(&means(row, rounds)),
        format!("{:.2}", of(rounds, |figures| figures.window)),
        format!("{busy:.1} | {}", time(of(rounds, |figures| figures.p99_ns))),
    ]
}

/// Whether the cell keeps its goals, by the medians of its rounds.
pub fn is_kept(row: &Row<'_>, rounds: &[Figures]) -> bool {
    let means = means(row, rounds);
    let off =
        means.iter().enumerate().map(|(at, mean)| (mean - row.cell.share(at)).abs()).fold(0.0, f64::max);
    let busy = 100.0 * of(rounds, |figures| figures.busy) / row.cell.due();
    off <= row.cell.mean_goal()
        && of(rounds, |figures| figures.window) <= row.cell.window_goal()
        && busy >= row.cell.busy_goal()
}

/// One row of the table.
pub fn line(row: &Row<'_>) -> String {
    let (name, uncapped) = (row.cell.name(), row.uncapped);
    if row.ours.is_empty() {
        let why =
            if row.cannot { "this machine has not what it needs" } else { "it would not use more by itself" };
        return format!("| {name} | {uncapped:.1} | - | - | - | - | - | {why} |");
    }
    let [means, window, rest] = cells(row, &row.ours);
    let goal = format!("{:.2}, {:.1}", row.cell.mean_goal(), row.cell.window_goal());
    let verdict = if is_kept(row, &row.ours) { "kept" } else { "missed" };
    let mut text = format!("| {name} | {uncapped:.1} | {means} | {window} | {goal} | {rest} | {verdict} |");
    if !row.peer.is_empty() {
        let [means, window, rest] = cells(row, &row.peer);
        let verdict = if is_kept(row, &row.peer) { "would keep" } else { "would miss" };
        write!(text, "\n| - the peer | | {means} | {window} | | {rest} | {verdict} |")
            .expect("a String takes all");
    }
    text
}

/// The table, in Markdown, and the number of cells that keep their goals.
pub fn table(rows: &[Row<'_>], peer: bool) -> String {
    let lines: Vec<_> = rows.iter().map(line).collect();
    let rule = "|---|--:|--:|--:|--:|--:|--:|---|";
    let count = |rounds: for<'r> fn(&'r Row<'_>) -> &'r [Figures]| {
        let all: Vec<_> = rows.iter().filter(|row| !rounds(row).is_empty()).collect();
        let kept = all.iter().filter(|row| is_kept(row, rounds(row))).count();
        format!("{kept} of {} cells", all.len())
    };
    let mut text = format!("{HEAD}\n{rule}\n{}\n\nKept: {}", lines.join("\n"), count(|row| &row.ours));
    if peer {
        write!(text, "; the peer would keep {}", count(|row| &row.peer)).expect("a String takes all");
    }
    text += ".\nMeans in percent of the device's time and errors in points, each the median of the rounds; goal: how far \
             the mean, and any window of a second, may be off.\n";
    text
}

/// The loss of programs without a limit.
pub fn losses(losses: &[Loss]) -> String {
    let mut text = String::new();
    if !losses.is_empty() {
        text += "\n| without a share | launches without the library | with | lost |\n|---|--:|--:|--:|\n";
    }
    for loss in losses {
        let (without, with) = (median(&loss.without), median(&loss.with));
        let lost: Vec<_> = loss.without.iter().zip(&loss.with).map(|(a, b)| 100.0 * (a - b) / a).collect();
        let line = format!("| {} | {without:.0} | {with:.0} | {:.2}% |\n", loss.name, median(&lost));
        text += &line;
    }
    text
}

/// Writes `README.md`, the table and the machine, `raw.json`, every figure of every round, and the plot.
pub fn write(folder: &Path, rows: &[Row<'_>], table: &str, plot: &str) -> std::io::Result<()> {
    let side = |rounds: &[Figures]| -> Vec<_> {
        let one = |figures: &Figures| json!({ "mean": figures.means, "window": figures.window, "busy": figures.busy, "p99_ns": figures.p99_ns });
        rounds.iter().map(one).collect()
    };
    let row = |row: &Row<'_>| {
        let (ours, peer) = (side(&row.ours), side(&row.peer));
        json!({ "cell": row.cell.name(), "uncapped_busy": row.uncapped, "ours": ours, "peer": peer })
    };
    store(folder, &rows.iter().map(row).collect(), &format!("{table}\n![over time](plot.svg)\n"))?;
    std::fs::write(folder.join("plot.svg"), plot)
}
