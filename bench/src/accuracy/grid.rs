//! The cells that a run measures.

use crate::cell::{Cell, Event, GRAPH, Kernels, PYTORCH};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

const SHARES: [u32; 7] = [5, 10, 25, 30, 50, 75, 90];
const MIX: Kernels = Kernels::Mix(&[10 * US, 200 * US, 3 * MS, 20 * MS]);

/// A few short cells, for the tests.
pub fn quick() -> Vec<Cell> {
    let cell = |kernels, way, share| Cell::new(kernels, way, share).seconds(3);
    vec![
        cell(Kernels::Each(MS), "async", 30),
        cell(Kernels::Around(500 * US), "streams", 50),
        cell(Kernels::Each(MS), GRAPH, 25).processes(2),
        cell(Kernels::Each(2 * MS), "sync", 10),
    ]
}

/// The cells in which libraries are held against each other. They settle for longer, because controllers begin far off.
pub fn like_for_like() -> Vec<Cell> {
    let cell = |length, way, share| Cell::new(Kernels::Each(length), way, share).seconds(5);
    vec![
        cell(50 * US, "async", 30),
        cell(MS, "sync", 30),
        cell(MS, "async", 30),
        cell(MS, "async", 75),
        cell(MS, "streams", 30),
        cell(MS, GRAPH, 30),
        cell(20 * MS, "async", 30),
        // A block on each processor, as a persistent kernel has; and an elementwise one of 1 ms with four values to a thread.
        cell(MS, "async", 30).blocks(132),
        cell(MS, "async", 30).blocks(1 << 18),
        cell(MS, "async", 30).containers(&[30, 70]),
    ]
    .into_iter()
    .map(Cell::settled)
    .collect()
}

/// A few cells for each question, in a quarter of an hour; or all cells, in some hours.
pub fn cells(full: bool) -> Vec<Cell> {
    if full { grid() } else { [by_length(), by_way(), by_company(), by_event()].concat() }
}

fn by_length() -> Vec<Cell> {
    let each = |length, share| Cell::new(Kernels::Each(length), "async", share);
    let mut cells = Vec::new();
    for share in [10, 75] {
        cells.extend([5 * US, MS, 20 * MS].map(|length| each(length, share)));
    }
    cells.extend([5 * US, 50 * US, MS, 5 * MS, 20 * MS].map(|length| each(length, 30)));
    cells.extend([100 * MS, 500 * MS].map(|length| each(length, 30)));
    cells.extend([5, 50, 90].map(|share| each(MS, share)));
    for kernels in [Kernels::Around(MS), MIX] {
        cells.extend([30, 75].map(|share| Cell::new(kernels.clone(), "async", share)));
    }
    cells
}

fn by_way() -> Vec<Cell> {
    let mut cells = Vec::new();
    for way in ["sync", "streams", GRAPH] {
        for kernels in [Kernels::Each(50 * US), Kernels::Around(MS), Kernels::Each(5 * MS)] {
            cells.push(Cell::new(kernels, way, 30));
        }
        cells.push(Cell::new(Kernels::Each(5 * MS), way, 75));
    }
    for length in [10, 20, 100, 200].map(|length| length * US) {
        cells.extend(["sync", "async"].map(|way| Cell::new(Kernels::Each(length), way, 30)));
    }
    for length in [10 * US, 50 * US, MS] {
        cells.extend([30, 75].map(|share| Cell::new(Kernels::Each(length), "streams", share).aliased()));
    }
    cells.push(Cell::new(Kernels::Each(50 * US), "streams", 75));
    for (length, way) in [(200 * US, "sync"), (MS, "sync"), (MS, "async"), (5 * MS, "async")] {
        cells.push(Cell::new(Kernels::Each(length), way, 30).paced());
    }
    cells.extend([30, 75].map(|share| Cell::new(Kernels::Each(200 * US), PYTORCH, share)));
    cells
}

fn by_company() -> Vec<Cell> {
    let one = |length| Cell::new(Kernels::Each(length), "async", 30);
    let mut cells = Vec::new();
    for processes in [2, 8] {
        cells.extend([MS, 20 * MS].map(|length| one(length).processes(processes)));
        cells.push(Cell::new(Kernels::Around(MS), "streams", 50).processes(processes));
    }
    for shares in [&[50, 50][..], &[10, 90], &[30, 70], &[25, 25, 25, 25]] {
        cells.extend([MS, 20 * MS].map(|length| one(length).containers(shares)));
    }
    cells.push(one(50 * US).containers(&[30, 70]));
    cells.push(Cell::new(Kernels::Around(5 * MS), "async", 30).containers(&[30, 70]));
    cells.push(one(MS).containers(&[30, 30]));
    cells
        .extend([&[30, 70][..], &[20, 20], &[10, 20, 30]].map(|shares| one(MS).containers(shares).lending()));
    let waits = |length, shares| Cell::new(Kernels::Each(length), "sync", 30).containers(shares).lending();
    cells.extend([50 * US, 200 * US, MS].map(|length| waits(length, &[50, 50])));
    cells.extend([200 * US, MS].map(|length| waits(length, &[30, 70])));
    cells
}

fn by_event() -> Vec<Cell> {
    let one = || Cell::new(Kernels::Each(MS), "async", 30);
    vec![
        one().event(Event::LimitChanged(60)),
        one().event(Event::LimitChanged(10)),
        one().processes(2).event(Event::Killed),
        one().event(Event::AgentStopped),
    ]
}

fn grid() -> Vec<Cell> {
    let lengths = [5 * US, 50 * US, 500 * US, 5 * MS, 50 * MS, 500 * MS];
    let lengths =
        lengths.map(Kernels::Each).into_iter().chain([Kernels::Around(MS), Kernels::Around(20 * MS), MIX]);
    let mut cells = Vec::new();
    for kernels in lengths {
        for share in SHARES {
            for way in ["sync", "async", "streams", GRAPH, PYTORCH] {
                let cell = || Cell::new(kernels.clone(), way, share);
                cells.extend([1, 2, 8].map(|processes| cell().processes(processes)));
            }
        }
        let one = || Cell::new(kernels.clone(), "async", 30);
        for shares in [&[50, 50][..], &[10, 90], &[30, 70], &[25, 25, 25, 25]] {
            cells.extend([one().containers(shares), one().containers(shares).lending()]);
        }
        cells.extend([
            one().event(Event::LimitChanged(60)),
            one().processes(2).event(Event::Killed),
            one().event(Event::AgentStopped),
        ]);
    }
    cells
}
