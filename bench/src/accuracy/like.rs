//! Like for like: a column for each library, in the same run on the same device. Beside the cells: what a library costs where
//! there is no share, what calls cost, and what a cap lets through by the device's own books.

use std::fmt::Write as _;

use gpuquota_bench::gate::{CALLS, gate};
use gpuquota_bench::median;
use gpuquota_bench::peers::{Library, Limits, Peer, Side, in_turn};
use gpuquota_promises::{GIB, Lost, MIB, Scratch, Setting};
use serde_json::{Map, Value, json};

use crate::Row;
use crate::run::{Figures, Loss, losses, machine};
use crate::table::{is_kept, lost, means, of, time, words};

/// The cap that one process fills, GiB, and the pieces that fill it: the driver gives each two of its blocks, and a library may
/// count the bytes.
const FILLED: u32 = 2;
const PIECE: i64 = MIB + 4096;
/// The cap that processes race for, GiB: so much that all have their contexts below it.
const RACED: u32 = 8;
/// The processes that race for the last bytes, of four threads each.
const RACERS: usize = 8;

/// What was measured beside the cells, with a side for each library.
pub struct Measured<'p> {
    losses: Vec<Loss<'p>>,
    /// Of [`CALLS`]; the first side is without a library.
    calls: Vec<Side<Vec<f64>>>,
    /// The most bytes that the card gave while one process filled the cap,
    filled: Vec<Result<i64, String>>,
    /// and while processes raced for it.
    raced: Vec<Result<i64, String>>,
}

/// Takes these figures.
pub fn measure(ideal: bool, peers: &[Peer], rounds: usize) -> Measured<'_> {
    let all = Library::all(peers);
    // Where the device's own calls take no time, what a library adds is above the noise.
    let (machine, homes) = (machine(true), all.iter().map(|_| Scratch::new()).collect::<Vec<_>>());
    let capped = Limits { cores: None, memory: Some(40) };
    let sides: Vec<_> =
        all.iter().zip(&homes).map(|(library, home)| library.container(&machine, capped, home)).collect();
    Measured {
        losses: losses(ideal, &all[1..], rounds),
        calls: in_turn(rounds, &sides.iter().collect::<Vec<_>>(), gate),
        filled: all[1..].iter().map(|library| under_cap(ideal, *library, FILLED, fill)).collect(),
        raced: all[1..].iter().map(|library| under_cap(ideal, *library, RACED, race)).collect(),
    }
}

/// The most bytes that the card had given, contexts too, under a cap of so many GiB when `work` was done.
fn under_cap(
    ideal: bool,
    library: Library<'_>,
    gib: u32,
    work: fn(&Setting<'_>) -> Result<(), Lost>,
) -> Result<i64, String> {
    let (machine, home) = (machine(ideal), Scratch::new());
    let container = library.container(&machine, Limits { cores: None, memory: Some(gib) }, &home)?;
    work(&container).map_err(|why| why.to_string())?;
    Ok(machine.truth().device("physical_peak_bytes"))
}

fn fill(container: &Setting<'_>) -> Result<(), Lost> {
    container.start("alloc_until_refused", &[&PIECE.to_string()]).try_finish().map(drop)
}

fn race(container: &Setting<'_>) -> Result<(), Lost> {
    let arguments = ["4".to_owned(), (256 * MIB).to_string(), "1000".to_owned()];
    let arguments = arguments.each_ref().map(String::as_str);
    let mut all: Vec<_> = (0..RACERS).map(|_| container.start("race_for_last_bytes", &arguments)).collect();
    all.iter_mut().try_for_each(|one| one.hear("ready").map(drop))?;
    all.iter_mut().for_each(|one| one.tell("go"));
    all.iter_mut().try_for_each(|one| one.hear("rest").map(drop))?;
    all.into_iter().try_for_each(|one| one.try_finish().map(drop))
}

/// The tables, in Markdown.
pub fn table(rows: &[Row<'_>], measured: &Measured<'_>, peers: &[Peer]) -> String {
    let all: Vec<_> = Library::all(peers).iter().map(Library::name).collect();
    let rows: Vec<_> = rows.iter().filter(|row| !row.ours.is_empty()).collect();
    let shares = rows.iter().map(|row| {
        let busy = format!("{:.1}", row.uncapped);
        (row.cell.name(), [vec![busy], sides(row, |rounds| share(row, rounds))].concat())
    });
    let latencies = rows.iter().map(|row| (row.cell.name(), sides(row, latency)));
    let together = rows.iter().filter(|row| row.cell.shares.len() > 1).map(|row| {
        let whole =
            |rounds: &[Figures]| format!("{:.1}%", 100.0 * of(rounds, |figures| figures.busy) / row.uncapped);
        (format!("{}: of what they do without a library", row.cell.name()), sides(row, whole))
    });
    let caps = [
        (format!("{FILLED} GiB, filled by one process in pieces of 1 MiB + 4 KiB"), FILLED, &measured.filled),
        (format!("{RACED} GiB, {RACERS} processes of 4 threads race for it"), RACED, &measured.raced),
    ];
    let caps = caps.map(|(what, gib, side)| (what, side.iter().map(|bytes| given(bytes, gib)).collect()));
    let mut text = String::new();
    let mut section = |title: &str, head: &[&str], lines: Vec<(String, Vec<String>)>| {
        write!(text, "| {title} | {} |\n|---|{}\n", head.join(" | "), "--:|".repeat(head.len()))
            .expect("a String takes all");
        for (name, values) in lines {
            writeln!(text, "| {name} | {} |", values.join(" | ")).expect("a String takes all");
        }
        text.push('\n');
    };
    section("share: mean %, error of the worst second in points", &all, shares.collect());
    section("99th percentile: a launch call, a request", &all[1..], latencies.collect());
    section("throughput", &all[1..], together.chain(lost_lines(measured, all.len() - 1)).collect());
    section(
        "cost of a call, added to that without; the device's own calls take no time",
        &all,
        call_lines(measured),
    );
    section("cap: the most that the card gave, and above the cap", &all[1..], caps.into());
    if let Some(cell) = rows.first().map(|row| row.cell) {
        let (lasts, after) = (cell.seconds, cell.settling().as_secs_f64());
        write!(
            text,
            "A cell is observed for {lasts} s, from {after:.1} s after its programs have started, or later. "
        )
        .expect("a String takes all");
    }
    text + "Figures are medians of the rounds. A request is all that a program launches before it waits. Every launch has 16,384 \
            blocks where the name does not say otherwise: HAMi-core and vgpu-manager charge by blocks, whatever a kernel takes.\n"
}

/// A cell of the table for ours, and for each peer.
fn sides(row: &Row<'_>, show: impl Fn(&[Figures]) -> String) -> Vec<String> {
    let peers =
        row.peers.iter().map(|side| side.rounds.as_ref().map_or_else(Clone::clone, |rounds| show(rounds)));
    [show(&row.ours)].into_iter().chain(peers).collect()
}

fn share(row: &Row<'_>, rounds: &[Figures]) -> String {
    let verdict = if is_kept(row, rounds) { "" } else { ", missed" };
    format!("{}, {:.1}{verdict}", words(&means(row, rounds)), of(rounds, |figures| figures.window))
}

fn latency(rounds: &[Figures]) -> String {
    let (launch, request) =
        (of(rounds, |figures| figures.p99_ns), of(rounds, |figures| figures.p99_request_ns));
    format!("{}, {}", time(launch), time(request))
}

/// For each load a line with a value for each library; the losses lie load by load.
fn lost_lines<'a>(
    measured: &'a Measured<'_>,
    libraries: usize,
) -> impl Iterator<Item = (String, Vec<String>)> + 'a {
    measured.losses.chunks(libraries).map(|load| {
        let value = |loss: &Loss<'_>| match &loss.with {
            Ok(with) => format!("{:.1}% lost", lost(loss, with)),
            Err(why) => why.clone(),
        };
        (format!("{}, no share", load[0].name), load.iter().map(value).collect())
    })
}

fn call_lines(measured: &Measured<'_>) -> Vec<(String, Vec<String>)> {
    let Some((Ok(without), sides)) = measured.calls.split_first() else { return Vec::new() };
    let line = |at: usize, name: &str| {
        let added = |with: &Vec<Vec<f64>>| {
            let differences: Vec<_> =
                with.iter().zip(without).map(|(with, without)| with[at] - without[at]).collect();
            median(&differences)
        };
        let own = median(&without.iter().map(|round| round[at]).collect::<Vec<_>>());
        let values = sides
            .iter()
            .map(|side| side.as_ref().map_or_else(Clone::clone, |with| format!("+{}", short(added(with)))));
        (name.to_owned(), [short(own)].into_iter().chain(values).collect())
    };
    CALLS.iter().enumerate().map(|(at, call)| line(at, call.name)).collect()
}

fn short(ns: f64) -> String {
    if ns.abs() < 10_000.0 { format!("{ns:.0} ns") } else { format!("{:.0} us", ns / 1_000.0) }
}

fn given(bytes: &Result<i64, String>, gib: u32) -> String {
    let cap = i64::from(gib) * GIB;
    bytes.as_ref().map_or_else(Clone::clone, |bytes| {
        format!("{:.3} GB, {:+.0} MB", *bytes as f64 / 1e9, (bytes - cap) as f64 / 1e6)
    })
}

/// Every figure, for `raw.json`.
pub fn raw(measured: &Measured<'_>, peers: &[Peer]) -> Value {
    let all: Vec<_> = Library::all(peers).iter().map(|library| library.name().to_owned()).collect();
    let figures = |side: Result<Value, &String>| side.unwrap_or_else(|why| json!({ "failed": why }));
    let calls = measured.calls.iter().map(|side| figures(side.as_ref().map(|rounds| json!(rounds))));
    let bytes = |side: &[Result<i64, String>]| -> Map<_, _> {
        all[1..]
            .iter()
            .cloned()
            .zip(side.iter().map(|side| figures(side.as_ref().map(|bytes| json!(bytes)))))
            .collect()
    };
    let losses = measured.losses.iter().map(|loss| {
        let with = figures(loss.with.as_ref().map(|with| json!(with)));
        json!({ "load": loss.name, "library": loss.library.name(), "without": loss.without, "with": with })
    });
    let keys: Vec<_> = CALLS.iter().map(|call| call.key).collect();
    json!({
        "losses": losses.collect::<Vec<_>>(),
        "calls": keys,
        "call_ns": all.iter().cloned().zip(calls).collect::<Map<_, _>>(),
        "filled_bytes": bytes(&measured.filled),
        "raced_bytes": bytes(&measured.raced),
    })
}
