//! The command's life: start it, pass signals on, and end as it ended.

use crate::error::Error;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getpid, kill_process,
};
use rustix::process::{pidfd_open, pidfd_send_signal, setrlimit, waitid};
use signal_hook::consts::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::Cause;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

/// Signals that are meant for the command when they reach us.
const PASSED_ON: [i32; 9] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH, SIGCONT];

/// How a command ended.
pub struct Ended(ExitStatus);

/// Runs the command to its end.
pub fn run(command: &mut Command, name: &OsStr) -> Result<Ended, Error> {
    // Before the command exists, so that no signal is lost between.
    let signals = listen().map_err(Error::system("listen for signals"))?;
    let mut child =
        command.spawn().map_err(|source| Error::Command { name: name.display().to_string(), source })?;
    let pid = Pid::from_child(&child);
    let target = Arc::new(Target {
        pid,
        handle: pidfd_open(pid, PidfdFlags::empty()).ok(),
        reaped: Mutex::new(false),
    });
    let passing = Arc::clone(&target);
    std::thread::spawn(move || pass_on(signals, &passing));
    // As long as nobody has waited for it, its number is no other process's.
    let left = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(pid), left).is_err_and(|error| error == Errno::INTR) {}
    *target.reaped.lock().unwrap_or_else(PoisonError::into_inner) = true;
    child.wait().map(Ended).map_err(Error::system("wait for the command"))
}

/// The command, to send signals to.
struct Target {
    pid: Pid,
    /// It names this child for ever, and never a later process of the same number. Kernels before 5.3 have none, and some
    /// sandboxes forbid it.
    handle: Option<OwnedFd>,
    /// Whether its number may be another process's by now.
    reaped: Mutex<bool>,
}

impl Target {
    fn send(&self, signal: Signal) {
        let by_handle = |handle: &OwnedFd| pidfd_send_signal(handle, signal).is_ok();
        if self.handle.as_ref().is_some_and(by_handle) {
            return;
        }
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            // Gone is fine: the main thread is about to find out.
            let _ = kill_process(self.pid, signal);
        }
    }
}

/// Listens for the signals to pass on, except those that were ignored from the start (nohup): they stay ignored,
/// and the command inherits that.
fn listen() -> std::io::Result<SignalsInfo<WithOrigin>> {
    let ignored = ignored();
    let is_ignored = |signal: i32| ignored >> (signal - 1) & 1 == 1;
    SignalsInfo::new(PASSED_ON.iter().filter(|signal| !is_ignored(**signal)))
}

/// The signals that this process ignores, signal n as bit n - 1.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn pass_on(mut signals: SignalsInfo<WithOrigin>, command: &Target) {
    for origin in &mut signals {
        // What the kernel sends (Ctrl-C, a hang-up) goes to the whole process group: the command has it already.
        if origin.cause == Cause::Kernel {
            continue;
        }
        if let Some(signal) = Signal::from_named_raw(origin.signal) {
            command.send(signal);
        }
    }
}

impl Ended {
    /// Ends as the command ended: its exit status, or its signal.
    pub fn repeat(self) -> ExitCode {
        let Some(signal) = self.0.signal() else {
            return ExitCode::from(self.0.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        };
        // The command's core is enough.
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let _ = signal_hook::low_level::emulate_default_handler(signal);
        if let Some(signal) = Signal::from_named_raw(signal) {
            let _ = kill_process(getpid(), signal);
        }
        // A signal without a default that ends a process; shells say it so.
        ExitCode::from(u8::try_from(signal).map_or(255, |signal| signal.saturating_add(128)))
    }
}
