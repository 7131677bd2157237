//! Regions as Prometheus metrics: base units, ratios from 0 to 1, counters that end in `_total`.

use crate::regions::{Device, Found, Mishap};
use crate::words::seconds;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Duration;

/// Upper bounds of the buckets of a search's duration, in seconds.
const BUCKETS: [f64; 6] = [0.001, 0.01, 0.1, 0.5, 1.0, 5.0];

/// What the agent counts itself, from its start on.
#[derive(Default)]
pub struct Metrics {
    errors: BTreeMap<&'static str, u64>,
    within: [u64; BUCKETS.len()],
    searches: u64,
    searching: Duration,
}

/// A family with a value per container and device.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Device) -> Option<f64>,
}

const fn family(
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Device) -> Option<f64>,
) -> Family {
    Family { name, kind, help, value }
}

#[rustfmt::skip]
const FAMILIES: [Family; 19] = [
    family("memory_limit_bytes", "gauge", "Device memory that the container may hold.",
        |device| device.memory_limit.map(|bytes| bytes as f64)),
    family("limit_conflicts_total", "counter", "How often a process was held to another limit than it asked for.",
        |device| Some(device.limit_conflicts as f64)),
    family("context_bytes", "gauge", "What a context takes on the device, as far as is known.",
        |device| Some(device.context_bytes as f64).filter(|bytes| *bytes != 0.0)),
    family("estimated_contexts_total", "counter", "Contexts that were charged by an estimate, because the driver gave no figure.",
        |device| Some(device.estimated_contexts as f64)),
    family("memory_used_bytes", "gauge", "Device memory that the container holds.", |device| Some(device.used as f64)),
    family("memory_peak_bytes", "gauge", "Highest device memory that the container held.", |device| Some(device.peak as f64)),
    family("memory_denied_total", "counter", "Requests for memory that were refused.", |device| Some(device.denied as f64)),
    family("memory_would_deny_total", "counter", "Requests for memory that would have been refused (observe mode).",
        |device| Some(device.would_deny as f64)),
    family("memory_oversubscribed_bytes", "gauge", "Of the memory that the container holds, what lies on the host.",
        |device| Some(device.spilled as f64)),
    family("memory_oversubscribed_total", "counter", "Allocations that were sent to the host.", |device| Some(device.spills as f64)),
    family("core_limit_ratio", "gauge", "Share of GPU time that the container may use.",
        |device| device.core_limit.map(|percent| f64::from(percent) / 100.0)),
    family("gpu_time_seconds_total", "counter", "GPU time that the container used.", |device| device.gpu_time_ns.map(seconds)),
    family("throttled_seconds_total", "counter", "Time that launches waited for the share or a higher priority.", |device| Some(seconds(device.waited_ns))),
    family("core_request_ratio", "gauge", "Share of GPU time that is guaranteed beside other containers.",
        |device| device.lease.request_percent.or(device.core_limit).map(|percent| f64::from(percent) / 100.0)),
    family("turn_wait_seconds_total", "counter", "Time that launches waited for other containers.", |device| Some(seconds(device.lease.waited_ns))),
    family("held_while_wanted_seconds_total", "counter", "Time for which the container had the device while others waited for it.",
        |device| Some(seconds(device.lease.held_ns))),
    family("launches_total", "counter", "Launches admitted under a share.", |device| Some(device.launches as f64)),
    family("throttled_launches_total", "counter", "Launches that waited.", |device| Some(device.waits as f64)),
    family("would_throttle_total", "counter", "Launches that would have waited (observe mode).", |device| Some(device.would_wait as f64)),
];

/// How long launches waited, by container and device.
fn waits(text: &mut Text, found: &[Found]) {
    let name = "container_launch_wait_seconds";
    text.head(name, "histogram", "How long launches waited that waited, for whatever.");
    for (found, device) in devices(found) {
        let mut within = 0;
        for (power, count) in (-4..).zip(device.wait_times) {
            within = u64::saturating_add(within, count);
            let last = power == device.wait_times.len() as i32 - 5;
            let bound = if last { "+Inf".to_owned() } else { 10f64.powi(power).to_string() };
            text.of_device(&format!("{name}_bucket"), found, device, Some(("le", bound.as_str())), within);
        }
        let waited = [device.waited_ns, device.waited_in_flight_ns, device.lease.waited_ns];
        let waited = seconds(waited.into_iter().fold(0, u64::saturating_add));
        text.of_device(&format!("{name}_sum"), found, device, None, waited);
        text.of_device(&format!("{name}_count"), found, device, None, within);
    }
}

fn kinds(text: &mut Text, found: &[Found]) {
    let name = "container_memory_held_bytes";
    text.head(name, "gauge", "Device memory that the container holds, by what it is.");
    for (found, device) in devices(found) {
        for (kind, bytes) in found.region.kinds(device.index).named() {
            text.of_device(name, found, device, Some(("kind", kind)), bytes);
        }
    }
}

impl Metrics {
    /// Counts one search of the node.
    pub fn count(&mut self, mishaps: &[Mishap], took: Duration) {
        for mishap in mishaps {
            *self.errors.entry(mishap.word).or_default() += 1;
        }
        self.searches += 1;
        self.searching += took;
        for (within, bound) in self.within.iter_mut().zip(BUCKETS) {
            *within += u64::from(took.as_secs_f64() <= bound);
        }
    }

    /// Everything in Prometheus's text format.
    pub fn text(&self, found: &[Found]) -> String {
        let mut text = Text::default();
        text.head("build_info", "gauge", "The agent's version.");
        text.line("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        for family in &FAMILIES {
            let name = format!("container_{}", family.name);
            text.head(&name, family.kind, family.help);
            for (found, device) in devices(found) {
                if let Some(value) = (family.value)(device) {
                    text.of_device(&name, found, device, None, value);
                }
            }
        }
        kinds(&mut text, found);
        waits(&mut text, found);
        text.head("container_processes", "gauge", "Living processes that use a GPU.");
        for found in found {
            let alive = found.region.alive().count();
            text.line("container_processes", &[("container", &found.container)], alive);
        }
        text.head("container_fallbacks_total", "counter", "Calls that fell back to the driver's own answer.");
        for found in found {
            text.line(
                "container_fallbacks_total",
                &[("container", &found.container)],
                found.region.fallbacks,
            );
        }
        self.own(&mut text);
        text.0
    }

    fn own(&self, text: &mut Text) {
        text.head("region_parse_errors_total", "counter", "Files that should be regions and were not taken.");
        for (reason, count) in &self.errors {
            text.line("region_parse_errors_total", &[("reason", reason)], count);
        }
        let name = "agent_scan_duration_seconds";
        text.head(name, "histogram", "Time to search the node for regions and read them.");
        for (within, bound) in self.within.iter().zip(BUCKETS) {
            text.line(&format!("{name}_bucket"), &[("le", &bound.to_string())], within);
        }
        text.line(&format!("{name}_bucket"), &[("le", "+Inf")], self.searches);
        text.line(&format!("{name}_sum"), &[], self.searching.as_secs_f64());
        text.line(&format!("{name}_count"), &[], self.searches);
    }
}

fn devices(found: &[Found]) -> impl Iterator<Item = (&Found, &Device)> {
    found.iter().flat_map(|found| found.region.devices.iter().map(move |device| (found, device)))
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = write!(self.0, "# HELP gpuquota_{name} {help}\n# TYPE gpuquota_{name} {kind}\n");
    }

    fn of_device(
        &mut self,
        name: &str,
        found: &Found,
        device: &Device,
        further: Option<(&str, &str)>,
        value: impl Display,
    ) {
        let index = device.index.to_string();
        let labels = [
            ("container", found.container.as_str()),
            ("device_uuid", device.uuid.as_str()),
            ("device_index", index.as_str()),
        ];
        self.line(name, &labels.into_iter().chain(further).collect::<Vec<_>>(), value);
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _infallible = write!(self.0, "gpuquota_{name}");
        for (index, (label, value)) in labels.iter().enumerate() {
            let mark = if index == 0 { '{' } else { ',' };
            let _infallible = write!(self.0, "{mark}{label}=\"{}\"", escaped(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _infallible = writeln!(self.0, "{close} {value}");
    }
}

/// A label's value: the format's own escapes, and no other control characters.
fn escaped(value: &str) -> String {
    let plain = |character: char| if character.is_control() { '\u{fffd}' } else { character };
    value.chars().map(plain).collect::<String>().replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regions::{LeaseReport, Process, ProcessDevice, Region};

    fn container(name: &str, uuid: &str) -> Found {
        let device = Device {
            index: 0,
            offset: 0,
            uuid: uuid.to_owned(),
            memory_limit: Some(2 << 30),
            memory_total: 0,
            used: 1 << 30,
            peak: 1 << 30,
            denied: 3,
            would_deny: 0,
            spilled: 0,
            spills: 0,
            physical_limit: None,
            core_limit: Some(30),
            gpu_time_ns: Some(1_500_000_000),
            waited_ns: 250_000_000,
            waited_in_flight_ns: 50_000_000,
            launches: 7,
            waits: 3,
            wait_times: [0, 1, 0, 0, 1, 0, 0, 1],
            would_wait: 4,
            clamped: 0,
            limit_conflicts: 2,
            context_bytes: 0,
            estimated_contexts: 0,
            asked: vec![],
            lease: LeaseReport { waited_ns: 100_000_000, held_ns: 2_000_000_000, ..LeaseReport::default() },
        };
        let process = |slot: usize, kinds: [u64; 5]| Process {
            slot,
            pid: 7,
            host_pid: None,
            priority: 0,
            alive: true,
            devices: vec![ProcessDevice {
                device: 0,
                bytes: kinds.iter().sum(),
                kinds: kinds.into(),
                pending_ns: 0,
            }],
        };
        let processes =
            vec![process(0, [1 << 20, 2 << 20, 0, 3 << 20, 0]), process(1, [1 << 20, 0, 0, 0, 5])];
        let region = Region {
            abi: [1, 2],
            generation: 1,
            time_namespace: 0,
            fallbacks: 0,
            devices: vec![device],
            processes,
            events: vec![],
        };
        Found { container: name.to_owned(), path: "/x".into(), region }
    }

    #[test]
    fn a_container_is_told_in_base_units() {
        let text = Metrics::default().text(&[container("pod_main", "GPU-1")]);
        let labels = "{container=\"pod_main\",device_uuid=\"GPU-1\",device_index=\"0\"}";
        let of_kind = |kind: &str| labels.replace('}', &format!(",kind=\"{kind}\"}}"));
        for line in [
            format!("gpuquota_container_memory_held_bytes{} 2097152", of_kind("allocations")),
            format!("gpuquota_container_memory_held_bytes{} 2097152", of_kind("contexts")),
            format!("gpuquota_container_memory_held_bytes{} 0", of_kind("code")),
            format!("gpuquota_container_memory_held_bytes{} 3145728", of_kind("pools")),
            format!("gpuquota_container_memory_held_bytes{} 5", of_kind("graphs")),
            format!("gpuquota_container_memory_limit_bytes{labels} 2147483648"),
            format!("gpuquota_container_memory_denied_total{labels} 3"),
            format!("gpuquota_container_core_limit_ratio{labels} 0.3"),
            format!("gpuquota_container_gpu_time_seconds_total{labels} 1.5"),
            format!("gpuquota_container_throttled_seconds_total{labels} 0.25"),
            format!("gpuquota_container_would_throttle_total{labels} 4"),
            format!("gpuquota_container_core_request_ratio{labels} 0.3"),
            format!("gpuquota_container_turn_wait_seconds_total{labels} 0.1"),
            format!("gpuquota_container_held_while_wanted_seconds_total{labels} 2"),
            format!("gpuquota_container_launch_wait_seconds_sum{labels} 0.4"),
            format!("gpuquota_container_launch_wait_seconds_count{labels} 3"),
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }

    #[test]
    fn waits_are_a_histogram_of_tenfold_steps() {
        let text = Metrics::default().text(&[container("a", "G")]);
        let bucket = |line: &str| {
            let (_, bound) =
                line.strip_prefix("gpuquota_container_launch_wait_seconds_bucket{")?.split_once("le=\"")?;
            bound.split_once("\"} ").map(|(bound, count)| format!("{bound}:{count}"))
        };
        let buckets: Vec<_> = text.lines().filter_map(bucket).collect();
        assert_eq!(buckets, ["0.0001:0", "0.001:1", "0.01:1", "0.1:1", "1:2", "10:2", "100:2", "+Inf:3"]);
    }

    #[test]
    fn no_limit_has_no_series() {
        let mut unlimited = container("a", "GPU-1");
        unlimited.region.devices[0].memory_limit = None;
        let text = Metrics::default().text(&[unlimited]);
        assert!(!text.lines().any(|line| line.starts_with("gpuquota_container_memory_limit_bytes{")));
    }

    #[test]
    fn a_tenants_name_cannot_write_a_series() {
        let text = Metrics::default().text(&[container("a\"} 1\nevil 2\\", "GPU-\\x00")]);
        assert!(text.lines().all(|line| line.starts_with('#') || line.starts_with("gpuquota_")));
        assert!(text.contains("container=\"a\\\"} 1\u{fffd}evil 2\\\\\""));
    }

    #[test]
    fn searches_and_mishaps_are_counted_from_the_start_on() {
        let mut metrics = Metrics::default();
        for took in [Duration::from_micros(10), Duration::from_millis(50)] {
            metrics.count(&[Mishap { path: "/x".into(), word: "too_short" }], took);
        }
        let text = metrics.text(&[]);
        assert!(text.contains("gpuquota_region_parse_errors_total{reason=\"too_short\"} 2\n"));
        assert!(text.contains("gpuquota_agent_scan_duration_seconds_bucket{le=\"0.01\"} 1\n"));
        assert!(text.contains("gpuquota_agent_scan_duration_seconds_count 2\n"));
    }
}
