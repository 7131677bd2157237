//! A picture of the last minutes, for a bug report. It is complete by itself: no script, no font, nothing from elsewhere.

use super::past::{Card, Container, Past};
use crate::regions::harmless;
use crate::tools::events::fields;
use crate::tools::messages;
use crate::tools::node::{Event, Node};
use crate::words::bytes;
use std::cmp::Reverse;
use std::fmt::Write;

/// Columns of the picture: names, then the curves, then what is now.
const LEFT: f64 = 270.0;
const CURVES: f64 = 520.0;
const WIDTH: f64 = 1040.0;
/// A curve's height, and that of its row.
const HEIGHT: f64 = 44.0;
const ROW: f64 = 58.0;
/// How many containers are drawn; what has most to tell comes first.
const ROWS: usize = 60;
/// Events below them, the newest ones.
const EVENTS: usize = 12;
/// Characters of a name, and of a line below.
const NAME: usize = 38;
const LINE: usize = 150;

const STYLE: &str = "\
    svg { background: #fff; font: 12px system-ui, sans-serif; fill: #16202a; }\
    .faint { fill: #55626f; } .head { font-size: 17px; font-weight: 600; } .name { font-weight: 600; }\
    .ground { fill: #f1f4f7; } .memory { fill: #9cc4ee; } .denied { stroke: #b3261e; stroke-width: 2; }\
    .busy, .waiting { fill: none; stroke-width: 1.5; } .busy { stroke: #1d6b3a; }\
    .waiting { stroke: #b06000; stroke-dasharray: 4 2; } .limit { stroke: #55626f; stroke-dasharray: 1 3; }\
    @media (prefers-color-scheme: dark) {\
    svg { background: #11161b; fill: #e6ebf0; } .faint { fill: #a3afbb; } .ground { fill: #1a2128; }\
    .memory { fill: #2b5d8f; } .denied { stroke: #ff8a80; } .busy { stroke: #6fcf8e; } .waiting { stroke: #ffb95c; }\
    .limit { stroke: #a3afbb; } }";

/// The picture. `source` says who has looked, and for how long.
pub fn picture(past: &Past, node: &Node, source: &str) -> String {
    let mut drawing = Drawing { body: String::new(), y: 0.0, looks: past.times.len() };
    drawing.head(past, source);
    for card in &past.cards {
        drawing.card(card);
    }
    let mut containers: Vec<&Container> = past.containers.iter().collect();
    containers.sort_by_cached_key(|container| (Reverse(weight(container)), container.names.full()));
    for container in containers.iter().take(ROWS) {
        drawing.container(past, container);
    }
    if containers.len() > ROWS {
        drawing.line("faint", &format!("and {} more with less to tell", containers.len() - ROWS));
    }
    if past.containers.is_empty() {
        drawing.line("faint", "No container of this node had a quota.");
    }
    drawing.events(&node.events);
    let height = drawing.y + 14.0;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" \
         height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"title\">\n\
         <style>{STYLE}</style>\n<title id=\"title\">The last minutes of a node under gpuquota</title>\n{}</svg>\n",
        drawing.body
    )
}

/// What makes a container worth a row: refusals, then waits, then memory.
fn weight(container: &Container) -> (u64, u64, u64) {
    let refused = container.denied.iter().flatten().sum();
    let waited: f64 = container.waiting.iter().flatten().sum();
    (refused, (waited * 1000.0) as u64, container.used.iter().flatten().copied().max().unwrap_or(0))
}

struct Drawing {
    body: String,
    /// Where the next row begins.
    y: f64,
    looks: usize,
}

impl Drawing {
    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        let _infallible = self.body.write_fmt(element);
        self.body.push('\n');
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escaped(text);
        self.put(format_args!("<text x=\"{x}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"));
    }

    fn line(&mut self, class: &str, text: &str) {
        self.y += 18.0;
        self.text(16.0, self.y, class, &cut(text, LINE));
    }

    fn head(&mut self, past: &Past, source: &str) {
        self.y += 10.0;
        self.line("head", "gpuquota: the last minutes of this node");
        let time = |time: Option<&String>| time.map_or_else(|| "?".to_owned(), |time| time.replace('T', " "));
        let (from, to) = (time(past.times.first()), time(past.times.last()));
        let looks = past.times.len();
        self.line(
            "faint",
            &format!("{from} to {to}, {looks} looks by {source}, gpuquota {}", env!("CARGO_PKG_VERSION")),
        );
        self.y += 22.0;
        let y = self.y;
        let mut x = LEFT;
        for (kind, words) in [
            ("memory", "memory in use"),
            ("busy", "GPU time"),
            ("waiting", "launches waited"),
            ("denied", "a refusal"),
            ("limit", "share"),
        ] {
            let shape = match kind {
                "memory" => format!(
                    "<rect x=\"{x}\" y=\"{:.1}\" width=\"18\" height=\"9\" class=\"memory\"/>",
                    y - 9.0
                ),
                kind => format!("<path d=\"M{x} {:.1}h18\" class=\"{kind}\"/>", y - 4.0),
            };
            self.put(format_args!("{shape}"));
            self.text(x + 24.0, y, "faint", words);
            x += 130.0;
        }
        self.y += 12.0;
    }

    fn card(&mut self, card: &Card) {
        let memory = parts(&card.used, card.memory_total);
        let model = card.model.as_deref().unwrap_or(&card.uuid);
        let name = format!("card {} {model}", card.index);
        let total = card.memory_total.map_or_else(String::new, |total| format!("{} of memory", bytes(total)));
        let now =
            [last(&card.used).map(bytes), last(&card.busy).map(|busy| format!("busy {}", percent(busy)))];
        self.row(&name, &total, &memory, &now);
        self.curve("busy", &card.busy);
        self.y += ROW;
    }

    fn container(&mut self, past: &Past, container: &Container) {
        let card = past.card(&container.device_uuid);
        let index = card.map_or(container.device_index, |card| card.index);
        let of = container.memory_limit.or_else(|| card.and_then(|card| card.memory_total));
        let memory = parts(&container.used, of);
        let limit = container.memory_limit.map_or_else(|| "no limit of memory".to_owned(), bytes);
        let share =
            container.core_limit.map_or_else(|| "no share".to_owned(), |share| format!("share {share}%"));
        let told = |what: &str, series: &[Option<f64>]| Some(format!("{what} {}", percent(last(series)?)));
        let times = [told("GPU time", &container.busy), told("waited", &container.waiting)];
        let times: Vec<String> = times.into_iter().flatten().collect();
        let refused: u64 = container.denied.iter().flatten().sum();
        let used = last(&container.used).map_or_else(|| "ended".to_owned(), bytes);
        let used = if refused == 0 { used } else { format!("{used}, {refused} refused") };
        let now = [Some(used), Some(times.join(", "))];
        self.row(&container.names.full(), &format!("device {index}, {limit}, {share}"), &memory, &now);
        self.curve("busy", &container.busy);
        self.curve("waiting", &container.waiting);
        if let Some(share) = container.core_limit {
            let y = self.y + HEIGHT * (1.0 - f64::from(share.min(100)) / 100.0);
            self.put(format_args!("<path d=\"M{LEFT} {y:.1}h{CURVES}\" class=\"limit\"/>"));
        }
        for (look, refused) in container.denied.iter().enumerate() {
            if refused.is_some_and(|refused| refused != 0) {
                let (x, y) = (self.x(look), self.y);
                self.put(format_args!("<path d=\"M{x:.1} {y:.1}v10\" class=\"denied\"/>"));
            }
        }
        self.y += ROW;
    }

    /// Names, ground, memory, and what is now.
    fn row(&mut self, name: &str, limits: &str, memory: &[Option<f64>], now: &[Option<String>; 2]) {
        let y = self.y;
        self.text(16.0, y + 18.0, "name", &cut(name, NAME));
        self.text(16.0, y + 35.0, "faint", &cut(limits, NAME + 8));
        self.put(format_args!(
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{CURVES}\" height=\"{HEIGHT}\" class=\"ground\"/>"
        ));
        for (from, run) in runs(memory) {
            let bottom = y + HEIGHT;
            let mut path = format!("M{:.1} {bottom:.1}", self.x(from));
            for (at, part) in run.iter().enumerate() {
                let _infallible = write!(path, "L{:.1} {:.1}", self.x(from + at), self.of(*part));
            }
            let _infallible = write!(path, "L{:.1} {bottom:.1}Z", self.x(from + run.len() - 1));
            self.put(format_args!("<path d=\"{path}\" class=\"memory\"/>"));
        }
        for (line, text) in now.iter().enumerate() {
            self.text(
                LEFT + CURVES + 12.0,
                y + 18.0 + 17.0 * line as f64,
                "faint",
                text.as_deref().unwrap_or(""),
            );
        }
    }

    fn curve(&mut self, class: &str, series: &[Option<f64>]) {
        for (from, run) in runs(series) {
            let points: Vec<String> = run
                .iter()
                .enumerate()
                .map(|(at, part)| format!("{:.1},{:.1}", self.x(from + at), self.of(*part)))
                .collect();
            self.put(format_args!("<polyline points=\"{}\" class=\"{class}\"/>", points.join(" ")));
        }
    }

    fn events(&mut self, events: &[Event]) {
        self.y += 10.0;
        self.line("name", "What has happened, the last one first");
        for event in events.iter().rev().take(EVENTS) {
            let code = messages::of_event(&event.event).code;
            let owner = event.names.full();
            let place = event.device_uuid.as_deref().filter(|_| owner.is_empty()).unwrap_or(&owner);
            self.line(
                "faint",
                &format!("{} {code} {} {place} {}", event.time, event.event, fields::told(event)),
            );
        }
        if events.is_empty() {
            self.line("faint", "Nothing.");
        }
    }

    fn x(&self, look: usize) -> f64 {
        LEFT + CURVES * look as f64 / self.looks.saturating_sub(1).max(1) as f64
    }

    fn of(&self, part: f64) -> f64 {
        self.y + HEIGHT * (1.0 - part.clamp(0.0, 1.0))
    }
}

/// The stretches without gaps: where each begins, and its values.
fn runs(series: &[Option<f64>]) -> Vec<(usize, Vec<f64>)> {
    let mut runs: Vec<(usize, Vec<f64>)> = Vec::new();
    for (at, value) in series.iter().enumerate() {
        let Some(value) = value.filter(|value| value.is_finite()) else { continue };
        match runs.last_mut() {
            Some((from, run)) if *from + run.len() == at => run.push(value),
            _ => runs.push((at, vec![value])),
        }
    }
    runs
}

fn parts(series: &[Option<u64>], of: Option<u64>) -> Vec<Option<f64>> {
    let of = of.filter(|of| *of != 0);
    series.iter().map(|value| Some((*value)? as f64 / of? as f64)).collect()
}

/// The value of the last look.
fn last<T: Copy>(series: &[Option<T>]) -> Option<T> {
    series.last().copied().flatten()
}

fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}

/// So many characters at most.
fn cut(text: &str, most: usize) -> String {
    let text = harmless(text).replace('\n', " ");
    if text.chars().count() <= most { text } else { text.chars().take(most - 1).chain(['…']).collect() }
}

/// Text for XML 1.0, which has no way at all to write some characters.
fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'.. => safe.push(character),
            _ => safe.push('\u{fffd}'),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_part_a_curve_and_what_is_no_number_is_a_gap() {
        let series = [None, Some(0.5), Some(1.0), Some(f64::NAN), Some(0.0)];
        assert_eq!(runs(&series), [(1, vec![0.5, 1.0]), (4, vec![0.0])]);
        assert_eq!(runs(&[]), []);
        assert_eq!(parts(&[Some(1), None], Some(4)), [Some(0.25), None]);
        assert_eq!((parts(&[Some(1)], Some(0)), parts(&[Some(1)], None)), (vec![None], vec![None]));
    }

    #[test]
    fn no_text_can_leave_its_element() {
        assert_eq!(
            escaped("<a b=\"'&\">\u{0}\u{b}\u{ffff}ä"),
            "&lt;a b=&quot;&#39;&amp;&quot;&gt;\u{fffd}\u{fffd}\u{fffd}ä"
        );
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("a\u{1b}b\nc", 99), "a\\x1bb c");
    }

    #[test]
    fn what_was_refused_comes_first_and_a_crowd_is_cut() {
        let of = |name: &str, denied: u64| {
            let names = crate::tools::node::Names { container: name.into(), ..Default::default() };
            Container { names, used: vec![Some(1)], denied: vec![Some(denied)], ..Container::default() }
        };
        let mut containers: Vec<Container> = (0..200).map(|number| of(&format!("c{number:03}"), 0)).collect();
        containers.push(of("refused", 2));
        let past = Past { times: vec!["2026-11-28T00:00:00Z".into()], containers, ..Past::default() };
        let picture = picture(&past, &Node::default(), "a test");
        let at = |name: &str| picture.find(&format!(">{name}<")).unwrap_or(usize::MAX);
        assert!(at("refused") < at("c000") && at("c058") < usize::MAX && at("c059") == usize::MAX);
        assert!(picture.contains("and 141 more with less to tell"));
    }
}
