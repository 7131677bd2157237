//! Shows the figures: a table for people, and the raw data to check it.

use std::fmt::Write as _;
use std::path::Path;

use gpuquota_bench::peers::Peer;
use gpuquota_bench::{median, store};
use serde_json::{Map, Value, json};

use crate::run::{Figures, Loss};
use crate::{Row, Side};

/// The head of the table.
const HEAD: &str =
    "| kernels, way, share | uncapped busy % | mean % | window error | goal | busy % of due | p99 launch | |";

/// The median of some rounds' figure.
pub fn of(rounds: &[Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    median(&rounds.iter().map(figure).collect::<Vec<_>>())
}

/// The mean of each container, each a median.
pub fn means(row: &Row<'_>, rounds: &[Figures]) -> Vec<f64> {
    (0..row.cell.shares.len()).map(|at| of(rounds, |figures| figures.means[at])).collect()
}

pub fn words(means: &[f64]) -> String {
    means.iter().map(|mean| format!("{mean:.2}")).collect::<Vec<_>>().join(" : ")
}

pub fn time(ns: f64) -> String {
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
    let all = of(rounds, |figures| figures.busy);
    // Those that cannot fill the device are to have their parts of what they do.
    let part = if row.cell.waits_beside_others() { all / row.cell.due() } else { 1.0 };
    let off = |(at, mean): (usize, &f64)| (mean - part * row.cell.share(at)).abs();
    let off = means.iter().enumerate().map(off).fold(0.0, f64::max);
    let busy = 100.0 * all / row.cell.due();
    off <= row.cell.mean_goal()
        && of(rounds, |figures| figures.window) <= row.cell.window_goal()
        && busy >= row.cell.busy_goal(row.uncapped)
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
    let goal = match row.cell.waits_beside_others() {
        true => format!("{:.2}, {:.1} busy", row.cell.mean_goal(), row.cell.busy_goal(row.uncapped)),
        false => format!("{:.2}, {:.1}", row.cell.mean_goal(), row.cell.window_goal()),
    };
    let verdict = if is_kept(row, &row.ours) { "kept" } else { "missed" };
    let mut text = format!("| {name} | {uncapped:.1} | {means} | {window} | {goal} | {rest} | {verdict} |");
    for side in &row.peers {
        let name = &side.name;
        let line = match &side.rounds {
            Ok(rounds) => {
                let [means, window, rest] = cells(row, rounds);
                let verdict = if is_kept(row, rounds) { "would keep" } else { "would miss" };
                format!("\n| - {name} | | {means} | {window} | | {rest} | {verdict} |")
            }
            Err(why) => format!("\n| - {name} | | - | - | | - | - | {why} |"),
        };
        text += &line;
    }
    text
}

/// The table, in Markdown, and the number of cells that keep their goals.
pub fn table(rows: &[Row<'_>], peers: &[Peer]) -> String {
    let lines: Vec<_> = rows.iter().map(line).collect();
    let rule = "|---|--:|--:|--:|--:|--:|--:|---|";
    let measured: Vec<_> = rows.iter().filter(|row| !row.ours.is_empty()).collect();
    let kept = measured.iter().filter(|row| is_kept(row, &row.ours)).count();
    let mut text =
        format!("{HEAD}\n{rule}\n{}\n\nKept: {kept} of {} cells", lines.join("\n"), measured.len());
    for peer in peers {
        let sides = rows.iter().flat_map(|row| row.peers.iter().map(move |side| (row, side)));
        let sides: Vec<_> = sides.filter(|(_, side)| side.name == peer.name).collect();
        let kept =
            sides.iter().filter(|(row, side)| side.rounds.as_ref().is_ok_and(|rounds| is_kept(row, rounds)));
        write!(text, "; {} would keep {} of {}", peer.name, kept.count(), sides.len())
            .expect("a String takes all");
    }
    let rounds = measured.first().map_or(0, |row| row.ours.len());
    let each = if rounds == 1 { "of one round".to_owned() } else { format!("the median of {rounds} rounds") };
    write!(text, ".\nMeans in percent of the device's time and errors in points, each {each}; goal: how far \
             the mean, and any window of a second, may be off; for containers that wait for each kernel beside each other, how far the \
             mean may be off from their part of what they do, and how busy the device is to be: 97% of what it is without a limit.\n").expect("a String takes all");
    for warning in peers.iter().filter_map(|peer| peer.warning.as_ref()) {
        writeln!(text, "\n{warning}").expect("a String takes all");
    }
    text
}

/// The loss of programs without a limit.
pub fn losses(losses: &[Loss<'_>]) -> String {
    let mut text = String::new();
    if !losses.is_empty() {
        text += "\n| without a share | launches without the library | with | lost |\n|---|--:|--:|--:|\n";
    }
    for loss in losses {
        let line = match &loss.with {
            Ok(with) => {
                format!("{:.0} | {:.0} | {:.2}%", median(&loss.without), median(with), lost(loss, with))
            }
            Err(why) => format!("{:.0} | - | {why}", median(&loss.without)),
        };
        text += &format!("| {} | {line} |\n", loss.name);
    }
    text
}

/// What a library costs in launches, in percent: the median of the differences within each round.
pub fn lost(loss: &Loss<'_>, with: &[f64]) -> f64 {
    median(
        &loss
            .without
            .iter()
            .zip(with)
            .map(|(without, with)| 100.0 * (without - with) / without)
            .collect::<Vec<_>>(),
    )
}

/// Writes `README.md`, the table and the machine, `raw.json`, every figure of every round, and the plot. `further` are figures
/// beside those of the cells.
pub fn write(
    folder: &Path,
    rows: &[Row<'_>],
    further: Value,
    table: &str,
    plot: &str,
) -> std::io::Result<()> {
    let side = |rounds: &[Figures]| -> Value {
        let one = |figures: &Figures| {
            json!({ "mean": figures.means, "window": figures.window, "busy": figures.busy, "p99_ns": figures.p99_ns,
                    "p99_request_ns": figures.p99_request_ns })
        };
        rounds.iter().map(one).collect()
    };
    let row = |row: &Row<'_>| {
        let peer = |of: &Side| {
            let figures =
                of.rounds.as_ref().map_or_else(|why| json!({ "failed": why }), |rounds| side(rounds));
            (of.name.clone(), figures)
        };
        let peers: Map<_, _> = row.peers.iter().map(peer).collect();
        json!({ "cell": row.cell.name(), "uncapped_busy": row.uncapped, "ours": side(&row.ours), "peers": peers })
    };
    let cells: Value = rows.iter().map(row).collect();
    let raw = match further {
        Value::Object(mut all) => {
            all.insert("cells".into(), cells);
            all.into()
        }
        _ => cells,
    };
    store(folder, &raw, &format!("{table}\n![over time](plot.svg)\n"))?;
    std::fs::write(folder.join("plot.svg"), plot)
}
