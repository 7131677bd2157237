//! Refusals: processes that may make room for a request, and the events and messages of a request that is refused.

use super::books::Books;
use crate::container::holders::{self, Holder};
use crate::container::{Container, DeviceRef};
use crate::uuid::Uuid;
use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
};
use gpuquota_quota::ledger;
use gpuquota_quota::text::Line;
use gpuquota_region::layout::{
    EVENT_DENIED, EVENT_HOLDER, EVENT_KILLED, KIND_CONTEXT, KIND_GRAPH, KIND_MODULE, KIND_POOL, SLOTS,
};
use gpuquota_region::{slot, sys};

/// Pause between two lists of holders: allocators try again and again.
const LISTING_PAUSE_NS: u64 = 1_000_000_000;
/// Holders that a list names.
const LISTED: usize = 3;

/// The reports of this process on its refusals. All-zero bytes: none yet.
pub struct Refusals {
    /// Whether the process has written its line on stderr.
    warned: AtomicBool,
    /// When it last listed holders, CLOCK_MONOTONIC nanoseconds.
    listed_at_ns: AtomicU64,
}

/// A request that the cap does not allow now.
#[derive(Clone, Copy)]
pub struct MemoryRequest {
    /// The device.
    pub device: DeviceRef,
    /// The bytes requested.
    pub bytes: u64,
    /// The cap that forbids it.
    pub cap: Option<u64>,
    /// Why it is refused, if it is: one of the `REFUSED_` codes.
    pub reason: usize,
}

impl MemoryRequest {
    /// Where the operator allows it, ends a process of lower priority than this one's: the largest of the lowest priority,
    /// and only if all of lower priority together hold enough. True if it has ended one.
    pub fn end_a_lower_priority(&self, container: &Container) -> bool {
        let limits = container.limits();
        let Some(cap) = self.cap.filter(|_| limits.oom_kill && !container.observes()) else { return false };
        let missing = ledger::used(&self.device.record.used).saturating_add(self.bytes).saturating_sub(cap);
        let own = limits.priority.unsigned_abs();
        let (mut victim, mut enough) = (Holder::default(), 0u64);
        holders::each(container, self.device, &mut |holder| {
            // The end of process 1 of a container ends all others.
            if holder.priority > own && holder.pid > 1 {
                enough = enough.saturating_add(holder.bytes());
                let worse = |holder: &Holder| (holder.priority, holder.bytes());
                if holder.bytes() != 0 && worse(&holder) > worse(&victim) {
                    victim = holder;
                }
            }
            true
        });
        let region = container.region();
        if victim.pid == 0 || missing == 0 || enough < missing || !slot::kill(&region, victim.slot) {
            return false;
        }
        let priority = u64::from(victim.priority);
        region.event(EVENT_KILLED, self.device.index.into(), victim.pid.into(), victim.bytes(), priority);
        if !limits.quiet {
            let mut line = Line::<400>::new();
            line.push_str("gpuquota: to make room for process ").push_u64(sys::pid().into());
            line.push_str(", process ")
                .push_u64(victim.pid.into())
                .push_str(" of lower priority was ended; it held ");
            line.push_size(victim.bytes());
            sys::write_stderr(line.push_str(".").end());
        }
        true
    }
}

impl Refusals {
    /// Records a refusal as an event, and reports the first one on stderr. `used` bytes were in use.
    pub fn report(&self, container: &Container, request: &MemoryRequest, used: u64) {
        let MemoryRequest { device, bytes, cap, reason } = *request;
        count(container, device, reason);
        device.record.denied.fetch_add(1, Relaxed);
        let region = container.region();
        region.event(EVENT_DENIED, device.index.into(), bytes, used, cap.unwrap_or(0));
        let (now, last) = (sys::monotonic_ns(), self.listed_at_ns.load(Relaxed));
        if last != 0 && now.saturating_sub(last) < LISTING_PAUSE_NS {
            return;
        }
        self.listed_at_ns.store(now, Relaxed);
        let top = top_holders(container, device);
        for holder in top.iter().filter(|holder| holder.pid != 0) {
            let kind = u64::from(holder.main_kind());
            region.event(EVENT_HOLDER, device.index.into(), holder.pid.into(), holder.bytes(), kind);
        }
        if !container.limits().quiet && !self.warned.swap(true, AcqRel) {
            if container.claimed_slot().is_none() {
                write_no_slot(request, container.found_full());
            } else {
                write_line(request, used, &top);
            }
        }
    }
}

/// Counts a refusal by its reason, one of the `REFUSED_` codes.
pub fn count(container: &Container, device: DeviceRef, reason: usize) {
    let of_device = container.ours().header.refusals.get(usize::from(device.index));
    if let Some(count) = of_device.and_then(|of| of.get(reason)) {
        let _ = count.fetch_update(Relaxed, Relaxed, |count| count.checked_add(1));
    }
}

/// In observe mode: counts a request that a cap would have refused.
pub fn count_excess(books: Books<'_>, device: DeviceRef) {
    let cap = books.scope.devices.memory_cap(device);
    if cap.is_some_and(|cap| ledger::used(&device.record.used) > cap) {
        device.record.would_deny.fetch_add(1, Relaxed);
    }
}

/// Whether any process has reserved an upper bound for a call that has not returned.
pub fn any_reserving(container: &Container, device: u8) -> bool {
    let ours = container.ours();
    let high = ours.header.slot_high.load(Acquire) as usize;
    let serves = |journal: &AtomicU8| journal.load(Relaxed) == device.wrapping_add(1);
    ours.slots.iter().zip(&ours.journals).take(high).any(|(slot, journals)| {
        let pairs = slot.journal_device.iter().zip(journals);
        pairs.filter(|(device, _)| serves(device)).any(|(_, journal)| journal.reserving.load(Relaxed) != 0)
    })
}

/// Whether another process holds any bytes of a device, which it might give back.
pub fn others_hold(container: &Container, device: DeviceRef) -> bool {
    let mut any = false;
    holders::each(container, device, &mut |holder| {
        any = Some(holder.slot) != container.claimed_slot() && holder.bytes() != 0;
        !any
    });
    any
}

/// The processes that hold most of a device, the largest first; free entries have pid 0.
fn top_holders(container: &Container, device: DeviceRef) -> [Holder; LISTED] {
    let mut top = [Holder::default(); LISTED];
    holders::each(container, device, &mut |holder| {
        let mut holder = holder;
        for entry in &mut top {
            if holder.bytes() > entry.bytes() {
                core::mem::swap(entry, &mut holder);
            }
        }
        true
    });
    top
}

/// Writes the line of a process's first refusal on stderr where nothing can be charged to it.
fn write_no_slot(request: &MemoryRequest, full: bool) {
    let mut line = Line::<700>::new();
    line.push_str("gpuquota: process ").push_u64(sys::pid().into()).push_str(" was refused ");
    line.push_size(request.bytes);
    if full {
        line.push_str(": the container has ").push_u64(SLOTS as u64);
        line.push_str(" living processes that use the GPU, and can count no more. End some of them.");
    } else {
        line.push_str(": the region's file cannot be opened any more, so this process cannot be counted. ");
        line.push_str("Start it again.");
    }
    sys::write_stderr(line.end());
}

/// Writes the line of a process's first refusal on stderr.
fn write_line(request: &MemoryRequest, used: u64, top: &[Holder]) {
    let mut line = Line::<700>::new();
    line.push_str("gpuquota: process ").push_u64(sys::pid().into()).push_str(" was refused ");
    line.push_size(request.bytes);
    line.push_str(" on ")
        .push_escaped(Uuid::of(request.device.record).as_c_str().to_bytes(), 60)
        .push_str(": ");
    line.push_size(used);
    line.push_str(" of the container's ");
    line.push_size(request.cap.unwrap_or(0));
    line.push_str(" are in use");
    for holder in top.iter().filter(|holder| holder.pid != 0) {
        line.push_str(", ");
        line.push_size(holder.bytes());
        line.push_str(" by process ").push_u64(holder.pid.into());
        line.push_str(match holder.main_kind() {
            KIND_CONTEXT => " (contexts)",
            KIND_MODULE => " (code and heaps)",
            KIND_POOL => " (pools)",
            KIND_GRAPH => " (graphs)",
            _ => "",
        });
    }
    line.push_str(". More: gpuquota inspect --events. Later refusals are not told here.");
    sys::write_stderr(line.end());
}
