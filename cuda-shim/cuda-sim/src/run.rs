//! A command on a machine: its environment, its signals, its end.
//!
//! # Safety
//! Signal dispositions have no safe interface in the standard library: this room installs one handler, which only
//! calls `kill` on a process id in an atomic, and at the end takes it off again.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::{env, io};

use cuda_shim_device::{Machine, PRESETS, STATE_ENV};

use crate::description;
use crate::interference::Quota;
use crate::libdir::libdir;
use crate::states::{Outcome, prepare};

static CHILD: AtomicI32 = AtomicI32::new(0);

/// Signals that are meant for the command.
const FORWARDED: [i32; 5] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

extern "C" fn forward(signal: i32) {
    let child = CHILD.load(Relaxed);
    if child > 0 {
        // SAFETY: kill is async-signal-safe; the child has not been waited for while its id stands here.
        unsafe { libc::kill(child, signal) };
    }
}

/// Runs `command` on `machine` and ends as it ends.
pub fn run(
    machine: &Machine,
    state: Option<&str>,
    quota: Option<Quota>,
    command: &[OsString],
) -> Outcome<ExitCode> {
    let libraries = libdir()?;
    let state = prepare(state, machine)?;
    let mut path = libraries.into_os_string();
    if let Some(existing) = env::var_os("LD_LIBRARY_PATH").filter(|existing| !existing.is_empty()) {
        path.push(":");
        path.push(existing);
    }
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let mut started = Command::new(program);
    started.args(arguments).env("LD_LIBRARY_PATH", path).env(STATE_ENV, &state.path);
    if quota.is_some() {
        started.process_group(0);
    }
    let mut child = started.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
    CHILD.store(child.id() as i32, Relaxed);
    for signal in FORWARDED {
        // SAFETY: installs the handler above.
        unsafe { libc::signal(signal, forward as *const () as libc::sighandler_t) };
    }
    let ended = match quota {
        Some(quota) => quota.pace(&mut child),
        None => wait(&mut child),
    };
    let status = ended.map_err(|error| format!("{}: {error}", program.display()))?;
    CHILD.store(0, Relaxed);
    drop(state);
    Ok(end_as(status))
}

/// The machine that is meant: a built-in one, or a file's.
pub fn describe(machine: &str, ideal: bool) -> Outcome<Machine> {
    if let Some(preset) = Machine::preset(machine) {
        return Ok(if ideal { preset.ideal() } else { preset });
    }
    let path = Path::new(machine);
    if machine.contains(['/', '.']) || path.exists() {
        return description::read(path, ideal);
    }
    let known = PRESETS.join(", ");
    Err(format!(
        "machine \"{machine}\" is not known: write one of {known}, several of one, such as 2xH100, split ones, such as \
         H100-MIG-3g.40gb, or the path of a machine file"
    ))
}

/// The machine with these rules for kernels behind its own.
pub fn with_kernels(mut machine: Machine, kernels: &[String]) -> Outcome<Machine> {
    for rule in kernels {
        machine.kernels.push(rule.parse()?);
    }
    Ok(machine)
}

fn wait(child: &mut std::process::Child) -> io::Result<ExitStatus> {
    loop {
        match child.wait() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            ended => return ended,
        }
    }
}

/// The command's status, or its death by the same signal.
fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // SAFETY: restores the default and ends this process by the signal that ended the command.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
        return ExitCode::from((128 + signal) as u8);
    }
    ExitCode::from(status.code().unwrap_or(1) as u8)
}
