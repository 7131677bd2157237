//! What is served, read by a strict reader of the format, by `promtool` and by the queries of dashboards.

use super::exposition::{self, Family as Read, parse};
use super::family::Family;
use super::page::{MOST_SERIES, labels};
use super::{Choice, Format, dcgm, encode, hami, native};
use crate::agent::identity::{Health, Identity};
use crate::agent::looker::tests::{device, found, looker, snapshot};
use crate::agent::nri;
use crate::agent::snapshot::{Card, Snapshot};
use crate::regions::Refusals;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn all() -> Choice {
    Choice { hami: true, dcgm: true, node: "node-1".to_owned() }
}

fn text(snapshot: Snapshot, choice: &Choice) -> String {
    encode(&Arc::new(snapshot), choice, Format::Text).expect("it can be written")
}

/// A card of which everything is known.
fn card(uuid: &str) -> Card {
    Card {
        uuid: uuid.to_owned(),
        index: 1,
        model: Some("H200".to_owned()),
        memory_total_bytes: Some(141 << 30),
        memory_used_bytes: Some(40 << 30),
        utilization_ratio: Some(0.5),
        memory_utilization_ratio: Some(0.25),
        power_watts: Some(350.5),
        temperature_celsius: Some(61.0),
        memory_temperature_celsius: Some(70.0),
        fan_ratio: Some(0.3),
        last_xid: Some(0),
        driver: Some("580.159.04".to_owned()),
        lost: Some(false),
        power_limit_watts: Some(700.0),
        ecc_errors: BTreeMap::from([("corrected", 1)]),
        throttled: BTreeMap::from([("power", true)]),
        xids: BTreeMap::from([(31, 2)]),
        processes: BTreeMap::from([("counted", 3)]),
        context_bytes: Some(1 << 29),
    }
}

/// A node of which everything is known.
fn full() -> Snapshot {
    let mut snapshot = snapshot(vec![found("pod_main", "GPU-1"), found("side", "GPU-1")]);
    snapshot.cards = vec![card("GPU-1")];
    let container = &mut snapshot.containers[0];
    container.names.namespace = "prod".to_owned();
    container.names.pod = "train-0".to_owned();
    container.names.container = "main".to_owned();
    container.utilization.insert(0, 0.75);
    container.unprotected = Some(BTreeMap::from([("GPU-1".to_owned(), 2)]));
    container.card_bytes.insert("GPU-1".to_owned(), 1 << 30);
    container.engine = "hami";
    container.region.devices[0].context_bytes = 1 << 28;
    container.region.devices[0].physical_limit = Some(1 << 30);
    snapshot.own.errors.insert("too_short", 1);
    snapshot.own.sources = vec![Health { source: "cri", error: None, errors: 2, facts: 3 }];
    let without_quota = BTreeMap::from([(
        "of-nobody".to_owned(),
        Identity {
            namespace: "prod".into(),
            pod: "train-1".into(),
            container: "main".into(),
            ..Identity::default()
        },
    )]);
    snapshot.own.nri =
        Some(nri::Figures { connected: true, given: 1, without_quota, ..nri::Figures::default() });
    snapshot
}

fn families() -> impl Iterator<Item = &'static Family> {
    let tables: [&[Family]; 4] = [&native::FAMILIES, &hami::FAMILIES, &hami::OLD_FAMILIES, &dcgm::FAMILIES];
    tables.into_iter().flatten()
}

#[test]
fn a_container_is_told_in_base_units() {
    let text = text(snapshot(vec![found("pod_main", "GPU-1")]), &Choice::default());
    let labels = "{container=\"pod_main\",device_uuid=\"GPU-1\",device_index=\"0\"}";
    let of_kind = |kind: &str| labels.replace('}', &format!(",kind=\"{kind}\"}}"));
    let of_reason = |reason: &str| labels.replace('}', &format!(",reason=\"{reason}\"}}"));
    for line in [
        format!("gpuquota_container_memory_held_bytes{} 2097152", of_kind("allocations")),
        format!("gpuquota_container_memory_held_bytes{} 2097152", of_kind("contexts")),
        format!("gpuquota_container_memory_held_bytes{} 0", of_kind("code")),
        format!("gpuquota_container_memory_held_bytes{} 3145728", of_kind("pools")),
        format!("gpuquota_container_memory_held_bytes{} 5", of_kind("graphs")),
        format!("gpuquota_container_memory_limit_bytes{labels} 2147483648"),
        format!("gpuquota_container_memory_denied_total{} 2", of_reason("memory_limit")),
        format!("gpuquota_container_memory_denied_total{} 0", of_reason("physical_limit")),
        format!("gpuquota_container_memory_denied_total{} 4", of_reason("driver")),
        format!("gpuquota_container_core_limit_ratio{labels} 0.3"),
        format!("gpuquota_container_gpu_time_seconds_total{labels} 1.5"),
        format!("gpuquota_container_throttled_seconds_total{labels} 0.25"),
        format!("gpuquota_container_would_throttle_total{labels} 4"),
        format!("gpuquota_container_core_request_ratio{labels} 0.3"),
        format!("gpuquota_container_turn_wait_seconds_total{labels} 0.1"),
        format!("gpuquota_container_held_while_wanted_seconds_total{labels} 2"),
        format!("gpuquota_container_launch_wait_seconds_sum{labels} 0.4"),
        format!("gpuquota_container_launch_wait_seconds_count{labels} 3"),
        "gpuquota_container_processes{container=\"pod_main\"} 2".to_owned(),
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
}

#[test]
fn waits_are_a_histogram_of_tenfold_steps() {
    let text = text(snapshot(vec![found("a", "G")]), &Choice::default());
    let read = parse(&text);
    let samples = read["gpuquota_container_launch_wait_seconds"].samples.iter();
    let buckets: Vec<String> =
        samples.filter_map(|sample| Some(format!("{}:{}", sample.labels.get("le")?, sample.value))).collect();
    assert_eq!(buckets, ["0.0001:0", "0.001:1", "0.01:1", "0.1:1", "1:2", "10:2", "100:2", "+Inf:3"]);
}

#[test]
fn what_nothing_measures_is_absent_and_never_0() {
    let mut unlimited = found("a", "GPU-1");
    let device = &mut unlimited.region.devices[0];
    (device.memory_limit, device.core_limit, device.gpu_time_ns) = (None, None, None);
    let read = parse(&text(snapshot(vec![unlimited]), &all()));
    let absent: BTreeSet<&str> =
        read.iter().filter(|(_, family)| family.samples.is_empty()).map(|(name, _)| name.as_str()).collect();
    let of_tables: BTreeSet<String> =
        families().filter(|family| !family.absent.is_empty()).map(Family::full_name).collect();
    assert_eq!(absent, of_tables.iter().map(String::as_str).collect());
}

#[test]
fn an_idle_container_has_all_of_its_series_at_once() {
    let mut idle = found("a", "GPU-1");
    let uuid = idle.region.devices[0].uuid.clone();
    idle.region.processes.clear();
    let kept = device(0, &uuid);
    idle.region.devices[0].denied_by = Refusals::default();
    let device = &mut idle.region.devices[0];
    (device.used, device.peak, device.denied, device.launches, device.waited_ns) = (0, 0, 0, 0, 0);
    device.gpu_time_ns = kept.gpu_time_ns.map(|_| 0);
    device.wait_times = [0; 8];
    let read = parse(&text(snapshot(vec![idle]), &Choice::default()));
    let denied = &read["gpuquota_container_memory_denied_total"].samples;
    assert_eq!((denied.len(), denied.iter().map(|sample| sample.value).sum::<f64>()), (6, 0.0));
    for name in [
        "gpuquota_container_memory_used_bytes",
        "gpuquota_container_gpu_time_seconds_total",
        "gpuquota_container_throttled_seconds_total",
        "gpuquota_container_processes",
    ] {
        assert_eq!(read[name].samples.iter().map(|sample| sample.value).collect::<Vec<_>>(), [0.0], "{name}");
    }
    assert_eq!(read["gpuquota_container_memory_held_bytes"].samples.len(), 5);
    assert_eq!(read["gpuquota_container_launch_wait_seconds"].samples.len(), 10);
    assert_eq!(read["gpuquota_metrics_left_out_total"].samples.len(), 2);
}

#[test]
fn a_tenants_name_cannot_write_a_series() {
    let hostile = [
        "a\"} 1\nevil 2\\",
        "\\",
        "\"",
        "\u{1b}[31m",
        "",
        "\u{202e}x",
        "a,b=\"c\"",
        "{}",
        "\u{fffd}",
        "# TYPE x counter",
    ];
    let found = hostile.iter().map(|name| found(name, "GPU-\\x00")).collect();
    let read = parse(&text(snapshot(found), &all()));
    let names = read["gpuquota_container_processes"]
        .samples
        .iter()
        .filter_map(|sample| sample.labels.get("container"));
    let names: BTreeSet<&str> = names.map(String::as_str).collect();
    assert!(names.contains("a\"} 1\\x0aevil 2\\"), "{names:?}");
    assert_eq!(names.len(), hostile.len() - 1, "{names:?}");
}

#[test]
fn counters_near_the_end_of_their_range_neither_wrap_nor_fall() {
    let mut greedy = found("a", "GPU-1");
    let device = &mut greedy.region.devices[0];
    device.wait_times = [u64::MAX; 8];
    device.core_limit = Some(u32::MAX);
    (device.denied, device.waited_ns, device.waited_in_flight_ns) = (u64::MAX, u64::MAX, u64::MAX);
    device.denied_by = Refusals([u64::MAX; Refusals::REASONS]);
    (device.used, device.memory_limit, device.gpu_time_ns) = (u64::MAX, Some(u64::MAX), Some(u64::MAX));
    device.lease.waited_ns = u64::MAX;
    let mut other = found("b", "GPU-1");
    other.region.devices[0].memory_limit = Some(u64::MAX);
    let (mut looker, begun) = (looker(), Instant::now());
    let first = looker.put_together(vec![greedy, other], begun);
    let read = parse(&text(first, &all()));
    assert!(read["gpuquota_container_core_limit_ratio"].samples.iter().all(|sample| sample.value <= 1.0));
    // And from nought on in a region that is made anew.
    let mut again = found("a", "GPU-1");
    again.region.generation = 2;
    let second = parse(&text(looker.put_together(vec![again], begun + Duration::from_secs(1)), &all()));
    assert_no_counter_fell(&read, &second);
}

/// Numbers as a tenant may write them, and names.
struct Anything(u64);

impl Anything {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        match self.0 % 8 {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX - 1,
            3 => 1 << 63,
            4 => self.0 >> 32,
            _ => self.0,
        }
    }

    fn name(&mut self) -> String {
        let of = [
            'a', '"', '\\', '\n', '\r', '{', '}', ',', '=', ' ', '#', '\0', '\u{1b}', '\u{85}', '\u{2028}',
            'é', '🦀',
        ];
        (0..self.number() % 6).map(|_| of[(self.number() % of.len() as u64) as usize]).collect()
    }
}

#[test]
fn whatever_tenants_write_the_format_holds_and_no_counter_falls() {
    let (mut looker, begun) = (looker(), Instant::now());
    let mut any = Anything(0x9E37_79B9_7F4A_7C15);
    let mut before = BTreeMap::new();
    for round in 0..40 {
        let all_found = (0..any.number() % 5).map(|_| {
            let mut found = found(&any.name(), &any.name().escape_default().to_string());
            found.region.generation = any.number();
            found.region.fallbacks = any.number();
            let device = &mut found.region.devices[0];
            device.memory_limit = Some(any.number());
            device.core_limit = Some(any.number() as u32);
            device.gpu_time_ns = Some(any.number()).filter(|used| used % 3 != 0);
            for word in device.wait_times.iter_mut().chain([
                &mut device.used,
                &mut device.denied,
                &mut device.denied_by.0[0],
                &mut device.waited_ns,
                &mut device.launches,
                &mut device.lease.waited_ns,
                &mut device.lease.held_ns,
            ]) {
                *word = any.number();
            }
            found
        });
        let all_found = all_found.collect();
        let snapshot = looker.put_together(all_found, begun + Duration::from_millis(500 * round));
        let open =
            encode(&Arc::new(snapshot.clone()), &all(), Format::OpenMetrics).expect("it can be written");
        assert!(open.ends_with("# EOF\n"));
        let read = parse(&text(snapshot, &all()));
        let after = counters(&read);
        for (series, value) in counters(&before) {
            // A device that its region names no more is gone with it.
            assert!(after.get(&series).is_none_or(|now| *now >= value), "{series:?} fell from {value}");
        }
        before = read;
    }
}

/// Every value of a counter, by its name and labels.
fn counters(read: &BTreeMap<String, Read>) -> BTreeMap<(&str, &BTreeMap<String, String>), f64> {
    let counters = read.values().filter(|family| family.kind != "gauge");
    let samples = counters.flat_map(|family| &family.samples);
    samples.map(|sample| ((sample.name.as_str(), &sample.labels), sample.value)).collect()
}

fn assert_no_counter_fell(before: &BTreeMap<String, Read>, after: &BTreeMap<String, Read>) {
    let after = counters(after);
    for (series, value) in counters(before) {
        let now = after.get(&series).unwrap_or_else(|| panic!("{series:?} is gone"));
        assert!(*now >= value, "{series:?} fell from {value} to {now}");
    }
}

#[test]
fn of_what_has_ended_the_counters_alone_are_told() {
    let (mut looker, begun) = (looker(), Instant::now());
    let before = parse(&text(looker.put_together(vec![found("a", "GPU-1")], begun), &Choice::default()));
    let after = looker.put_together(vec![], begun + Duration::from_secs(10));
    let after = parse(&text(after, &Choice::default()));
    assert_no_counter_fell(&before, &after);
    let of_containers = |(name, family): (&String, &Read)| {
        name.starts_with("gpuquota_container_") && family.kind == "gauge" && !family.samples.is_empty()
    };
    assert!(!after.iter().any(of_containers), "{after:?}");
}

#[test]
fn every_label_of_the_tables_is_served_and_no_other() {
    let mut full = full();
    full.containers[0].region.devices[0].lease.request_percent = Some(20);
    let read = parse(&text(full, &all()));
    for family in families() {
        let name = family.full_name();
        let served = &read.get(&name).unwrap_or_else(|| panic!("no {name}")).samples;
        let served: BTreeSet<&str> =
            served.iter().flat_map(|sample| sample.labels.keys().map(String::as_str)).collect();
        assert_eq!(served, labels(family).into_iter().collect(), "{name}");
    }
    assert_eq!(read.len(), families().count());
}

#[test]
fn a_device_has_no_more_series_than_the_page_says() {
    let count = |snapshot: Snapshot, choice: &Choice| {
        let read = parse(&text(snapshot, choice));
        read.values().map(|family| family.samples.len()).sum::<usize>()
    };
    let most = [Choice::default(), all()].map(|choice| {
        let mut one = full();
        one.containers.truncate(1);
        one.containers[0].region.devices[0].lease.request_percent = Some(20);
        one.own = snapshot(vec![]).own;
        count(one, &choice) - count(snapshot(vec![]), &choice)
    });
    assert_eq!(most, MOST_SERIES);
}

#[test]
fn the_limit_in_force_is_told_with_its_origin() {
    let read = parse(&text(full(), &Choice::default()));
    let samples = &read["gpuquota_container_limit_info"].samples;
    let told: BTreeSet<_> =
        samples.iter().map(|s| (s.labels["limit"].as_str(), s.labels["origin"].as_str())).collect();
    assert!(
        told.contains(&("memory_limit", "unknown")) && told.contains(&("core_limit", "unknown")),
        "{told:?}"
    );
}

#[test]
fn openmetrics_is_the_same_and_ends_with_its_mark() {
    let snapshot = Arc::new(full());
    let open = encode(&snapshot, &all(), Format::OpenMetrics).expect("it can be written");
    assert!(open.ends_with("# EOF\n"));
    assert!(open.contains("# TYPE gpuquota_container_memory_denied counter\n"));
    assert!(open.contains("# UNIT gpuquota_container_memory_limit_bytes bytes\n"));
    let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let plain = encode(&snapshot, &all(), Format::Text).expect("it can be written");
    assert_eq!(samples(&open), samples(&plain));
}

#[test]
#[ignore = "needs promtool: .ci/run metrics"]
fn promtool_finds_nothing_to_say() {
    exposition::check_by_promtool(&text(full(), &Choice::default()));
}

/// Of HAMi's dashboard and of HAMi-WebUI, as they query Prometheus.
const QUERIES: &[&str] = &[
    "sum(hami_vgpu_memory_used_bytes) by (namespace, pod, container)",
    "hami_vgpu_memory_used_bytes / hami_vgpu_memory_limit_bytes",
    "avg(hami_container_device_utilization_ratio) by (device_uuid)",
    "hami_host_gpu_memory_used_bytes{device_uuid}",
    "avg(hami_host_gpu_utilization_ratio) by (node)",
    "sum(hami_gpu_memory_allocated_bytes) by (node, device_type) / sum(hami_gpu_memory_limit_bytes) by (node, device_type)",
    "sum(hami_gpu_shared_count) by (device_uuid, device_index)",
    "hami_gpu_core_allocated_ratio{node, device_uuid}",
    "hami_container_device_memory_bytes{vdevice_index}",
    "sum(hami_vgpu_memory_context_bytes) + sum(hami_vgpu_memory_module_bytes) + sum(hami_vgpu_memory_buffer_bytes)",
    "hami_node_gpu_memory_allocated_ratio{node}",
    "HostGPUMemoryUsage{deviceuuid, zone}",
    "avg(HostCoreUtilization) by (deviceidx)",
    "sum(vGPU_device_memory_usage_in_bytes) by (podnamespace, podname, ctrname, vdeviceid)",
    "vGPU_device_memory_limit_in_bytes{deviceuuid}",
    "Device_utilization_desc_of_container{podname}",
    "Device_memory_desc_of_container{ctrname}",
    "sum(GPUDeviceMemoryAllocated) by (nodeid) / sum(GPUDeviceMemoryLimit) by (nodeid)",
    "GPUDeviceCoreAllocated{deviceuuid} / GPUDeviceCoreLimit{deviceuuid}",
    "GPUDeviceSharedNum{nodeid}",
    "nodeGPUMemoryPercentage{nodeid}",
    "avg(DCGM_FI_DEV_GPU_UTIL) by (UUID)",
    "DCGM_FI_DEV_FB_USED{UUID} / (DCGM_FI_DEV_FB_USED{UUID} + DCGM_FI_DEV_FB_FREE{UUID})",
    "DCGM_FI_DEV_POWER_USAGE{UUID, Hostname}",
    "DCGM_FI_DEV_GPU_TEMP{UUID}",
    "DCGM_FI_DEV_MEMORY_TEMP{UUID}",
    "DCGM_FI_DEV_FAN_SPEED{UUID}",
    "DCGM_FI_DEV_XID_ERRORS{UUID, modelName}",
];

#[test]
fn dashboards_find_what_they_query() {
    let read = parse(&text(full(), &all()));
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for query in QUERIES {
        let words: Vec<&str> = query.split(|c| !is_word(c)).filter(|word| !word.is_empty()).collect();
        let metrics: Vec<&Read> = words.iter().filter_map(|word| read.get(*word)).collect();
        assert!(!metrics.is_empty(), "no metric of {query}");
        for word in words {
            let is_label =
                |family: &&Read| family.samples.iter().any(|sample| sample.labels.contains_key(word));
            let known = read.get(word).is_some_and(|family| !family.samples.is_empty())
                || matches!(word, "sum" | "avg" | "by")
                || metrics.iter().all(is_label);
            assert!(known, "{word} of {query}");
        }
    }
}

#[test]
fn the_page_of_metrics_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == super::page(), "docs/metrics.md is old: gpuquota agent --help-metrics > docs/metrics.md");
}
