//! `gpuquota enforce`: ten users on one card, without containers. The machine's own folders are tmpfs in a mount namespace of the
//! test's; that takes root.

use std::process::{Command, ExitCode};
use std::time::Duration;

use gpuquota_promises::{
    GIB, Machine, NO_NAMESPACE, Outcome, Program, Scratch, Verdict, artifact, mount_namespace, own_etc,
    program, start_after, trials, twice,
};

fn main() -> ExitCode {
    trials(&[
        ("ten_users_on_one_card_have_caps_of_their_own", ten_users),
        ("users_on_one_card_have_their_shares", shares),
        ("all_of_a_cgroup_have_one_cap_whoever_s_they_are", cgroup),
        ("gpuquota_run_composes_with_what_is_enforced", composes),
        ("a_user_namespace_of_one_s_own_lifts_no_limit", user_namespace),
        ("one_command_takes_everything_back", undo),
        ("what_cannot_be_enforced_is_refused_and_nothing_is_changed", refused),
    ])
}

/// A machine with folders of its own, on which gpuquota is installed; it ends with this value.
struct Workstation {
    machine: Machine,
    _etc: Scratch,
    holder: Option<Program>,
    pid: i64,
}

const NO_ROOT: &str = "only root can make a machine with users";

impl Workstation {
    fn new() -> Result<Self, Verdict> {
        let options = mount_namespace().ok_or_else(|| Verdict::Skipped(NO_NAMESPACE.into()))?;
        if options.len() != 1 {
            return Err(Verdict::Skipped(NO_ROOT.into()));
        }
        let etc = Scratch::new();
        let folders = ["/run", "/usr/local/lib", "/usr/local/bin", "/var/lib"];
        let mounts: Vec<String> =
            folders.iter().map(|folder| format!("mount -t tmpfs none {folder}")).collect();
        let script = format!(
            "{}; rm -f /etc/ld.so.preload; echo ann:x:1777:1777::/: >> /etc/passwd; {}; echo pid=$$",
            own_etc(&etc),
            mounts.join("; ")
        );
        let mut holder = start_after(options, &script, Command::new("cat"));
        let pid = holder.wait_for("pid");
        let own = Self { machine: Machine::new("H100"), _etc: etc, holder: Some(holder), pid };
        let plain = own.as_user(2001, own.machine.bare().command(program("hold"), &[]));
        if !Program::start(plain).finish().status.success() {
            return Err(Verdict::Skipped("nobody here may start programs as another user".into()));
        }
        own.gpuquota(&["install"]).success();
        Ok(own)
    }

    /// A command on this machine.
    fn here(&self, command: &Command) -> Command {
        let mut all = Command::new("nsenter");
        all.arg(format!("--mount=/proc/{}/ns/mnt", self.pid));
        all.arg(command.get_program()).args(command.get_args());
        all
    }

    /// A command of a user, in the group of the same number.
    fn as_user(&self, user: u32, command: Command) -> Command {
        let mut all = Command::new("setpriv");
        let user = user.to_string();
        all.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        all.arg(command.get_program()).args(command.get_args());
        self.here(&all)
    }

    /// gpuquota, as root.
    fn gpuquota(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new(artifact("gpuquota"));
        command.args(words);
        Program::start(self.here(&command)).finish()
    }

    /// A program of a user that holds memory as it is told.
    fn holding(&self, user: u32) -> Program {
        let command = self.machine.bare().command(program("hold"), &[]);
        let mut program = Program::start(self.as_user(user, command));
        program.wait_for("pid");
        program
    }

    /// What such a program sees of the card.
    fn total(&self, user: u32) -> i64 {
        let mut program = self.holding(user);
        let total = program.ask("info", "total");
        program.finish().success();
        total
    }
}

impl Drop for Workstation {
    fn drop(&mut self) {
        drop(self.holder.take().map(Program::kill));
    }
}

macro_rules! workstation {
    () => {
        match Workstation::new() {
            Ok(workstation) => workstation,
            Err(skipped) => return skipped,
        }
    };
}

const CARD: i64 = 80 * GIB;

fn ten_users() -> Verdict {
    let lab = workstation!();
    let rules =
        ["enforce", "--each", "2GiB-8", "--user", "2001=3GiB-20", "--group", "2002=1GiB", "--exempt", "2010"];
    lab.gpuquota(&rules).success();
    let caps = |user: u32| match user {
        2001 => 3 * GIB,
        2002 => GIB,
        2010 => CARD,
        _ => 2 * GIB,
    };
    let mut programs: Vec<(u32, Program)> = (2001..=2010).map(|user| (user, lab.holding(user))).collect();
    for (user, program) in &mut programs {
        assert_eq!(program.ask("info", "total"), caps(*user), "{user}");
        assert_eq!(program.ask(&format!("alloc {}", GIB / 4), "rc"), 0, "{user}");
        let (most, refused) = if *user == 2010 { (4 * GIB, 0) } else { (caps(*user), 2) };
        assert_eq!(program.ask(&format!("alloc {most}"), "rc"), refused, "{user}");
    }
    // A second program of a user has what the first one left, also where a variable asks for more or names another region.
    for (name, value) in
        [("GPUQUOTA_MEMORY", "64GiB"), ("GPUQUOTA_MODE", "off"), ("GPUQUOTA_REGION", "/tmp/own.cache")]
    {
        let command = lab.machine.bare().with(name, value).command(program("hold"), &[]);
        let mut second = Program::start(lab.as_user(2001, command));
        second.wait_for("pid");
        assert_eq!(second.ask(&format!("alloc {}", 2 * GIB), "rc"), 2, "{name}");
        second.finish().success();
    }
    assert_eq!(lab.total(0), CARD, "root has no limit");
    let told = lab.gpuquota(&["inspect"]).success();
    for region in ["/run/gpuquota/user-2001.cache", "/run/gpuquota/others/2003.cache"] {
        assert!(told.out.contains(region), "{told}");
    }
    assert_eq!(told.stderr, "", "files of users who have run nothing yet are no news");
    // A user whom the machine knows has a region that nobody else can open; its memory is nobody's to write.
    let mut look = Command::new("sh");
    look.args([
        "-c",
        "stat -c %U=%a /run/gpuquota/others/1777.cache; echo x >> /run/gpuquota/others/1777.cache",
    ]);
    let told = Program::start(lab.as_user(2003, look)).finish();
    assert!(told.out.contains("=600") && !told.status.success(), "{told}");
    // Its own user can neither remove nor replace a region that root made.
    let mut remove = Command::new("rm");
    remove.args(["-f", "/run/gpuquota/user-2001.cache"]);
    assert!(!Program::start(lab.as_user(2001, remove)).finish().status.success());
    for (_, program) in programs {
        program.finish().success();
    }
    Verdict::Kept
}

fn shares() -> Verdict {
    let lab = workstation!();
    lab.gpuquota(&["enforce", "--each", "10%", "--user", "2001=30%", "--user", "2002=4GiB-20"]).success();
    let mut agent = Command::new(artifact("gpuquota"));
    agent.args(["agent", "--listen", "127.0.0.1:0"]);
    agent.args(["--root", "/run/gpuquota", "--root", "/run/gpuquota/others"]);
    let agent = Program::start(lab.here(&agent));
    let wanted = [30.0, 20.0, 10.0];
    let attempt = || {
        let start = |user: u32| {
            let arguments = ["busy_1ms", "told", "plain", "4", "132"];
            let command = lab.machine.bare().command(program("launch_loop"), &arguments);
            let mut program = Program::start(lab.as_user(user, command));
            let pid = program.wait_for("ready");
            (program, pid)
        };
        let programs = [2001, 2002, 2003].map(start);
        std::thread::sleep(Duration::from_secs(1));
        let pids: Vec<i64> = programs.iter().map(|(_, pid)| *pid).collect();
        let busy = || {
            let truth = lab.machine.truth();
            let each = pids.iter().map(|pid| truth.busy_ns_of(&[*pid])).collect::<Vec<_>>();
            (truth.clock_ns(), each)
        };
        let (start, before) = busy();
        std::thread::sleep(Duration::from_secs(5));
        let (end, after) = busy();
        let have = before
            .iter()
            .zip(&after)
            .map(|(before, after)| 100.0 * (after - before) as f64 / (end - start) as f64);
        let have: Vec<f64> = have.collect();
        for (program, _) in programs {
            program.kill();
        }
        let kept = have.iter().zip(wanted).all(|(have, wanted)| (have - wanted).abs() < 2.0);
        (have, kept)
    };
    twice(attempt).expect("thirty, twenty and ten percent");
    let told = agent.kill();
    assert!(told.status.code().is_none(), "the agent has ended by itself: {told}");
    Verdict::Kept
}

/// A cgroup of the test's own, of the second version or of the first.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn new() -> Option<Self> {
        let name = format!("gpuquota-test-{}.slice", std::process::id());
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"];
        let root = roots.into_iter().find(|root| std::path::Path::new(root).join("cgroup.procs").exists())?;
        let own = std::path::Path::new(root).join(name);
        std::fs::create_dir(&own).ok()?;
        Some(Self(own))
    }

    fn path(&self) -> String {
        format!("/{}", self.0.file_name().expect("a name").display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn cgroup() -> Verdict {
    let lab = workstation!();
    let Some(group) = Cgroup::new() else {
        return Verdict::Skipped("this machine lets nobody here make a cgroup".into());
    };
    let rule = format!("{}=2GiB", group.path());
    lab.gpuquota(&["enforce", "--each", "4GiB", "--cgroup", &rule]).success();
    let start = |user: u32| {
        let hold = lab.as_user(user, lab.machine.bare().command(program("hold"), &[]));
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo $$ > \"$0/cgroup.procs\"; exec \"$@\""]).arg(&group.0);
        inside.arg(hold.get_program()).args(hold.get_args());
        let mut program = Program::start(inside);
        program.wait_for("pid");
        program
    };
    let (mut one, mut other) = (start(2001), start(2002));
    assert_eq!(one.ask("info", "total"), 2 * GIB);
    assert_eq!(one.ask(&format!("alloc {}", GIB / 2), "rc"), 0);
    assert_eq!(other.ask(&format!("alloc {GIB}"), "rc"), 2, "they have one cap");
    assert_eq!(lab.total(2001), 4 * GIB, "outside of it");
    one.finish().success();
    assert_eq!(other.ask(&format!("alloc {GIB}"), "rc"), 0);
    other.finish().success();
    Verdict::Kept
}

fn composes() -> Verdict {
    let lab = workstation!();
    lab.gpuquota(&["enforce", "--user", "2001=2GiB-30"]).success();
    assert_eq!(lab.total(2002), CARD, "nothing is said of this one");
    for (asked, total) in [("1GiB", GIB), ("64GiB", 2 * GIB)] {
        let mut run = Command::new("/usr/local/bin/gpuquota");
        run.args(["run", "--memory", asked, "--"]);
        let views = lab.machine.bare().command(program("views"), &[]);
        run.arg(views.get_program()).args(views.get_args());
        let outcome = Program::start(lab.as_user(2001, run)).finish().success();
        assert_eq!(outcome.value("total"), total, "{asked}: {outcome}");
    }
    Verdict::Kept
}

/// There a user has any number, root's too.
fn user_namespace() -> Verdict {
    let lab = workstation!();
    let as_root_of_its_own = |command: Command| {
        let mut all = Command::new("unshare");
        all.args(["--user", "--map-root-user"]).arg(command.get_program()).args(command.get_args());
        lab.as_user(2001, all)
    };
    if !Program::start(as_root_of_its_own(Command::new("true"))).finish().status.success() {
        return Verdict::Skipped("this machine lets users make no user namespace".into());
    }
    lab.gpuquota(&["enforce", "--each", "2GiB-10", "--exempt", "2002"]).success();
    let views = || lab.machine.bare().command(program("views"), &[]);
    let outcome = Program::start(as_root_of_its_own(views())).finish().success();
    assert_eq!(outcome.value("total"), 2 * GIB, "{outcome}");
    // Without limits for everybody nobody knows whose it is.
    lab.gpuquota(&["enforce", "--user", "2001=2GiB-10"]).success();
    // A container is told once, and those without limits share a region.
    let region = format!("/tmp/gpuquota-enforce-{}.cache", std::process::id());
    let door = lab.machine.bare().with("GPUQUOTA_REGION", &region).command(program("door_linked"), &[]);
    let outcome = Program::start(as_root_of_its_own(door)).finish();
    let _ = std::fs::remove_file(region);
    assert!(!outcome.status.success() && outcome.stderr.contains("limits of users"), "{outcome}");
    assert!(outcome.stderr.contains("ask the operator"), "{outcome}");
    Verdict::Kept
}

fn undo() -> Verdict {
    let lab = workstation!();
    let files = |lab: &Workstation| {
        let mut list = Command::new("sh");
        list.args(["-c", "cat /etc/ld.so.preload; find /etc/gpuquota /etc/tmpfiles.d -type f 2>/dev/null"]);
        Program::start(lab.here(&list)).finish().out
    };
    let before = files(&lab);
    lab.gpuquota(&["enforce", "--each", "2GiB-10"]).success();
    assert!(files(&lab).contains("libgpuquota.so"));
    let again = lab.gpuquota(&["enforce", "--each", "2GiB-10"]).success();
    let paths = again.out.lines().filter(|line| line.starts_with('/'));
    let news: Vec<_> = paths.filter(|line| !line.ends_with(": unchanged")).collect();
    assert!(news.is_empty(), "{news:?}");
    assert_eq!(lab.total(2001), 2 * GIB);
    let told = lab.gpuquota(&["status"]).success();
    assert!(told.out.contains("/etc/ld.so.preload") && told.out.contains("enforce"), "{told}");
    // Without the library every program of the machine would complain.
    let refused = lab.gpuquota(&["uninstall"]);
    assert!(refused.status.code() == Some(2) && refused.stderr.contains("enforce --undo"), "{refused}");
    let mut running = lab.holding(2001);
    lab.gpuquota(&["enforce", "--undo"]).success();
    assert_eq!(files(&lab), before);
    assert_eq!(running.ask(&format!("alloc {}", 3 * GIB), "rc"), 2, "who runs keeps its limits");
    running.finish().success();
    assert_eq!(lab.total(2001), CARD);
    lab.gpuquota(&["uninstall"]).success();
    Verdict::Kept
}

fn refused() -> Verdict {
    let lab = workstation!();
    let refused = |words: &[&str], told: &[&str]| {
        let outcome = lab.gpuquota(&[&["enforce"], words].concat());
        assert_eq!((outcome.status.code(), outcome.stderr.lines().count()), (Some(2), 1), "{outcome}");
        for word in told {
            assert!(outcome.stderr.contains(word), "{word}: {outcome}");
        }
    };
    refused(&["--user", "nobody-of-that-name=2GiB"], &["--user nobody-of-that-name", "getent passwd"]);
    refused(&["--group", "no such=2GiB"], &["--group no such", "getent group"]);
    refused(&["--user", "2001=2GB"], &["--user 2001", "2GB", "Write"]);
    refused(&["--user", "2001"], &["--user \"2001\"", "WHO=2GiB-30"]);
    refused(&["--user", "4294967295=2GiB"], &["4294967295", "nobody's number"]);
    refused(&["--user", "2001=2GiB", "--exempt", "2001"], &["two limits", "user-2001"]);
    refused(&["--user", "root=2GiB"], &["two limits", "root is exempt"]);
    refused(&["--slice", "user=2GiB"], &["--slice \"user\"", "user-1000.slice"]);
    refused(&["--cgroup", "/a/../b=2GiB"], &["/a/../b", "/proc/PID/cgroup"]);
    lab.gpuquota(&["uninstall"]).success();
    refused(&["--each", "2GiB"], &["libgpuquota.so is not there", "gpuquota install"]);
    let mut list = Command::new("sh");
    list.args(["-c", "ls -d /etc/gpuquota/limits.d /etc/ld.so.preload /var/lib/gpuquota"]);
    let left = Program::start(lab.here(&list)).finish();
    assert_eq!(left.out, "", "a refusal leaves nothing");
    Verdict::Kept
}
