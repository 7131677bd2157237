//! What is done about a process that uses a card past its container's limits.

use super::process::Subject;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

/// The operator's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// Say so.
    #[default]
    Report,
    /// Stop the process (SIGSTOP), again whenever somebody lets it go on.
    Freeze,
    /// Kill it.
    Kill,
}

impl Policy {
    /// Does it to this very process. `is_still` is asked once more when no other process can take its place any more.
    pub fn act(
        self,
        subject: &Subject,
        is_still: impl FnOnce() -> bool,
    ) -> Result<Option<&'static str>, String> {
        let (signal, word) = match self {
            Self::Report => return Ok(None),
            Self::Freeze => (Signal::STOP, "frozen"),
            Self::Kill => (Signal::KILL, "killed"),
        };
        let pid = i32::try_from(subject.pid).ok().and_then(Pid::from_raw).ok_or("it has no pid")?;
        if pid.is_init() || pid == getpid() {
            return Err("it is the agent, or the node's first process".to_owned());
        }
        // From here on the descriptor means one process. If its pid still has the start time that was seen, it is that one.
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string())?;
        if !subject.lives() {
            return Err("it has ended".to_owned());
        }
        if !is_still() {
            return Err("it is counted now, or has left the card".to_owned());
        }
        pidfd_send_signal(process, signal).map_err(|error| error.to_string())?;
        Ok(Some(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::identity::Cgroup;
    use gpuquota_region::lock::process_stat;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    fn child() -> (Child, Subject) {
        let child = Command::new("sleep").arg("100").spawn().expect("a process");
        let pid = child.id();
        let start_time = process_stat(pid).expect("it lives").start_time;
        let subject = Subject {
            pid,
            start_time,
            own_pid: pid,
            home: None,
            cgroup: Cgroup::default(),
            command: "sleep".into(),
        };
        (child, subject)
    }

    #[test]
    fn another_process_of_the_same_pid_is_not_hit() {
        let (mut child, subject) = child();
        let before = Subject { start_time: subject.start_time - 1, ..subject.clone() };
        assert!(Policy::Kill.act(&before, || true).is_err());
        assert!(Policy::Kill.act(&subject, || false).is_err());
        assert_eq!(Policy::Report.act(&subject, || true), Ok(None));
        assert!(child.try_wait().expect("a state").is_none(), "it lives");
        assert_eq!(Policy::Kill.act(&subject, || true), Ok(Some("killed")));
        assert_eq!(child.wait().expect("its end").signal(), Some(9));
        assert!(Policy::Kill.act(&subject, || true).is_err(), "nobody is left");
    }

    #[test]
    fn neither_the_agent_nor_the_first_process_is_hit() {
        for pid in [0, 1, std::process::id()] {
            let (mut child, subject) = child();
            assert!(Policy::Freeze.act(&Subject { pid, ..subject }, || true).is_err());
            child.kill().expect("a kill");
            child.wait().expect("its end");
        }
    }
}
