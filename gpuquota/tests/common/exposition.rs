//! A strict reader of Prometheus's text format (version 0.0.4): it panics at whatever the format does not allow, and at what
//! Prometheus takes and nobody should write.

// Every test file is a crate of its own and uses its part of this.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

/// One value with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// One family of metrics.
#[derive(Clone, Debug)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

/// Every family by its name.
pub fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut series = BTreeSet::new();
    let mut open = String::new();
    let mut help = None;
    for line in text.split_terminator('\n') {
        assert!(!line.contains('\r') && !line.is_empty(), "an empty line or a CR: {line:?}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(!families.contains_key(name), "{name} begins twice");
            assert!(!words.trim().is_empty(), "no help: {line}");
            help = Some((name.to_owned(), words.to_owned()));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            let (helped, words) = help.take().unwrap_or_else(|| panic!("no help before {line}"));
            assert_eq!(helped, name, "another family's help");
            assert!(is_name(name), "{line}");
            let family = Family { kind: kind.to_owned(), help: words, samples: Vec::new() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} begins twice");
            open = name.to_owned();
        } else {
            assert!(!line.starts_with('#'), "a comment: {line}");
            assert!(help.is_none(), "a sample between help and type: {line}");
            let sample = sample(line);
            assert!(series.insert((sample.name.clone(), sample.labels.clone())), "twice: {line}");
            let family = families.get_mut(&open).unwrap_or_else(|| panic!("a sample of no family: {line}"));
            let is_own = match family.kind.as_str() {
                "histogram" => {
                    ["_bucket", "_sum", "_count"].map(|end| format!("{open}{end}")).contains(&sample.name)
                }
                _ => sample.name == open,
            };
            assert!(is_own, "a sample of another family than {open}: {line}");
            assert!(!sample.value.is_nan() && sample.value >= 0.0, "{line}");
            family.samples.push(sample);
        }
    }
    assert!(help.is_none(), "help without a type at the end");
    families
        .iter()
        .filter(|(_, family)| family.kind == "histogram")
        .for_each(|(name, family)| histogram(name, family));
    families
}

/// Buckets grow, and the last one is the count.
fn histogram(name: &str, family: &Family) {
    let mut buckets: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in family.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
        let mut labels = sample.labels.clone();
        let bound = labels.remove("le").unwrap_or_else(|| panic!("{name}: a bucket without le"));
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a number") };
        buckets.entry(labels).or_default().push((bound, sample.value));
    }
    for (labels, buckets) in buckets {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}{labels:?}: {buckets:?}");
        let of = |end: &str| {
            let name = format!("{name}{end}");
            let sample = family.samples.iter().find(|sample| sample.name == name && sample.labels == labels);
            sample.unwrap_or_else(|| panic!("no {name}{labels:?}")).value
        };
        assert_eq!(
            buckets.last().map(|(bound, count)| (*bound, *count)),
            Some((f64::INFINITY, of("_count")))
        );
        of("_sum");
    }
}

fn is_name(name: &str) -> bool {
    let first = |first: char| first.is_ascii_alphabetic() || matches!(first, '_' | ':');
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label) && !label.contains(':') && !label.starts_with("__"), "{line}");
            let (value, behind) = value(behind, line);
            assert!(!value.is_empty(), "an empty label is none: {line}");
            assert!(labels.insert(label.to_owned(), value).is_none(), "{label} twice: {line}");
            match behind.split_at_checked(1) {
                Some((",", behind)) => rest = behind,
                Some(("}", behind)) => {
                    rest = behind;
                    break;
                }
                _ => panic!("the labels do not end: {line}"),
            }
        }
    }
    let number = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let value = number.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    Sample { name: name.to_owned(), labels, value }
}

/// A label's value up to its closing quote, and what comes behind that.
fn value<'l>(text: &'l str, line: &str) -> (String, &'l str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                _ => panic!("no escape of the format: {line}"),
            },
            character => {
                assert!(!character.is_control(), "a control character: {line:?}");
                value.push(character);
            }
        }
    }
    panic!("a value does not end: {line}")
}

/// `promtool check metrics` has nothing to say of this.
pub fn check_by_promtool(text: &str) {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let program = std::env::var_os("GPUQUOTA_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let mut checking = Command::new(program);
    checking.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut checking = checking.spawn().expect("promtool, of Debian's package prometheus, starts");
    checking.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let checked = checking.wait_with_output().expect("it ends");
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
