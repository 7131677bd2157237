//! `docs/metrics.md`: every family, from the tables that the answers are made from.

use super::family::{Family, Of, Scheme};
use super::{dcgm, hami, native};
use prometheus_client::metrics::MetricType;
use std::fmt::Write;

/// Series that a device of a container has at most, with its card's: the agent's own, and with all others.
pub const MOST_SERIES: [usize; 2] = [66, 103];

/// What stands before the tables.
const HEAD: &str = "\
# Metrics of the agent

`gpuquota agent` serves these at `/metrics`, in Prometheus's text format or, if a client asks for it, OpenMetrics 1.0.0. This page is
made by `gpuquota agent --help-metrics`, and a test holds that it is current.

- Units are base units, ratios go from 0 to 1, and counters end in `_total`.
- A series is there with value 0 as soon as its container is. A value that nothing measures is absent, never 0.
- `namespace`, `pod` and `device_type` are left out where they are not known. Control characters in names are replaced by U+FFFD.
- Counters of a container go on when its region is made anew, and never fall: what is counted is kept by the agent, from its start on.
- When a container has ended, its gauges go at once, its counters after `--grace` (5 minutes).
- Series of at most `--max-devices` (4096) devices of containers are served, of those in places that only root writes first: up to
  OWN for a device and its card, with HAMi's and dcgm-exporter's names ALL. `gpuquota_metrics_left_out_total` counts what was left out.
- All who ask within a second get the same look at the node, as metrics, as JSON (`/api/v1`) and as events (`/events`).
";

/// What stands before HAMi's.
const HAMI: &str = "
## HAMi's names (`--hami-metrics`)

For dashboards and HAMi-WebUI. All are gauges with the label `zone=\"vGPU\"`, and ratios are percentages, as HAMi's are. HAMi's
scheduler serves those of `hami_gpu_*` too: with both, choose by `job`.
";

/// What stands before dcgm-exporter's.
const DCGM: &str = "
## A subset of dcgm-exporter's (`--dcgm-metrics`)

What HAMi-WebUI queries, in dcgm-exporter's units.
";

/// The page.
pub fn page() -> String {
    let [own, all] = MOST_SERIES.map(|most| most.to_string());
    let mut page = HEAD.replace("OWN", &own).replace("ALL", &all);
    page.push_str("\n## The agent's own\n");
    table(&mut page, &native::FAMILIES);
    page.push_str(HAMI);
    table(&mut page, &hami::FAMILIES);
    page.push_str("\nHAMi's older names:\n");
    table(&mut page, &hami::OLD_FAMILIES);
    page.push_str(DCGM);
    table(&mut page, &dcgm::FAMILIES);
    page
}

fn table(page: &mut String, families: &[Family]) {
    page.push_str("\n| name | type | unit | labels | meaning | absent when |\n|---|---|---|---|---|---|\n");
    for family in families {
        let kind = match family.kind {
            MetricType::Counter => "counter",
            MetricType::Histogram => "histogram",
            _ => "gauge",
        };
        let labels: Vec<String> = labels(family).iter().map(|label| format!("`{label}`")).collect();
        let (name, unit, labels) = (family.full_name(), family.unit, labels.join(" "));
        let _infallible =
            writeln!(page, "| `{name}` | {kind} | {unit} | {labels} | {} | {} |", family.help, family.absent);
    }
}

/// The names of a family's labels.
pub fn labels(family: &Family) -> Vec<&'static str> {
    let (container, device, node): (&[&str], &[&str], &[&str]) = match family.scheme {
        Scheme::Own => (
            &["namespace", "pod", "container"],
            &["device_uuid", "device_index", "device_type"],
            &["device_uuid", "device_index", "device_type"],
        ),
        Scheme::Hami => (
            &["namespace", "pod", "container"],
            &["vdevice_index", "device_uuid", "zone"],
            &["node", "device_uuid", "device_index", "device_type", "zone"],
        ),
        Scheme::HamiOld => (
            &["podnamespace", "podname", "ctrname"],
            &["vdeviceid", "deviceuuid", "zone"],
            &["nodeid", "deviceuuid", "deviceidx", "devicetype", "zone"],
        ),
        Scheme::Dcgm => (&[], &[], &["gpu", "UUID", "device", "modelName", "Hostname"]),
    };
    match family.of {
        Of::Device(_) => [container, device].concat(),
        Of::DeviceBy(label, _) => [container, device, &[label]].concat(),
        Of::DeviceInfo(further, _) => [container, device, further].concat(),
        Of::DeviceHistogram(_) => [container, device, &["le"]].concat(),
        Of::Container(_) => container.to_vec(),
        Of::ByCard(_) => [container, &["device_uuid", "device_type"]].concat(),
        Of::ContainerInfo(further, _) => [container, further].concat(),
        Of::Card(further, _) => [node, further].concat(),
        Of::Node(_) | Of::CardFigure(_) => node.to_vec(),
        Of::Agent(labels, _) => labels.to_vec(),
        Of::AgentHistogram(_) => vec!["le"],
    }
}
