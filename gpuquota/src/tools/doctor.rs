//! `gpuquota doctor`: is the quota on here, and if not, why?
//!
//! - [`preload`], [`program`], [`process`]: does the library get in; [`driver`]: what it meets; [`limits`], [`region`]: what
//!   it is told; [`agent`]: who schedules; [`kubelet`]: who gives cards away; [`mod@trace`]: what a program asks the driver for;
//!   [`surface`]: what the library does about it; [`finding`]: what is found; [`elf`]: files of programs and libraries.

mod agent;
mod driver;
mod elf;
mod finding;
mod kubelet;
mod limits;
mod preload;
mod process;
mod program;
mod region;
mod surface;
mod trace;

use super::output;
use crate::error::Error;
use crate::regions::harmless;
use finding::{Finding, Severity};
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use trace::Entry;

/// Find out whether the quota is on, here or for a command, and why not.
///
/// Each finding has a code, a reason and a next step. The exit status is 0 if nothing is worse than a note, 3 after a
/// warning, 4 after an error.
#[derive(clap::Args)]
pub struct Doctor {
    /// As JSON, one object.
    #[arg(long)]
    json: bool,

    /// Look at this running process too. May be given several times.
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,

    /// Look at the files /etc, /dev and /usr below this directory, such as /proc/PID/root of a container's process.
    #[arg(long, value_name = "DIR", default_value = "/")]
    system: PathBuf,

    /// Run the command, to its end, and tell which functions of the driver it asks for: held by the library, left alone for a
    /// reason, or unknown.
    #[arg(long, requires = "command")]
    trace: bool,

    /// Look at this command too: would it be held? It is not started without --trace.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Serialize)]
struct Told<'t> {
    severity: Severity,
    findings: &'t [Finding],
    /// What the command asked the driver for.
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<&'t [Entry]>,
}

impl Doctor {
    /// Looks.
    pub fn run(self) -> Result<ExitCode, Error> {
        let mut findings = preload::look(&self.system);
        if let Some(name) = self.command.first() {
            findings.extend(program::look(name));
        }
        // What cannot be started is told by what the look has found.
        let can_run = self.command.first().is_some_and(|name| program::real(name).is_some());
        let traced = if self.trace && can_run { Some(trace::run(&self.command, !self.json)?) } else { None };
        let entries = traced.map(|traced| {
            findings.extend(traced.findings);
            traced.entries
        });
        findings.extend(self.pid.iter().flat_map(|pid| process::look(*pid)));
        findings.extend(limits::look(&self.system));
        findings.extend(region::look(&self.system));
        findings.extend(driver::look(&self.system));
        findings.extend(agent::look());
        findings.extend(kubelet::look(&self.system));
        let severity = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Fine);
        let text = if self.json {
            output::json(&Told { severity, findings: &findings, entries: entries.as_deref() })
        } else {
            findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
            let listed = entries.as_deref().map(trace::people).filter(|listed| !listed.is_empty());
            let listed = listed.map(|listed| format!("\nWhat the command asked the driver for:\n{listed}"));
            findings.iter().map(people).collect::<String>() + &listed.unwrap_or_default()
        };
        output::write(&text)?;
        Ok(match severity {
            Severity::Fine | Severity::Note => ExitCode::SUCCESS,
            Severity::Warning => ExitCode::from(3),
            Severity::Error => ExitCode::from(4),
        })
    }
}

fn people(finding: &Finding) -> String {
    let Finding { message, severity, says, .. } = finding;
    let first =
        format!("{:7} {} {}\n        {}\n", severity.word(), message.code, message.title, harmless(says));
    match severity {
        Severity::Fine => first,
        _ => format!("{first}        Next: {}\n", message.next),
    }
}
