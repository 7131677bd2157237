//! What is listed: pods, their containers, and their processes, sorted and filtered.

use super::history::{History, busy};
use super::view::{Sort, View};
use crate::regions::harmless;
use crate::tools::node::{Container, Device, Node, joined};
use std::cmp::Reverse;

/// One row of the list.
#[derive(Debug, Default)]
pub struct Row {
    /// With blanks before it for its depth.
    pub name: String,
    /// The device's index on the node, where it is of one.
    pub device: Option<u32>,
    /// Bytes that it has, and that it may have.
    pub memory: Option<(u64, Option<u64>)>,
    /// Percent of the device's time, and its share.
    pub time: Option<(Option<f64>, Option<u32>)>,
    /// Percent of the last interval in which launches waited.
    pub waits: Option<f64>,
    pub denied: Option<u64>,
    /// How busy it was.
    pub spark: Vec<u64>,
    pub is_pod: bool,
    /// Whether something is wrong with it.
    pub is_hot: bool,
}

/// One container at one device.
struct Place<'n> {
    container: &'n Container,
    device: Option<&'n Device>,
}

impl Place<'_> {
    fn pod(&self) -> String {
        joined(&[&self.container.names.namespace, &self.container.names.pod])
    }
}

/// All rows.
pub fn all(node: &Node, history: &History, view: &View) -> Vec<Row> {
    let living = node.containers.iter().filter(|container| !container.ended);
    let wanted = living.filter(|container| container.names.full().contains(&view.filter));
    let mut places: Vec<Place<'_>> = wanted
        .flat_map(|container| {
            let of = move |device| Place { container, device };
            let none = container.devices.is_empty().then(|| of(None));
            container.devices.iter().map(move |device| of(Some(device))).chain(none)
        })
        .collect();
    sort(&mut places, history, view);
    let mut rows = Vec::new();
    let mut pod = None;
    for place in &places {
        let own = place.pod();
        let is_below = view.is_tree && !own.is_empty();
        if is_below && pod.as_ref() != Some(&own) {
            rows.push(Row { name: harmless(&own), is_pod: true, ..Row::default() });
        }
        pod = Some(own);
        rows.push(of_container(node, history, place, is_below));
        if view.has_processes {
            rows.extend(of_processes(node, place, is_below));
        }
    }
    rows
}

fn sort(places: &mut [Place<'_>], history: &History, view: &View) {
    let figure = |place: &Place<'_>| -> u64 {
        let (Some(device), path) = (place.device, &place.container.path) else { return 0 };
        match view.sort {
            Sort::Name => 0,
            Sort::Memory => device.used,
            Sort::Time => (busy(place.container, device).unwrap_or(0.0) * 1000.0) as u64,
            Sort::Waits => (history.waits(path, device.index) * 1000.0) as u64,
            Sort::Denied => device.denied,
        }
    };
    places.sort_by_cached_key(|place| {
        (Reverse(figure(place)), place.container.names.full(), place.device.map(|device| device.index))
    });
    if view.is_tree {
        // Pods in the order of their first container, and their containers together.
        let mut order: Vec<String> = Vec::new();
        for place in places.iter() {
            let pod = place.pod();
            if !order.contains(&pod) {
                order.push(pod);
            }
        }
        places.sort_by_cached_key(|place| {
            let pod = place.pod();
            order.iter().position(|known| *known == pod)
        });
    }
}

fn of_container(node: &Node, history: &History, place: &Place<'_>, is_below: bool) -> Row {
    let Place { container, device } = place;
    let name = if is_below { format!("  {}", container.names.container) } else { container.names.full() };
    let name = harmless(&name);
    let Some(device) = device else { return Row { name, ..Row::default() } };
    let waits = history.waits(&container.path, device.index);
    let unprotected =
        container.unprotected.as_ref().and_then(|by| by.get(&device.uuid)).is_some_and(|many| *many != 0);
    Row {
        name: if unprotected { format!("{name} !") } else { name },
        device: Some(node.card(&device.uuid).map_or(device.index as u32, |card| card.index)),
        memory: Some((device.used, device.memory_limit)),
        time: Some((busy(container, device), device.core_limit)),
        waits: Some(waits),
        denied: Some(device.denied),
        spark: history.container(&container.path, device.index),
        is_pod: false,
        is_hot: unprotected || history.has_denied(&container.path, device.index),
    }
}

fn of_processes(node: &Node, place: &Place<'_>, is_below: bool) -> Vec<Row> {
    let Some(device) = place.device else { return Vec::new() };
    let seats = node.processes.iter().flatten();
    let commands: Vec<(u32, &str)> = seats.map(|seat| (seat.pid, seat.command.as_str())).collect();
    let indent = if is_below { "    " } else { "  " };
    let living = place.container.processes.iter().filter(|process| process.alive);
    let rows = living.filter_map(|process| {
        let held = process.devices.iter().find(|held| held.device == device.index)?;
        let command = process.host_pid.and_then(|pid| commands.iter().find(|(known, _)| *known == pid));
        let command = command.map_or_else(String::new, |(_, command)| format!(" {command}"));
        let name = harmless(&format!("{indent}{}{command}", process.host_pid.unwrap_or(process.pid)));
        Some(Row { name, memory: Some((held.bytes, None)), ..Row::default() })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::node::Names;

    fn container(pod: &str, name: &str, used: u64) -> Container {
        let names = Names { namespace: String::new(), pod: pod.into(), container: name.into() };
        let device = Device { used, uuid: "GPU-1".into(), ..Device::default() };
        Container { names, path: format!("/{pod}{name}"), devices: vec![device], ..Container::default() }
    }

    fn names(view: &View) -> Vec<String> {
        let containers = vec![
            container("b", "one", 1),
            container("a", "two", 5),
            container("b", "six", 9),
            container("", "run", 3),
        ];
        let node = Node { containers, ..Node::default() };
        all(&node, &History::default(), view).into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn pods_keep_their_containers_together_and_the_largest_comes_first() {
        let view = View::default();
        assert_eq!(names(&view), ["a", "  two", "b", "  one", "  six", "run"].map(str::to_owned).to_vec());
        let memory = View { sort: Sort::Memory, ..View::default() };
        assert_eq!(names(&memory), ["b", "  six", "  one", "a", "  two", "run"]);
        let flat = View { is_tree: false, sort: Sort::Memory, ..View::default() };
        assert_eq!(names(&flat), ["b/six", "a/two", "run", "b/one"]);
        let filtered = View { filter: "b/".into(), is_tree: false, ..View::default() };
        assert_eq!(names(&filtered), ["b/one", "b/six"]);
    }
}
