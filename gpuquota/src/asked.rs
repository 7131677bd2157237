//! Limits of a command line, read by the library's own rules.

use crate::environment::Environment;
use crate::error::Error;
use gpuquota_quota::limits::{self, Limits, Origin, Severity};
use gpuquota_quota::text::Line;
use std::ffi::OsString;

const MEMORY: &str = "GPUQUOTA_MEMORY";
const CORES: &str = "GPUQUOTA_CORES";
const REQUEST: &str = "GPUQUOTA_CORES_REQUEST";

/// What was asked, as the variables that the library reads.
pub struct Asked(Vec<(&'static str, OsString)>);

impl Asked {
    /// The values of `--memory`, `--cores`, `--cores-request` and `--mode`.
    pub fn new(memory: &[String], cores: &[String], request: &[String], mode: Option<&str>) -> Self {
        let list = |values: &[String]| (!values.is_empty()).then(|| OsString::from(values.join(",")));
        let mode = mode.map(OsString::from);
        let lists = [(MEMORY, list(memory)), (CORES, list(cores)), (REQUEST, list(request))];
        let all = lists.into_iter().chain([("GPUQUOTA_MODE", mode)]);
        Self(all.filter_map(|(name, value)| Some((name, value?))).collect())
    }

    /// The variables.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &OsString)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// What they say. Refuses what the library could not understand, in the words of the command line.
    pub fn limits(&self) -> Result<Limits, Error> {
        let environment = Environment::of(&self.0);
        let reading = limits::read(&|name| environment.get(name), None);
        match reading.problems.iter().find(|problem| problem.reason.severity() == Severity::Error) {
            None => Ok(reading.limits),
            Some(problem) => {
                let option = match problem.origin {
                    Origin::Env(name) if name.as_bytes() == MEMORY.as_bytes() => "--memory",
                    Origin::Env(name) if name.as_bytes() == CORES.as_bytes() => "--cores",
                    Origin::Env(name) if name.as_bytes() == REQUEST.as_bytes() => "--cores-request",
                    _ => "--mode",
                };
                let mut line = Line::<512>::new();
                line.push_str(option).push_str(" \"").push_escaped(problem.value(), 48).push_str("\": ");
                problem.write_reason(&mut line);
                Err(Error::Asked(line.to_string()))
            }
        }
    }
}
