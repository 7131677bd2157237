//! A CPU limit that binds, as a container has one: a cgroup of the test's own, with a process that always computes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// So much of each period, microseconds.
const HALF: (&str, &str) = ("50000", "100000");
static MADE: AtomicU32 = AtomicU32::new(0);

/// A cgroup whose processes have half of a processor. One of them always computes, so all are stopped for half of the time.
pub struct CpuLimit {
    folder: PathBuf,
    computes: Option<Child>,
}

impl CpuLimit {
    /// `None` where nobody here may make one.
    pub fn half() -> Option<Self> {
        let name = format!("gpuquota-test-{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"].into_iter().find_map(|root| {
            let folder = Path::new(root).join(&name);
            fs::create_dir(&folder).ok()?;
            let mut own = Self { folder, computes: None };
            let (time, period) = HALF;
            let set = |name: &str, value: &str| fs::write(own.folder.join(name), value);
            let first = set("cpu.cfs_period_us", period).and_then(|()| set("cpu.cfs_quota_us", time));
            first.or_else(|_| set("cpu.max", &format!("{time} {period}"))).ok()?;
            let mut computes = Command::new("sh");
            computes.args(["-c", "while :; do :; done"]);
            own.computes = own.on(&computes).spawn().ok();
            Some(own)
        })
    }

    /// The same command, under it.
    pub fn on(&self, command: &Command) -> Command {
        let mut limited = Command::new("sh");
        limited.args(["-c", "echo $$ >\"$0/cgroup.procs\"; exec \"$@\""]).arg(&self.folder);
        limited.arg(command.get_program()).args(command.get_args());
        limited
    }
}

impl Drop for CpuLimit {
    fn drop(&mut self) {
        if let Some(mut computes) = self.computes.take() {
            let _ = computes.kill();
            let _ = computes.wait();
        }
        let _ = fs::remove_dir(&self.folder);
    }
}
