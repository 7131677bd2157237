//! What a family of metrics is, and how it is written.

use crate::agent::snapshot::{Card, Container, NodeDevice, Snapshot};
use crate::regions::Device;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::cell::OnceCell;
use std::fmt;

/// A value: bytes and counts are whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(whole: u64) -> Self {
        Self::Whole(whole)
    }
}

impl From<f64> for Value {
    fn from(real: f64) -> Self {
        // A whole number is written as such: 2, not 2.0.
        let whole = real.fract() == 0.0 && (0.0..9e15).contains(&real);
        if whole { Self::Whole(real as u64) } else { Self::Real(real) }
    }
}

/// A label's name and value.
pub type Label = (&'static str, String);

/// A value and its further labels.
pub type Labelled = (Vec<Label>, Value);

/// Counts by upper bound, and the sum of what was counted.
pub struct Histogram {
    pub buckets: Vec<(f64, u64)>,
    pub sum: f64,
}

/// Of what a family has values.
pub enum Of {
    /// Each device of each container.
    Device(fn(&Container, &Device) -> Option<Value>),
    /// The same, by a further label.
    DeviceBy(&'static str, fn(&Container, &Device) -> Vec<(&'static str, Value)>),
    /// What of a device has several further labels.
    DeviceInfo(&'static [&'static str], fn(&Device) -> Vec<Vec<Label>>),
    /// Each device of each container, as a histogram.
    DeviceHistogram(fn(&Device) -> Histogram),
    /// Each container.
    Container(fn(&Container) -> Option<Value>),
    /// Each container, by the UUIDs of devices as their cards know them.
    ByCard(fn(&Container) -> Vec<(&str, Value)>),
    /// Each container, with further labels.
    ContainerInfo(&'static [&'static str], fn(&Container) -> Vec<Label>),
    /// Each device of the node.
    Node(fn(&NodeDevice<'_>) -> Option<Value>),
    /// Each card.
    CardFigure(fn(&Card) -> Option<Value>),
    /// Each card, by further labels.
    Card(&'static [&'static str], fn(&Card) -> Vec<Labelled>),
    /// The agent itself, by the labels that are named.
    Agent(&'static [&'static str], fn(&Snapshot) -> Vec<Labelled>),
    /// The agent itself, as a histogram.
    AgentHistogram(fn(&Snapshot) -> Histogram),
}

/// What the labels of a family's containers and devices are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Own,
    Hami,
    HamiOld,
    Dcgm,
}

/// How many there are.
const SCHEMES: usize = 4;

/// A family of metrics.
pub struct Family {
    /// Its name, without the unit and `_total`.
    pub name: &'static str,
    /// The unit, which the name ends in; "" where it has none.
    pub unit: &'static str,
    pub kind: MetricType,
    pub help: &'static str,
    /// When there is no series.
    pub absent: &'static str,
    pub scheme: Scheme,
    pub of: Of,
}

/// A gauge of the agent's own names.
pub const fn gauge(name: &'static str, unit: &'static str, help: &'static str, of: Of) -> Family {
    Family { name, unit, kind: MetricType::Gauge, help, absent: "", scheme: Scheme::Own, of }
}

/// A counter of the agent's own names.
pub const fn counter(name: &'static str, unit: &'static str, help: &'static str, of: Of) -> Family {
    Family { kind: MetricType::Counter, ..gauge(name, unit, help, of) }
}

/// What families are told of: every container and device with its labels in every scheme.
pub struct Rows<'s> {
    snapshot: &'s Snapshot,
    node: &'s str,
    devices: Vec<(&'s Container, &'s Device)>,
    /// The labels of these devices, by scheme.
    labels: [OnceCell<Vec<Vec<Label>>>; SCHEMES],
    node_devices: Vec<NodeDevice<'s>>,
}

impl<'s> Rows<'s> {
    pub fn of(snapshot: &'s Snapshot, node: &'s str) -> Self {
        let containers = snapshot.containers.iter();
        let devices =
            containers.flat_map(|of| of.region.devices.iter().map(move |device| (of, device))).collect();
        Self { snapshot, node, devices, labels: Default::default(), node_devices: snapshot.devices() }
    }

    /// Every device of every container, with its labels.
    fn devices(&self, scheme: Scheme) -> impl Iterator<Item = (&'s Container, &'s Device, &[Label])> {
        let all =
            |(container, device): &(&'s Container, &'s Device)| self.of_device(scheme, container, device);
        let labels = self.labels[scheme as usize].get_or_init(|| self.devices.iter().map(all).collect());
        let both = self.devices.iter().zip(labels);
        both.map(|((container, device), labels)| (*container, *device, labels.as_slice()))
    }

    fn type_of(&self, uuid: &str) -> String {
        self.snapshot.card(uuid).and_then(|card| card.model.clone()).unwrap_or_default()
    }

    fn of_container(&self, scheme: Scheme, container: &Container) -> Vec<Label> {
        let names = &container.names;
        let labels = match scheme {
            Scheme::HamiOld => ["podnamespace", "podname", "ctrname"],
            _ => ["namespace", "pod", "container"],
        };
        labels.into_iter().zip([&names.namespace, &names.pod, &names.container].map(String::clone)).collect()
    }

    fn of_device(&self, scheme: Scheme, container: &Container, device: &Device) -> Vec<Label> {
        let mut labels = self.of_container(scheme, container);
        let (uuid, index) = (device.uuid.clone(), device.index.to_string());
        match scheme {
            Scheme::Own => {
                labels.extend([("device_uuid", uuid), ("device_index", index)]);
                labels.push(("device_type", self.type_of(&device.uuid)));
            }
            Scheme::Hami => {
                labels.extend([("vdevice_index", index), ("device_uuid", uuid), ("zone", ZONE.into())])
            }
            _ => labels.extend([("vdeviceid", index), ("deviceuuid", uuid), ("zone", ZONE.into())]),
        }
        labels
    }

    fn of_node(&self, scheme: Scheme, device: &NodeDevice<'_>) -> Vec<Label> {
        let (uuid, index) = (device.uuid.to_owned(), device.index.to_string());
        let model = device.of_card(|card| card.model.clone()).unwrap_or_default();
        // HAMi says whose product it is.
        let brand = if model.is_empty() { String::new() } else { format!("NVIDIA-{model}") };
        let node = self.node.to_owned();
        match scheme {
            Scheme::Own => vec![("device_uuid", uuid), ("device_index", index), ("device_type", model)],
            Scheme::Hami => vec![
                ("node", node),
                ("device_uuid", uuid),
                ("device_index", index),
                ("device_type", brand),
                ("zone", ZONE.into()),
            ],
            Scheme::HamiOld => vec![
                ("nodeid", node),
                ("deviceuuid", uuid),
                ("deviceidx", index),
                ("devicetype", brand),
                ("zone", ZONE.into()),
            ],
            Scheme::Dcgm => vec![
                ("UUID", uuid),
                ("device", format!("nvidia{index}")),
                ("gpu", index),
                ("modelName", model),
                ("Hostname", node),
            ],
        }
    }
}

/// The zone in which HAMi's registry puts all of its metrics.
const ZONE: &str = "vGPU";

/// Labels as they are written, and further ones. One without a value is none.
struct Set<'l>(&'l [Label], &'l [Label]);

impl EncodeLabelSet for Set<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        let mut labels = self.0.iter().chain(self.1).filter(|(_, value)| !value.is_empty());
        labels.try_for_each(|(name, value)| (*name, value.as_str()).encode(encoder.encode_label()))
    }
}

impl Family {
    /// Its whole name.
    pub fn full_name(&self) -> String {
        let (stop, total) = (if self.unit.is_empty() { "" } else { "_" }, self.ending());
        format!("{}{stop}{}{total}", self.name, self.unit)
    }

    fn ending(&self) -> &'static str {
        match self.kind {
            MetricType::Counter => "_total",
            MetricType::Info => "_info",
            _ => "",
        }
    }

    /// Writes all of its series.
    pub fn encode(&self, encoder: &mut DescriptorEncoder<'_>, rows: &Rows<'_>) -> fmt::Result {
        let unit = Some(self.unit).filter(|unit| !unit.is_empty()).map(|unit| Unit::Other(unit.to_owned()));
        let mut encoder = encoder.encode_descriptor(self.name, self.help, unit.as_ref(), self.kind)?;
        // Of what has ended the counters alone are true.
        let is_counter = matches!(self.kind, MetricType::Counter | MetricType::Histogram);
        let is_told = |container: &Container| is_counter || !container.ended;
        let devices = || rows.devices(self.scheme).filter(|(container, ..)| is_told(container));
        let mut with = |labels: &[Label], further: &[Label], value: Value| {
            write(self.kind, &mut encoder, Set(labels, further), value)
        };
        let mut one = |labels: &[Label], value: Value| with(labels, &[], value);
        match self.of {
            Of::Device(value) => devices().try_for_each(|(container, device, labels)| {
                value(container, device).map_or(Ok(()), |value| one(labels, value))
            }),
            Of::DeviceBy(label, values) => {
                let mut further = [(label, String::new())];
                devices().try_for_each(|(container, device, labels)| {
                    values(container, device).into_iter().try_for_each(|(is, value)| {
                        is.clone_into(&mut further[0].1);
                        with(labels, &further, value)
                    })
                })
            }
            Of::DeviceInfo(_, sets) => devices().try_for_each(|(_, device, labels)| {
                sets(device).iter().try_for_each(|further| with(labels, further, 1.into()))
            }),
            Of::DeviceHistogram(histogram) => devices()
                .try_for_each(|(_, device, labels)| of_histogram(&mut encoder, labels, histogram(device))),
            Of::Container(value) => {
                let containers = rows.snapshot.containers.iter().filter(|container| is_told(container));
                let mut of = containers.filter_map(|container| Some((container, value(container)?)));
                of.try_for_each(|(container, value)| one(&rows.of_container(self.scheme, container), value))
            }
            Of::ByCard(values) => {
                let containers = rows.snapshot.containers.iter().filter(|container| !container.ended);
                let mut of = containers.flat_map(|container| {
                    values(container).into_iter().map(move |(uuid, value)| (container, uuid, value))
                });
                of.try_for_each(|(container, uuid, value)| {
                    let device = [("device_uuid", uuid.to_owned()), ("device_type", rows.type_of(uuid))];
                    one(&[rows.of_container(self.scheme, container), device.to_vec()].concat(), value)
                })
            }
            Of::ContainerInfo(_, further) => {
                let mut containers = rows.snapshot.containers.iter().filter(|container| !container.ended);
                containers.try_for_each(|container| {
                    one(&[rows.of_container(self.scheme, container), further(container)].concat(), 1.into())
                })
            }
            Of::CardFigure(value) => rows.node_devices.iter().try_for_each(|device| {
                let value = device.card.and_then(value);
                value.map_or(Ok(()), |value| one(&rows.of_node(self.scheme, device), value))
            }),
            Of::Card(_, values) => rows.node_devices.iter().try_for_each(|device| {
                let mut of = device.card.into_iter().flat_map(values);
                of.try_for_each(|(further, value)| {
                    one(&[rows.of_node(self.scheme, device), further].concat(), value)
                })
            }),
            Of::Node(value) => rows.node_devices.iter().try_for_each(|device| {
                value(device).map_or(Ok(()), |value| one(&rows.of_node(self.scheme, device), value))
            }),
            Of::Agent(_, values) => {
                values(rows.snapshot).into_iter().try_for_each(|(labels, value)| one(&labels, value))
            }
            Of::AgentHistogram(histogram) => of_histogram(&mut encoder, &[], histogram(rows.snapshot)),
        }
    }
}

fn write(kind: MetricType, encoder: &mut MetricEncoder<'_>, set: Set<'_>, value: Value) -> fmt::Result {
    if kind == MetricType::Info {
        return encoder.encode_info(&set);
    }
    let mut one = encoder.encode_family(&set)?;
    match (kind, value) {
        (MetricType::Counter, Value::Whole(whole)) => one.encode_counter::<Set<'_>, _, f64>(&whole, None),
        (MetricType::Counter, Value::Real(real)) => one.encode_counter::<Set<'_>, _, f64>(&real, None),
        (_, Value::Whole(whole)) => one.encode_gauge(&whole),
        (_, Value::Real(real)) => one.encode_gauge(&real),
    }
}

fn of_histogram(encoder: &mut MetricEncoder<'_>, labels: &[Label], histogram: Histogram) -> fmt::Result {
    // Their sum is written too, and must not pass what a number holds: a tenant may say anything.
    let mut room = u64::MAX;
    let buckets: Vec<(f64, u64)> = histogram
        .buckets
        .into_iter()
        .map(|(bound, count)| {
            let count = count.min(room);
            room -= count;
            (bound, count)
        })
        .collect();
    let set = Set(labels, &[]);
    encoder.encode_family(&set)?.encode_histogram::<Set<'_>>(histogram.sum, u64::MAX - room, &buckets, None)
}
