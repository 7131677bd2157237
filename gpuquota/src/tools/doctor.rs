//! `gpuquota doctor`: is the quota on here, and if not, why?
//!
//! - [`preload`], [`program`], [`process`]: does the library get in; [`driver`]: what it meets; [`limits`], [`region`]: what
//!   it is told; [`agent`]: who schedules; [`kubelet`]: who gives cards away; [`finding`]: what is found; [`elf`]: files of programs and libraries.

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

use super::output;
use crate::error::Error;
use crate::regions::harmless;
use finding::{Finding, Severity};
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

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

    /// Look at this command too: would it be held? It is not started.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Serialize)]
struct Told<'t> {
    severity: Severity,
    findings: &'t [Finding],
}

impl Doctor {
    /// Looks.
    pub fn run(self) -> Result<ExitCode, Error> {
        let mut findings = preload::look(&self.system);
        if let Some(name) = self.command.first() {
            findings.extend(program::look(name));
        }
        findings.extend(self.pid.iter().flat_map(|pid| process::look(*pid)));
        findings.extend(limits::look(&self.system));
        findings.extend(region::look(&self.system));
        findings.extend(driver::look(&self.system));
        findings.extend(agent::look());
        findings.extend(kubelet::look(&self.system));
        let severity = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Fine);
        let text = if self.json {
            output::json(&Told { severity, findings: &findings })
        } else {
            findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
            findings.iter().map(people).collect()
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
