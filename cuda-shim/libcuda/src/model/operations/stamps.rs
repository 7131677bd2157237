//! Stamps: kernels that a rule tells to write down when they ran, as programs do that read `%globaltimer`.
//!
//! Work is laid out in seat time; which wall time that was is known once it is over. So what is laid out waits here and is
//! written whenever the process looks: it waits, asks with success, copies from or to a log, or launches another
//! such kernel. A log is `next`, `capacity`, and so many pairs of begin and end, each a word of 64 bits.
//!
//! A process that does not look while it loses the device 512 times loses the exact times of what was before.

use std::cmp::Reverse;
use std::sync::atomic::Ordering::Relaxed;

use cuda_shim_device::Seat;

use crate::model::objects::op::Op;
use crate::model::objects::stamps::{PENDING, Stamp};
use crate::model::operations::access;
use crate::model::world::{World, world};
use crate::tools::bytes;

/// Bytes of a log before its entries, and of one entry.
const HEAD: u64 = 16;
const ENTRY: u64 = 16;

/// Writes down what is over.
pub fn write_due() {
    if PENDING.load(Relaxed) > 0
        && let Ok(mut world) = world()
    {
        write_due_of_all(&mut world);
    }
}

/// Waits until a seat's time reaches `time` and writes down what is over then. On the way as well, before the seat
/// forgets when that was.
pub fn wait(seat: &Seat, time: u64) {
    while PENDING.load(Relaxed) > 0 {
        let stop = seat.now() + seat.remembers_ns();
        if stop >= time {
            break;
        }
        seat.wait(stop);
        write_due();
    }
    seat.wait(time);
    write_due();
}

/// Notes a kernel that runs from `begin` to `end` in the seat time of a device, and the log where it writes that.
pub fn note_stamp(world: &mut World, ordinal: usize, begin: u64, end: u64, log: u64) {
    let Some(device) = world.devices.get_mut(ordinal) else { return };
    let stamps = &mut device.stamps;
    stamps.number += 1;
    stamps.pending.push(Reverse(Stamp { end, number: stamps.number, begin, log }));
    PENDING.fetch_add(1, Relaxed);
}

/// Writes down what is over at seat time `now` of a device.
pub fn write_due_of(world: &mut World, ordinal: usize, now: u64) {
    let Some(device) = world.devices.get_mut(ordinal) else { return };
    let (Some(seat), pending) = (device.seat, &mut device.stamps.pending) else { return };
    let (mut spans, mut logs) = (Vec::new(), Vec::new());
    while pending.peek().is_some_and(|Reverse(first)| first.end <= now) {
        let Some(Reverse(Stamp { begin, end, log, .. })) = pending.pop() else { break };
        spans.push((begin, end));
        logs.push(log);
    }
    if spans.is_empty() {
        return;
    }
    PENDING.fetch_sub(spans.len(), Relaxed);
    seat.walls_of(&mut spans);
    for ((begin, end), log) in spans.into_iter().zip(logs) {
        write_stamp(world, log, begin, end);
    }
}

fn write_due_of_all(world: &mut World) {
    for ordinal in 0..world.devices.len() {
        let device = &world.devices[ordinal];
        if let Some(seat) = device.seat.filter(|_| !device.stamps.pending.is_empty()) {
            write_due_of(world, ordinal, seat.now());
        }
    }
}

/// How many entries the log at an address has; `None` if there is none that the devices can write.
fn capacity_of(world: &mut World, log: u64) -> Option<u64> {
    if !log.is_multiple_of(8) || !access::reaches(world, log, HEAD, true) {
        return None;
    }
    let capacity = bytes::word(log + 8);
    let length = capacity.checked_mul(ENTRY)?.checked_add(HEAD)?;
    (capacity > 0 && access::reaches(world, log, length, true)).then_some(capacity)
}

fn write_stamp(world: &mut World, log: u64, begin: u64, end: u64) {
    let Some(capacity) = capacity_of(world, log) else { return };
    let entry = log + HEAD + bytes::count(log) % capacity * ENTRY;
    bytes::put_word(entry, begin);
    bytes::put_word(entry + 8, end);
    access::touch(world, log, HEAD);
}

/// Whether work moves bytes of a log in which something is still to be written.
#[inline]
pub fn meets_stamps(world: &mut World, op: &Op) -> bool {
    PENDING.load(Relaxed) > 0 && meets_pending(world, op)
}

#[cold]
fn meets_pending(world: &mut World, op: &Op) -> bool {
    let ranges = match op {
        Op::Copy(copy) => [(copy.from, copy.extent()), (copy.to, copy.reach())],
        Op::Fill(fill) => [(fill.to, fill.reach()); 2],
        _ => return false,
    };
    let pending = world.devices.iter().flat_map(|device| &device.stamps.pending);
    let mut logs: Vec<u64> = pending.map(|Reverse(stamp)| stamp.log).collect();
    logs.sort_unstable();
    logs.dedup();
    logs.into_iter().any(|log| {
        let length = HEAD.saturating_add(capacity_of(world, log).unwrap_or(0) * ENTRY);
        let meets = |(start, extent): (u64, u64)| {
            start < log.saturating_add(length) && log < start.saturating_add(extent)
        };
        ranges.into_iter().any(meets)
    })
}

/// Memory from `start` is freed: what was to be written there is lost, as it would be.
#[inline]
pub fn forget_stamps(world: &mut World, start: u64, length: u64) {
    if PENDING.load(Relaxed) > 0 {
        forget_pending(world, start, length);
    }
}

#[cold]
fn forget_pending(world: &mut World, start: u64, length: u64) {
    for device in &mut world.devices {
        let pending = &mut device.stamps.pending;
        let before = pending.len();
        pending.retain(|Reverse(stamp)| stamp.log.wrapping_sub(start) >= length);
        PENDING.fetch_sub(before - pending.len(), Relaxed);
    }
}
