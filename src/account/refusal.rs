//! A request that does not fit: when a refusal is right, what is tried before, and what is said of it.

use super::{Process, Reservation};
use crate::device::Uuid;
use crate::holders::Holder;
use crate::spill::Room;
use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
};
use gpuquota_quota::ledger::{self, Refused};
use gpuquota_quota::text::Line;
use gpuquota_region::layout::{
    Device, EVENT_DENIED, EVENT_HOLDER, EVENT_KILLED, KIND_CONTEXT, KIND_GRAPH, KIND_MODULE, KIND_POOL,
};
use gpuquota_region::{slot, sys};

/// How long a refusal waits for reservations in flight, which may turn out smaller or fail.
const SETTLING_NS: u64 = 10_000_000;
/// How long for the bytes of a process that is dying.
const TEARDOWN_NS: u64 = 100_000_000;
/// Pause between two looks. The wait that the operator allows may be long.
const PAUSE_NS: u64 = 200_000;
const LONG_PAUSE_NS: u64 = 2_000_000;
/// Pause between two refusals of a process that are explained: allocators try again and again.
const EXPLAINING_PAUSE_NS: u64 = 1_000_000_000;
/// Holders that are named.
const NAMED: usize = 3;

/// What this process has said of refusals. All-zero bytes: nothing.
pub struct Refusals {
    /// Whether it has had its one line.
    spoken: AtomicBool,
    /// When holders were last named, CLOCK_MONOTONIC nanoseconds.
    explained_at_ns: AtomicU64,
}

/// A request that the cap does not allow now.
struct Request<'d> {
    record: &'d Device,
    device: u8,
    bytes: u64,
    cap: Option<u64>,
}

impl Process {
    /// A refusal is right only if the bytes of the dead are back and no reservation in flight may still shrink.
    #[cold]
    pub(super) fn reserve_slowly(
        &self,
        record: &Device,
        device: u8,
        bytes: u64,
        room: Room,
        refused: Refused,
    ) -> Option<Reservation> {
        let _errno = sys::KeepErrno::new();
        let mut request = Request { record, device, bytes, cap: self.ceiling(device, record, room) };
        let mut refused = refused;
        let started = sys::monotonic_ns();
        // Code that was unloaded may still be charged, and pools may hold what they do not use.
        self.settle_overhead(device, SETTLING_NS);
        self.squeeze(device);
        let patience = u64::from(self.limits().memory_wait_ms).wrapping_mul(1_000_000);
        let mut killed_at = None;
        while request.cap.is_none_or(|cap| bytes <= cap) {
            self.reap();
            request.cap = self.ceiling(device, record, room);
            match self.try_reserve(record, device, bytes, room) {
                Ok(reservation) => return Some(reservation),
                Err(again) => refused = again,
            }
            let now = sys::monotonic_ns();
            let waited = now.saturating_sub(started);
            let settling = waited < SETTLING_NS && self.in_flight(device);
            let dying = match killed_at {
                Some(at) => now.saturating_sub(at) < TEARDOWN_NS,
                None => waited < TEARDOWN_NS && self.any_dying(),
            };
            if settling || dying {
                sys::sleep_until(now.wrapping_add(PAUSE_NS));
            } else if waited < patience && self.others_hold(device) {
                sys::sleep_until(now.wrapping_add(LONG_PAUSE_NS));
            } else if self.make_room(&request) {
                killed_at = Some(now);
            } else {
                break;
            }
        }
        let used = match refused {
            Refused::Cap { used } => used,
            Refused::Broken => ledger::used(&record.used),
        };
        self.tell(&request, used);
        None
    }

    /// Whether any process has reserved an upper bound whose call has not returned.
    fn in_flight(&self, device: u8) -> bool {
        let Some(region) = self.region() else { return false };
        let ours = region.ours();
        let high = ours.header.slot_high.load(Acquire) as usize;
        let serves = |lane: &AtomicU8| lane.load(Relaxed) == device.wrapping_add(1);
        ours.slots.iter().zip(&ours.lanes).take(high).any(|(slot, lanes)| {
            let pairs = slot.lane_device.iter().zip(lanes);
            pairs.filter(|(device, _)| serves(device)).any(|(_, lane)| lane.reserving.load(Relaxed) != 0)
        })
    }

    /// Whether another process holds anything of a device that it might give back.
    fn others_hold(&self, device: u8) -> bool {
        let mut any = false;
        self.each_holder(device, &mut |holder| {
            any = Some(holder.slot) != self.slot_index() && holder.bytes() != 0;
            !any
        });
        any
    }

    /// Where the operator allows it, ends a process of lower priority than this one's: of the lowest the largest, and only
    /// if what they all hold is enough. True if one was ended.
    fn make_room(&self, request: &Request<'_>) -> bool {
        let limits = self.limits();
        let Some(cap) = request.cap.filter(|_| limits.oom_kill && !self.observes()) else { return false };
        let missing = ledger::used(&request.record.used).saturating_add(request.bytes).saturating_sub(cap);
        let own = limits.priority.unsigned_abs();
        let (mut victim, mut enough) = (Holder::default(), 0u64);
        self.each_holder(request.device, &mut |holder| {
            // Process 1 of a container takes all others with it.
            if holder.priority > own && holder.pid > 1 {
                enough = enough.saturating_add(holder.bytes());
                let worse = |holder: &Holder| (holder.priority, holder.bytes());
                if holder.bytes() != 0 && worse(&holder) > worse(&victim) {
                    victim = holder;
                }
            }
            true
        });
        if victim.pid == 0 || missing == 0 || enough < missing {
            return false;
        }
        let Some(region) = self.region().filter(|region| slot::kill(region, victim.slot)) else {
            return false;
        };
        let priority = u64::from(victim.priority);
        region.event(EVENT_KILLED, request.device.into(), victim.pid.into(), victim.bytes(), priority);
        if !limits.quiet {
            let mut line = Line::<400>::new();
            line.push_str("gpuquota: to make room for process ").push_u64(sys::pid().into());
            line.push_str(", process ")
                .push_u64(victim.pid.into())
                .push_str(" of lower priority was ended; it held ");
            push_size(&mut line, victim.bytes());
            sys::write_stderr(line.push_str(".").end());
        }
        true
    }

    /// Writes a refusal down, and says the first one aloud.
    fn tell(&self, request: &Request<'_>, used: u64) {
        let Request { record, device, bytes, cap } = *request;
        record.denied.fetch_add(1, Relaxed);
        let Some(region) = self.region() else { return };
        region.event(EVENT_DENIED, device.into(), bytes, used, cap.unwrap_or(0));
        let (now, last) = (sys::monotonic_ns(), self.refusals.explained_at_ns.load(Relaxed));
        if last != 0 && now.saturating_sub(last) < EXPLAINING_PAUSE_NS {
            return;
        }
        self.refusals.explained_at_ns.store(now, Relaxed);
        let top = self.top_holders(device);
        for holder in top.iter().filter(|holder| holder.pid != 0) {
            let kind = u64::from(holder.main_kind());
            region.event(EVENT_HOLDER, device.into(), holder.pid.into(), holder.bytes(), kind);
        }
        if !self.limits().quiet && !self.refusals.spoken.swap(true, AcqRel) {
            say(request, used, &top);
        }
    }

    /// Who holds most of a device, the largest first; free places have pid 0.
    fn top_holders(&self, device: u8) -> [Holder; NAMED] {
        let mut top = [Holder::default(); NAMED];
        self.each_holder(device, &mut |holder| {
            let mut holder = holder;
            for place in &mut top {
                if holder.bytes() > place.bytes() {
                    core::mem::swap(place, &mut holder);
                }
            }
            true
        });
        top
    }
}

/// The line of a process's first refusal.
fn say(request: &Request<'_>, used: u64, top: &[Holder]) {
    let mut line = Line::<700>::new();
    line.push_str("gpuquota: process ").push_u64(sys::pid().into()).push_str(" was refused ");
    push_size(&mut line, request.bytes);
    line.push_str(" on ").push_escaped(Uuid::of(request.record).as_c_str().to_bytes(), 60).push_str(": ");
    push_size(&mut line, used);
    line.push_str(" of the container's ");
    push_size(&mut line, request.cap.unwrap_or(0));
    line.push_str(" are in use");
    for holder in top.iter().filter(|holder| holder.pid != 0) {
        line.push_str(", ");
        push_size(&mut line, holder.bytes());
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

/// Bytes for people: three digits and a unit.
fn push_size<const N: usize>(line: &mut Line<N>, bytes: u64) {
    let units = [("TiB", 40u32), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((name, shift)) = units.into_iter().find(|(_, shift)| bytes >> shift != 0) else {
        line.push_u64(bytes).push_str(" B");
        return;
    };
    let tenths = (bytes >> shift.saturating_sub(10)).wrapping_mul(10) >> 10;
    line.push_u64(tenths / 10).push_str(".").push_u64(tenths % 10).push_str(" ").push_str(name);
}
