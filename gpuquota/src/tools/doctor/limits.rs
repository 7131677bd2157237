//! What limits programs would bring that are started here.

use super::finding::Finding;
use crate::environment::Environment;
use crate::limits_file::{self, Kind, Unread};
use crate::regions::shown;
use crate::tools::messages::{
    LIMIT_DOUBTFUL, LIMIT_WRONG, LIMITS, LIMITS_UNREADABLE, MISSPELT, NO_LIMIT, NOT_ENFORCED,
};
use crate::tools::source::VARIABLE;
use gpuquota_quota::limits::{self, KNOBS, Key, Mode, Severity};
use gpuquota_quota::text::Line;
use std::path::Path;

/// Variables that are the quota's and set no limit.
const FURTHER: [&str; 4] = ["GPUQUOTA_REGION", "GPUQUOTA_LIBRARY", "GPUQUOTA_TRACE", VARIABLE];
/// What the quota's variables begin with.
const PREFIXES: [&str; 3] = ["GPUQUOTA_", "CUDA_DEVICE_MEMORY", "CUDA_DEVICE_SM"];
/// Another spelling is told up to so many letters off.
const NEAR: usize = 3;

/// The limits, and what is wrong with them.
pub fn look(system: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let file = limits_file::find(system).unwrap_or_else(|Unread { path, why }| {
        findings.push(Finding::error(&LIMITS_UNREADABLE, format!("{}: {why}.", shown(&path))));
        None
    });
    let environment = Environment::inherited();
    let reading = limits::read(&|name| environment.get(name), file.as_ref().map(|file| &file.text[..]));
    for problem in reading.problems.iter() {
        let mut line = Line::<512>::new();
        problem.write(&mut line, reading.consequence());
        let is_error = problem.reason.severity() == Severity::Error;
        let find = if is_error { Finding::error } else { Finding::warning };
        findings.push(find(if is_error { &LIMIT_WRONG } else { &LIMIT_DOUBTFUL }, line.to_string()));
    }
    let exempt = file.as_ref().filter(|file| matches!(file.kind, Kind::Person(_)));
    match (reading.limits.mode, exempt) {
        (Mode::Enforce, _) => {}
        (Mode::Off, Some(file)) => {
            let says = format!("{} exempts this user: no limit holds.", shown(&file.path));
            findings.push(Finding::note(&NOT_ENFORCED, says));
        }
        (Mode::Off, None) => findings.push(Finding::warning(&NOT_ENFORCED, "The mode is off.")),
        (Mode::Observe, _) => findings.push(Finding::warning(&NOT_ENFORCED, "The mode is observe.")),
    }
    if reading.limits.mode != Mode::Off || exempt.is_none() {
        findings.push(in_force(&reading.limits, &environment, file.as_ref().map(|file| file.path.as_path())));
    }
    findings.extend(std::env::vars_os().filter_map(|(name, _)| misspelt(name.to_str()?)));
    findings
}

/// The limits with their origins.
fn in_force(limits: &limits::Limits, environment: &Environment, file: Option<&Path>) -> Finding {
    let is_limit = |key: Key| matches!(key, Key::Memory | Key::Physical | Key::Cores | Key::Request);
    let mut origins: Vec<String> = file.map(|file| format!("the file {}", shown(file))).into_iter().collect();
    for knob in KNOBS.iter().filter(|knob| is_limit(knob.key)) {
        let indexed = (0..16).filter(|_| knob.indexed).map(|index| format!("{}_{index}", knob.name));
        for name in std::iter::once(knob.name.to_owned()).chain(indexed) {
            if let Some(value) = environment.get(&name) {
                origins.push(format!("{name}={}", String::from_utf8_lossy(value)));
            }
        }
    }
    let some = limits.memory.iter().count() + limits.physical.iter().count() + limits.cores.iter().count();
    if some == 0 {
        return Finding::note(&NO_LIMIT, "No limit of memory or of time is set here.");
    }
    Finding::fine(&LIMITS, format!("They come from {}.", origins.join(", ")))
}

/// A variable that looks like one of the quota's.
fn misspelt(name: &str) -> Option<Finding> {
    let is_known = |knob: &limits::Knob| {
        let rest = name.strip_prefix(knob.name);
        let index = rest.and_then(|rest| rest.strip_prefix('_')).filter(|_| knob.indexed);
        rest == Some("") || index.is_some_and(|index| index.parse::<u8>().is_ok())
    };
    let is_agents = name.starts_with("GPUQUOTA_AGENT_");
    if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || is_agents || FURTHER.contains(&name) {
        return None;
    }
    if KNOBS.iter().any(is_known) || name == "CUDA_DEVICE_MEMORY_SHARED_CACHE" {
        return None;
    }
    let all = KNOBS.iter().map(|knob| knob.name).chain(FURTHER);
    let nearest = all.map(|known| (strsim::levenshtein(known, name), known)).min();
    let nearest =
        nearest.filter(|(off, _)| *off <= NEAR).map(|(_, known)| format!(" The nearest one is {known}."));
    Some(Finding::warning(&MISSPELT, format!("Nobody reads {name}.{}", nearest.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_in_the_plural_is_told_with_the_one_that_is_meant() {
        let told = |name: &str| misspelt(name).map(|finding| finding.says);
        assert!(told("GPUQUOTA_MEMORYS").is_some_and(|says| says.ends_with("is GPUQUOTA_MEMORY.")));
        assert!(
            told("CUDA_DEVICE_MEMORY_LIMITS")
                .is_some_and(|says| says.ends_with("is CUDA_DEVICE_MEMORY_LIMIT."))
        );
        assert!(told("GPUQUOTA_SOMETHING_ELSE").is_some_and(|says| says.ends_with("ELSE.")));
        for known in
            ["GPUQUOTA_MEMORY", "CUDA_DEVICE_SM_LIMIT_3", "GPUQUOTA_AGENT_LISTEN", "GPUQUOTA_REGION", "PATH"]
        {
            assert_eq!(told(known), None, "{known}");
        }
    }
}
