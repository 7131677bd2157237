//! The limits that this process brings into the container, and what the container makes of them.
//!
//! `gpuquota_region::limits` has the rule by which the limits of all processes become the limit in force.

use crate::container::{Container, DeviceRef};
use crate::uuid::Uuid;
use core::sync::atomic::Ordering::Relaxed;
use gpuquota_quota::limits::{CorePolicy, Entry, Limits, Source};
use gpuquota_quota::text::Line;
use gpuquota_region::Region;
use gpuquota_region::layout::{
    EVENT_LIMIT_DIFFERS, LIMIT_KIND_CORES, LIMIT_KIND_MEMORY, LIMIT_KIND_PHYSICAL, LIMIT_KIND_POLICY,
    LIMIT_KIND_REQUEST, OPERATOR_ROW, POLICY_BURST, POLICY_IDLE_ONLY, SLOTS,
};
use gpuquota_region::limits::{Asked, AskedLimits, InForce};
use gpuquota_region::sys;

/// The limits that this process brings for a device.
fn asked(limits: &Limits, index: u32, uuid: &Uuid) -> AskedLimits {
    fn of<T: Copy + Into<u64>>(entry: Option<&Entry<T>>) -> Option<Asked> {
        entry.map(|entry| Asked { value: entry.value.into(), from_file: entry.source == Source::File })
    }
    let binds = limits.policy != CorePolicy::BestEffort;
    let cores = of(limits.cores.lookup(index, uuid.text()));
    let request = of(limits.requests.lookup(index, uuid.text())).map(|request| {
        let most = limits.cores_for(index, uuid.text()).map_or(100, u64::from);
        Asked { value: request.value.min(most), ..request }
    });
    // A share in the limits file is a ceiling. A container with a request and a share may borrow up to the share.
    let lends = request.is_none() && cores.is_none_or(|share| !share.from_file);
    let policy = match limits.policy {
        CorePolicy::BurstShare if lends => POLICY_BURST,
        CorePolicy::BurstShare | CorePolicy::FixedShare => 0,
        CorePolicy::BestEffort => POLICY_IDLE_ONLY,
    };
    AskedLimits {
        memory: of(limits.memory.lookup(index, uuid.text())),
        physical: of(limits.physical.lookup(index, uuid.text())),
        cores: cores.filter(|_| binds),
        request: request.filter(|_| binds),
        policy,
    }
}

/// Brings this process's limits for a device into the container. They count as long as the process lives, so it claims a
/// slot. Where another limit holds, writes an event. Answers the limits, if there are any.
#[cold]
pub fn bring(container: &Container, position: u8, index: u32, uuid: &Uuid) -> Option<AskedLimits> {
    let limits = asked(container.limits(), index, uuid);
    if !limits.any() && limits.policy == POLICY_BURST {
        return None;
    }
    let _errno = sys::KeepErrno::new();
    let Some(slot) = container.slot_index() else {
        container.count_fallback();
        return None;
    };
    let (region, device) = (container.region(), usize::from(position));
    // CUDA and NVML each meet the device.
    if region.asked_limits(slot, device) == Some(limits) {
        return Some(limits);
    }
    let in_force = region.change_limits(slot, device, Some(limits));
    for Difference { kind, asked, in_force } in differences(&limits, &in_force) {
        region.event(EVENT_LIMIT_DIFFERS, position.into(), asked, kind, in_force);
        if let Some(device) = container.device(position) {
            device.record.limit_conflicts.fetch_add(1, Relaxed);
        }
    }
    Some(limits)
}

/// A limit that this process asked for and does not get.
struct Difference {
    kind: u64,
    asked: u64,
    /// 0: no limit holds.
    in_force: u64,
}

fn differences(limits: &AskedLimits, in_force: &InForce) -> impl Iterator<Item = Difference> + use<> {
    // Without a share or a request the process has not asked for a policy.
    let policy = limits.cores.or(limits.request).map(|_| u64::from(limits.policy));
    let limits = [limits.memory, limits.physical, limits.cores, limits.request];
    let asked = limits.into_iter().map(|limit| limit.map(|limit| limit.value)).chain([policy]);
    asked.zip(in_force.kinds()).filter_map(|(asked, (kind, in_force))| {
        let asked = asked?;
        let in_force = in_force.unwrap_or(0);
        (asked != in_force).then_some(Difference { kind, asked, in_force })
    })
}

/// Writes the first limit on a device that this process asked for and does not get, and by whom another one holds. False
/// where it gets what it asked for.
pub fn write_difference(container: &Container, device: DeviceRef, line: &mut Line<900>) -> bool {
    let (region, at) = (container.region(), usize::from(device.index));
    let slot = container.slot_index();
    let Some(limits) = slot.and_then(|slot| region.asked_limits(slot, at)) else { return false };
    let Some(first) = differences(&limits, &region.in_force(at)).next() else { return false };
    line.push_str("gpuquota: device ").push_u64(device.index.into()).push_str(": this process asks for ");
    push_limit(line, first.kind, first.asked);
    line.push_str(", and ");
    push_limit(line, first.kind, first.in_force);
    line.push_str(" holds: ");
    match origin(&region, at, &first) {
        Some(OPERATOR_ROW) => line.push_str("the operator set it (gpuquota limit --reset takes it back)"),
        Some(slot) => {
            let pid = region.ours().slots.get(slot).map_or(0, |slot| slot.pid.load(Relaxed));
            line.push_str("process ").push_u64(pid.into()).push_str(" of the container brought it, and the ");
            line.push_str("stricter limit counts as long as both live (gpuquota inspect, gpuquota limit)")
        }
        None => line.push_str("another process changed it"),
    };
    true
}

/// The row from which a limit in force comes.
fn origin(region: &Region, device: usize, of: &Difference) -> Option<usize> {
    let value = |limits: AskedLimits| {
        let limit = match of.kind {
            LIMIT_KIND_MEMORY => limits.memory,
            LIMIT_KIND_PHYSICAL => limits.physical,
            LIMIT_KIND_CORES => limits.cores,
            LIMIT_KIND_REQUEST => limits.request,
            _ => return Some(limits.policy.into()),
        };
        limit.map(|limit| limit.value)
    };
    let has = |row: &usize| region.asked_limits(*row, device).and_then(value) == Some(of.in_force);
    core::iter::once(OPERATOR_ROW).chain(0..SLOTS).find(has)
}

fn push_limit(line: &mut Line<900>, kind: u64, value: u64) {
    let policy = match value as u32 {
        POLICY_IDLE_ONLY.. => "best-effort",
        POLICY_BURST => "burst-share",
        _ => "fixed-share",
    };
    let (what, unit) = match kind {
        LIMIT_KIND_POLICY => {
            line.push_str("the policy ").push_str(policy);
            return;
        }
        LIMIT_KIND_MEMORY => ("a memory limit of ", None),
        LIMIT_KIND_PHYSICAL => ("a limit on the device of ", None),
        LIMIT_KIND_CORES => ("a share of ", Some("%")),
        _ => ("a guaranteed share of ", Some("%")),
    };
    line.push_str(what);
    match unit {
        Some(unit) => line.push_u64(value).push_str(unit),
        None => line.push_size(value),
    };
}
