//! The agent's own families.

use super::family::{Family, Histogram, Label, Labelled, Of, Value, counter, gauge};
use crate::agent::identity::Health;
use crate::agent::nri;
use crate::agent::snapshot::{Card, Container, LOOK_BUCKETS, Snapshot, printable};
use crate::regions::Device;
use crate::words::seconds;
use gpuquota_region::layout::{ABI_MAJOR, ABI_MINOR};
use prometheus_client::metrics::MetricType;
use std::collections::{BTreeMap, BTreeSet};

const fn absent(when: &'static str, family: Family) -> Family {
    Family { absent: when, ..family }
}

/// When a card's figure is not there.
const CARD: &str = "the card does not tell";

/// A figure of a card.
const fn of_card(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    value: fn(&Card) -> Option<Value>,
) -> Family {
    absent(CARD, gauge(name, unit, help, Of::CardFigure(value)))
}

/// A series for each value of a label.
fn each<K: ToString, V>(label: &'static str, of: &BTreeMap<K, V>, value: fn(&V) -> u64) -> Vec<Labelled> {
    of.iter().map(|(is, of)| (vec![(label, is.to_string())], value(of).into())).collect()
}

/// A percentage from 1 to 100, as a ratio; whatever else a tenant may have written is none.
fn ratio(percent: Option<u32>) -> Option<Value> {
    percent.filter(|percent| (1..=100).contains(percent)).map(|percent| (f64::from(percent) / 100.0).into())
}

/// The limits whose origin is told: as the region calls them, and what holds.
fn limits(device: &Device) -> [(&'static str, Option<u64>); 4] {
    [
        ("memory_limit", device.memory_limit),
        ("physical_limit", device.physical_limit),
        ("core_limit", device.core_limit.map(u64::from)),
        ("request_percent", device.lease.request_percent.map(u64::from)),
    ]
}

fn origins(device: &Device) -> Vec<Vec<Label>> {
    let in_force = limits(device).into_iter().filter_map(|(name, value)| Some((name, value?)));
    in_force
        .map(|(name, value)| {
            let by = device.asked.iter().find(|asked| asked.value(name) == Some(value));
            let origin = match by {
                None => "unknown",
                Some(asked) if asked.by == "operator" => "operator",
                Some(asked) if asked.from_file.contains(&name) => "limits_file",
                Some(_) => "environment",
            };
            vec![("limit", name.to_owned()), ("origin", origin.to_owned())]
        })
        .collect()
}

/// Refusals by reason. What a library counted that knew no reasons is told as a whole.
fn denied(container: &Container, device: &Device) -> Vec<(&'static str, Value)> {
    let by = device.denied_by.named().map(|(reason, count)| (reason, count.into()));
    let is_known = container.region.abi[1] >= MINOR_WITH_REASONS;
    let unknown = (!is_known).then(|| ("unknown", device.denied.into()));
    by.chain(unknown).collect()
}

/// The first minor version of regions in which refusals have reasons.
const MINOR_WITH_REASONS: u32 = 4;

fn waits(device: &Device) -> Histogram {
    let last = device.wait_times.len() - 1;
    let bound = |step: usize| if step == last { f64::INFINITY } else { WAIT_BOUNDS[step] };
    let buckets = device.wait_times.iter().enumerate().map(|(step, count)| (bound(step), *count)).collect();
    let waited = [device.waited_ns, device.waited_in_flight_ns, device.lease.waited_ns];
    Histogram { buckets, sum: seconds(waited.into_iter().fold(0, u64::saturating_add)) }
}

/// Upper bounds of the wait times, in seconds.
const WAIT_BOUNDS: [f64; gpuquota_region::layout::WAIT_TIMES - 1] =
    [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0];

#[rustfmt::skip]
pub const FAMILIES: [Family; 55] = [
    Family {
        kind: MetricType::Info,
        ..gauge("gpuquota_build", "", "The agent's version, and the version of the regions that it makes.",
            Of::Agent(&["version", "abi"], |_| {
                let version = ("version", env!("CARGO_PKG_VERSION").to_owned());
                vec![(vec![version, ("abi", format!("{ABI_MAJOR}.{ABI_MINOR}"))], 1.into())]
            }))
    },
    absent("no limit holds", gauge("gpuquota_container_memory_limit", "bytes", "Device memory that the container may hold.",
        Of::Device(|_, device| device.memory_limit.map(Value::from)))),
    absent("no such limit holds", gauge("gpuquota_container_memory_physical_limit", "bytes", "Device memory that the container may hold on the device itself.",
        Of::Device(|_, device| device.physical_limit.map(Value::from)))),
    absent("no limit holds", Family {
        kind: MetricType::Info,
        ..gauge("gpuquota_container_limit", "", "Where each limit in force comes from: operator, limits_file, environment or unknown.",
            Of::DeviceInfo(&["limit", "origin"], origins))
    }),
    counter("gpuquota_container_limit_conflicts", "", "How often a process was held to another limit than it asked for.",
        Of::Device(|_, device| Some(device.limit_conflicts.into()))),
    absent("it is not known", gauge("gpuquota_container_context", "bytes", "What a context takes on the device, as far as is known.",
        Of::Device(|_, device| Some(device.context_bytes).filter(|bytes| *bytes != 0).map(Value::from)))),
    counter("gpuquota_container_estimated_contexts", "", "Contexts that were charged by an estimate, because the driver gave no figure.",
        Of::Device(|_, device| Some(device.estimated_contexts.into()))),
    gauge("gpuquota_container_memory_used", "bytes", "Device memory that the container holds.",
        Of::Device(|_, device| Some(device.used.into()))),
    gauge("gpuquota_container_memory_held", "bytes", "Device memory that the container's living processes hold, by what it is.",
        Of::DeviceBy("kind", |container, device| {
            container.region.kinds(device.index).named().map(|(kind, bytes)| (kind, bytes.into())).collect()
        })),
    gauge("gpuquota_container_memory_peak", "bytes", "Highest device memory that the container held.",
        Of::Device(|_, device| Some(device.peak.into()))),
    counter("gpuquota_container_memory_denied", "", "Requests for memory that were refused, by reason: memory_limit, physical_limit, context or code (that did not fit), uncounted (no slot for the process), driver (the limits allowed it), unknown (of a library before 1.4 of the region).",
        Of::DeviceBy("reason", denied)),
    counter("gpuquota_container_memory_would_deny", "", "Requests for memory that would have been refused (observe mode).",
        Of::Device(|_, device| Some(device.would_deny.into()))),
    gauge("gpuquota_container_memory_oversubscribed", "bytes", "Of the memory that the container holds, what lies on the host.",
        Of::Device(|_, device| Some(device.spilled.into()))),
    counter("gpuquota_container_memory_oversubscribed", "", "Allocations that were sent to the host.",
        Of::Device(|_, device| Some(device.spills.into()))),
    absent("no share holds", gauge("gpuquota_container_core_limit", "ratio", "Share of GPU time that the container may use.",
        Of::Device(|_, device| ratio(device.core_limit)))),
    absent("nothing is guaranteed", gauge("gpuquota_container_core_request", "ratio", "Share of GPU time that is guaranteed beside other containers.",
        Of::Device(|_, device| ratio(device.lease.request_percent.or(device.core_limit))))),
    absent("nothing measures it", gauge("gpuquota_container_gpu_utilization", "ratio", "Part of the time since the look before in which the container used the device.",
        Of::Device(|container, device| container.utilization.get(&device.index).copied().map(Value::from)))),
    absent("nothing measures it", counter("gpuquota_container_gpu_time", "seconds", "GPU time that the container used.",
        Of::Device(|_, device| device.gpu_time_ns.map(seconds).map(Value::from)))),
    counter("gpuquota_container_throttled", "seconds", "Time that launches waited for the share or a higher priority.",
        Of::Device(|_, device| Some(seconds(device.waited_ns).into()))),
    counter("gpuquota_container_turn_wait", "seconds", "Time that launches waited for other containers.",
        Of::Device(|_, device| Some(seconds(device.lease.waited_ns).into()))),
    counter("gpuquota_container_held_while_wanted", "seconds", "Time for which the container had the device while others waited for it.",
        Of::Device(|_, device| Some(seconds(device.lease.held_ns).into()))),
    counter("gpuquota_container_launches", "", "Launches admitted under a share.", Of::Device(|_, device| Some(device.launches.into()))),
    counter("gpuquota_container_throttled_launches", "", "Launches that waited.", Of::Device(|_, device| Some(device.waits.into()))),
    counter("gpuquota_container_would_throttle", "", "Launches that would have waited (observe mode).",
        Of::Device(|_, device| Some(device.would_wait.into()))),
    Family {
        kind: MetricType::Histogram,
        ..gauge("gpuquota_container_launch_wait", "seconds", "How long launches waited that waited, for whatever.", Of::DeviceHistogram(waits))
    },
    gauge("gpuquota_container_processes", "", "Living processes that use a GPU.",
        Of::Container(|container| Some((container.region.alive().count() as u64).into()))),
    counter("gpuquota_container_fallbacks", "", "Calls that fell back to the driver's own answer.",
        Of::Container(|container| Some(container.region.fallbacks.into()))),
    Family {
        kind: MetricType::Info,
        ..gauge("gpuquota_container", "", "Whose a region is, who made it, and where it is.",
            Of::ContainerInfo(&["engine", "region"], |container| {
                vec![("engine", container.engine.to_owned()), ("region", container.path.clone())]
            }))
    },
    absent("nobody has looked at the card's processes", gauge("gpuquota_container_unprotected_processes", "",
        "Processes of the container that use the device and are held to no limit.",
        Of::ByCard(|container| {
            let of = container.unprotected.iter().flatten();
            of.map(|(uuid, count)| (uuid.as_str(), (*count).into())).collect()
        }))),
    absent(CARD, gauge("gpuquota_container_card_memory", "bytes", "Memory of the container's processes, by the card's own figures.",
        Of::ByCard(|container| container.card_bytes.iter().map(|(uuid, bytes)| (uuid.as_str(), (*bytes).into())).collect()))),
    absent(CARD, gauge("gpuquota_container_memory_difference", "bytes", "By how much memory by the card is more than memory by the container's region.",
        Of::ByCard(|container| {
            let booked = |uuid: &str| container.region.devices.iter().find(|device| device.uuid == uuid);
            let apart = |uuid: &str, bytes: u64| {
                let device = booked(uuid)?;
                Some(bytes as f64 - device.used.saturating_sub(device.spilled) as f64)
            };
            let of = container.card_bytes.iter();
            of.filter_map(|(uuid, bytes)| Some((uuid.as_str(), apart(uuid, *bytes)?.into()))).collect()
        }))),
    absent(CARD, Family {
        kind: MetricType::Info,
        ..gauge("gpuquota_device", "", "A device of the node, and its driver.",
            Of::Card(&["driver"], |card| vec![(vec![("driver", card.driver.clone().unwrap_or_default())], 1.into())]))
    }),
    of_card("gpuquota_device_lost", "", "Whether the device has stopped answering.", |card| card.lost.map(|lost| u64::from(lost).into())),
    of_card("gpuquota_device_memory_total", "bytes", "Memory of the device.", |card| card.memory_total_bytes.map(Value::from)),
    of_card("gpuquota_device_memory_used", "bytes", "Memory of the device that is in use, by whomever.",
        |card| card.memory_used_bytes.map(Value::from)),
    of_card("gpuquota_device_utilization", "ratio", "Part of the time in which the device was used, by whomever.",
        |card| card.utilization_ratio.map(Value::from)),
    of_card("gpuquota_device_memory_utilization", "ratio", "Part of the time in which memory of the device was read or written.",
        |card| card.memory_utilization_ratio.map(Value::from)),
    of_card("gpuquota_device_power", "watts", "Power that the device draws.", |card| card.power_watts.map(Value::from)),
    of_card("gpuquota_device_power_limit", "watts", "Power that the device may draw.", |card| card.power_limit_watts.map(Value::from)),
    of_card("gpuquota_device_temperature", "celsius", "Temperature of the device.", |card| card.temperature_celsius.map(Value::from)),
    absent(CARD, counter("gpuquota_device_ecc_errors", "", "Errors of the device's memory since its driver was loaded.",
        Of::Card(&["kind"], |card| each("kind", &card.ecc_errors, |count| *count)))),
    absent(CARD, gauge("gpuquota_device_throttled", "", "Whether the device holds its clocks back, by reason.",
        Of::Card(&["reason"], |card| each("reason", &card.throttled, |is| u64::from(*is))))),
    absent("the device has told none", counter("gpuquota_device_xid_errors", "", "Errors that the device has told, by NVIDIA's number (Xid).",
        Of::Card(&["xid"], |card| each("xid", &card.xids, |count| *count)))),
    absent(CARD, gauge("gpuquota_device_processes", "", "Processes at the device, by how they stand to the regions.",
        Of::Card(&["standing"], |card| each("standing", &card.processes, |count| *count)))),
    of_card("gpuquota_device_context", "bytes", "What a context takes on the device, as learned from the card.",
        |card| card.context_bytes.map(Value::from)),
    gauge("gpuquota_device_containers", "", "Containers that use the device.", Of::Node(|device| Some(device.containers.into()))),
    absent("no file was refused for such a reason", counter("gpuquota_region_parse_errors", "", "Files that should be regions and were not taken.",
        Of::Agent(&["reason"], |snapshot| counts(snapshot.own.errors.iter())))),
    counter("gpuquota_metrics_left_out", "", "Devices of containers that were left out of a look's series: beyond the bound (--max-devices), or under names that others have.",
        Of::Agent(&["reason"], |snapshot| counts(snapshot.own.left_out.iter()))),
    absent("the agent runs without --nri", gauge("gpuquota_nri_connected", "", "Whether a container runtime has taken the agent in, by NRI.",
        Of::Agent(&[], |snapshot| of_nri(snapshot, |nri| vec![(vec![], u64::from(nri.connected).into())])))),
    absent("the agent runs without --nri", counter("gpuquota_nri_disconnects", "", "How often a connection to the container runtime has ended.",
        Of::Agent(&[], |snapshot| of_nri(snapshot, |nri| vec![(vec![], nri.disconnects.into())])))),
    absent("the agent runs without --nri", counter("gpuquota_nri_containers", "", "Containers that were made, by what became of them: given (a quota), refused (so not made) or unasked.",
        Of::Agent(&["result"], |snapshot| of_nri(snapshot, |nri| {
            let results = [("given", nri.given), ("refused", nri.refused), ("unasked", nri.unasked)];
            results.map(|(result, count)| (vec![("result", result.to_owned())], count.into())).into()
        })))),
    absent("there is none", gauge("gpuquota_nri_without_quota", "", "Containers that ask for a quota and were started without it.",
        Of::Agent(&["namespace", "pod", "container"], |snapshot| of_nri(snapshot, |nri| {
            let of = nri.without_quota.values();
            let names = of.map(|of| (of.namespace.as_str(), of.pod.as_str(), of.container.as_str()));
            let names: BTreeSet<_> = names.collect();
            let labels = |names: [(&'static str, &str); 3]| names.map(|(name, is)| (name, printable(is))).to_vec();
            let told = names.into_iter();
            told.map(|(namespace, pod, container)| {
                (labels([("namespace", namespace), ("pod", pod), ("container", container)]), 1.into())
            }).collect()
        })))),
    absent("no source is asked", gauge("gpuquota_agent_name_source_up", "", "Whether a source of containers' names answered the last time.",
        Of::Agent(&["source"], |snapshot| of_sources(snapshot, |source| u64::from(source.error.is_none()))))),
    absent("no source is asked", counter("gpuquota_agent_name_source_errors", "", "How often a source of containers' names did not answer.",
        Of::Agent(&["source"], |snapshot| of_sources(snapshot, |source| source.errors)))),
    Family {
        kind: MetricType::Histogram,
        ..gauge("gpuquota_agent_scan_duration", "seconds", "Time to search the node for regions and read them.",
            Of::AgentHistogram(|snapshot| {
                let bounds = LOOK_BUCKETS.into_iter().chain([f64::INFINITY]);
                Histogram { buckets: bounds.zip(snapshot.own.look_times).collect(), sum: snapshot.own.looking_seconds }
            }))
    },
];

fn of_nri(snapshot: &Snapshot, of: fn(&nri::Figures) -> Vec<Labelled>) -> Vec<Labelled> {
    snapshot.own.nri.as_ref().map(of).unwrap_or_default()
}

fn of_sources(snapshot: &Snapshot, value: fn(&Health) -> u64) -> Vec<Labelled> {
    snapshot.own.sources.iter().map(|of| (vec![("source", of.source.to_owned())], value(of).into())).collect()
}

fn counts<'s>(by_reason: impl Iterator<Item = (&'s &'static str, &'s u64)>) -> Vec<Labelled> {
    by_reason.map(|(reason, count)| (vec![("reason", (*reason).to_owned())], (*count).into())).collect()
}
