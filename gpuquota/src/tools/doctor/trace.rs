//! `--trace`: the command is run under the library, which tells each function of the driver that is asked for (`src/trace.rs`); what
//! is linked is read from the files. So it is known what was asked for, and not how often it was called.

use super::driver::{file_name, mapped};
use super::elf::{self, Elf};
use super::finding::Finding;
use super::surface::{Standing, Surface, is_api};
use crate::environment::Environment;
use crate::error::Error;
use crate::run::{driver, home, library};
use crate::tools::messages::{TRACED, TRACED_UNKNOWN};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Where the library writes look-ups.
const VARIABLE: &str = "GPUQUOTA_TRACE";
/// Names that a sentence lists.
const LISTED: usize = 8;

/// One function of the driver that the program asked for.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub name: String,
    pub standing: Standing,
    /// `linked`, `dlsym` or `cuGetProcAddress`.
    pub doors: BTreeSet<&'static str>,
}

/// What was seen.
pub struct Trace {
    pub findings: Vec<Finding>,
    pub entries: Vec<Entry>,
}

/// Runs the command to its end. `has_stdout`: whether it may write there.
pub fn run(command: &[OsString], has_stdout: bool) -> Result<Trace, Error> {
    let Some((name, arguments)) = command.split_first() else {
        return Err(Error::Asked("--trace runs a command: gpuquota doctor --trace -- COMMAND".to_owned()));
    };
    let library = library::find()?;
    let file = File::new().map_err(Error::system("make a file for the trace"))?;
    let mut child = Command::new(name);
    child.args(arguments).env(VARIABLE, &file.0);
    child.env("LD_PRELOAD", library::preload(&library, std::env::var_os("LD_PRELOAD").as_deref())?);
    let home = if Environment::inherited().region()?.is_none() { Some(home::Home::fresh()?) } else { None };
    if let Some(home) = &home {
        child.env("GPUQUOTA_REGION", home.path());
    }
    if !has_stdout {
        let stderr = io::stderr().as_fd().try_clone_to_owned().map_err(Error::system("use stderr"))?;
        child.stdout(Stdio::from(stderr));
    }
    let status =
        child.status().map_err(|source| Error::Command { name: name.display().to_string(), source })?;
    let asked = fs::read_to_string(&file.0).map_err(Error::system("read the trace"))?;
    let entries = entries(&asked, &linked(name), &exports());
    Ok(Trace { findings: findings(&entries, status), entries })
}

/// A file of this user alone, which goes with this value.
struct File(PathBuf);

impl File {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("gpuquota-trace-{}", std::process::id()));
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self(path))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The functions of the driver and of NVML, if they are here; otherwise nothing is known of them.
fn exports() -> Option<BTreeSet<String>> {
    let is_driver = |path: &&PathBuf| {
        ["libcuda.so", "libnvidia-ml.so"].iter().any(|name| file_name(path).starts_with(name.as_bytes()))
    };
    let mapped = if driver::is_there() { mapped() } else { BTreeSet::new() };
    let all = mapped
        .iter()
        .filter(is_driver)
        .filter_map(|path| Some(Elf::parse(&elf::read(path).ok()?)?.exports()));
    Some(all.flatten().collect()).filter(|all: &BTreeSet<String>| !all.is_empty())
}

/// What the program and the libraries that it is linked to take from the driver, by their own symbol tables.
fn linked(name: &OsStr) -> BTreeSet<String> {
    let Some(program) = super::program::real(name) else { return BTreeSet::new() };
    let listed = Command::new("ldd").arg(&program).output();
    let listed =
        listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let libraries =
        listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let is_ours = |path: &&Path| {
        let own = ["libcuda.so", "libnvidia-ml.so", "libgpuquota.so"];
        own.iter().any(|name| file_name(path).starts_with(name.as_bytes()))
    };
    let files = libraries.map(Path::new).filter(|path| !is_ours(path)).chain([program.as_path()]);
    let imports = files.filter_map(|path| Some(Elf::parse(&elf::read(path).ok()?)?.all_imports()));
    imports.flatten().filter(|name| is_api(name)).collect()
}

fn entries(asked: &str, linked: &BTreeSet<String>, exports: &Option<BTreeSet<String>>) -> Vec<Entry> {
    let Some(surface) = Surface::of_library() else { return Vec::new() };
    let mut found: BTreeMap<(String, Standing), BTreeSet<&'static str>> = BTreeMap::new();
    let is_there = |name: &str| exports.as_ref().is_none_or(|exports| exports.contains(name));
    let mut put = |name: &str, standing, door| {
        found.entry((name.to_owned(), standing)).or_default().insert(door);
    };
    for name in linked.iter().filter(|name| is_there(name)) {
        put(name, surface.standing(name), "linked");
    }
    for line in asked.lines() {
        let mut words = line.split(' ');
        let (Some(door), Some(held), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let standing = if held == "held" { Standing::Held } else { surface.unheld(name) };
        match door {
            "dlsym" if is_api(name) && is_there(name) => put(name, standing, "dlsym"),
            // The driver has answered, by the name without its version.
            "cuGetProcAddress" => put(name, standing, "cuGetProcAddress"),
            _ => {}
        }
    }
    found.into_iter().map(|((name, standing), doors)| Entry { name, standing, doors }).collect()
}

fn findings(entries: &[Entry], status: ExitStatus) -> Vec<Finding> {
    let of = |standing: Standing| -> Vec<&str> {
        let wanted = entries.iter().filter(|entry| entry.standing == standing);
        wanted.map(|entry| entry.name.as_str()).collect()
    };
    let [held, passed, unknown] = [Standing::Held, Standing::Passed, Standing::Unknown].map(of);
    let ended = format!("The command ended with {status}");
    if entries.is_empty() {
        let says = format!("{ended} and asked for no function of the driver.");
        return vec![Finding::note(&TRACED, says)];
    }
    let says = format!(
        "{ended}. It asked for {} functions: {} are held, {} are left alone for a reason, {} are unknown.",
        entries.len(),
        held.len(),
        passed.len(),
        unknown.len()
    );
    let mut findings = vec![Finding::fine(&TRACED, says)];
    if !unknown.is_empty() {
        let some = unknown[..unknown.len().min(LISTED)].join(", ");
        let says = format!("The program asked for {}, among them {some}.", unknown.len());
        findings.push(Finding::warning(&TRACED_UNKNOWN, says));
    }
    findings
}

/// For people: a line for each.
pub fn people(entries: &[Entry]) -> String {
    let mut lines: Vec<String> = entries
        .iter()
        .map(|Entry { name, standing, doors }| {
            let word = match standing {
                Standing::Held => "held",
                Standing::Passed => "passed",
                Standing::Unknown => "unknown",
            };
            let doors: Vec<&str> = doors.iter().copied().collect();
            crate::regions::harmless(&format!("{word:7} {name} ({})", doors.join(", "))) + "\n"
        })
        .collect();
    lines.sort();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_listed_once_by_door_and_nonsense_is_passed_over() {
        let asked = "dlsym passed cuOther\ncuGetProcAddress held cuInit\ndlsym held cuInit\ndlsym passed cudaMalloc\nx\n\n";
        let exports = Some(["cuInit".to_owned()].into());
        let told = entries(asked, &BTreeSet::new(), &exports);
        let told: Vec<_> = told.iter().map(|entry| (entry.name.as_str(), entry.doors.len())).collect();
        // Without a library beside this program nothing can be said.
        assert!(told.is_empty() || told == [("cuInit", 2)], "{told:?}");
    }
}
