//! The real nvidia-smi of three drivers, from Debian's packages: on the simulated machine as it is, and under the
//! quota. Where a package is not available the test is skipped with the reason.

use std::process::{Command, ExitCode};
use std::time::Duration;

use gpuquota_promises::{GIB, Machine, Program, Promise, Scratch, Setting, Verdict, fetched, trials};

const CAP: i64 = 8 * GIB;

fn main() -> ExitCode {
    trials(&[
        ("nvidia_smi_of_driver_535_shows_the_slice", || shows_the_slice("bookworm")),
        ("nvidia_smi_of_driver_550_shows_the_slice", || {
            Promise::to(&["HAMi#1340"]).asserts(|| shows_the_slice("trixie"))
        }),
        ("nvidia_smi_of_driver_555_shows_the_slice", || shows_the_slice("experimental")),
        ("nvidia_smi_of_driver_535_shows_the_container_s_own_work", || {
            Promise::to(&["nvtop#110"]).asserts(|| shows_own_work("bookworm"))
        }),
        ("nvidia_smi_of_driver_550_shows_the_container_s_own_work", || {
            Promise::to(&["dcgm-exporter#642"]).asserts(|| shows_own_work("trixie"))
        }),
        ("nvidia_smi_of_driver_555_shows_the_container_s_own_work", || shows_own_work("experimental")),
        ("nvidia_smi_of_driver_535_shows_the_slices_of_instances", || shows_instances("bookworm")),
        ("nvidia_smi_of_driver_550_shows_the_slices_of_instances", || shows_instances("trixie")),
        ("nvidia_smi_of_driver_555_shows_the_slices_of_instances", || shows_instances("experimental")),
    ])
}

fn shows_the_slice(suite: &str) -> Verdict {
    with_tool(suite, "", |machine, tool, version| {
        looked_at(&machine.bare(), tool, machine.truth().device("total_bytes"), version);
        looked_at(&machine.quota().memory(CAP), tool, CAP, version);
    })
}

/// The nvidia-smi of a suite, and a machine with its driver's version and one H100; `more` adds lines to the machine file.
fn with_tool(suite: &str, more: &str, look: impl FnOnce(&Machine, &str, &str)) -> Verdict {
    let folder = match fetched("debian-driver", suite) {
        Ok(folder) => folder,
        Err(why) => return Verdict::Skipped(why),
    };
    // nvidia-smi works only with the driver of its own release.
    let version = std::fs::read_to_string(folder.join("VERSION")).expect("the script writes it");
    let scratch = Scratch::new();
    let file = format!("driver = \"{}\"\n[[device]]\nlike = \"H100\"\n{more}\n", version.trim());
    let machine = Machine::new(scratch.file("machine.toml", file).to_str().expect("text"));
    look(&machine, folder.join("nvidia-smi").to_str().expect("text"), version.trim());
    Verdict::Kept
}

fn shows_instances(suite: &str) -> Verdict {
    const SECOND: &str = "MIG-513dc0da-2330-4000-8000-020000000000";
    with_tool(suite, "mig = [\"3g.40gb\", \"2g.20gb\"]", |machine, tool, _| {
        let list = machine.bare().run_command(tool, &["-L"]).success();
        let instances: Vec<_> = list.out.lines().skip(1).map(str::trim).collect();
        assert!(instances[0].starts_with("MIG 3g.40gb") && instances[1].starts_with("MIG 2g.20gb"), "{list}");
        assert!(instances[1].ends_with(&format!("(UUID: {SECOND})")), "{list}");
        for (setting, totals) in [
            (machine.bare(), ["40960MiB", "20480MiB"]),
            (machine.quota().memory(format!("{SECOND}=2GiB,8GiB")), ["8192MiB", "2048MiB"]),
        ] {
            let setting = setting.with("CUDA_VISIBLE_DEVICES", SECOND);
            let mut holder = setting.start("hold", &[]);
            let pid = holder.wait_for("pid").to_string();
            let table = setting.run_command(tool, &[]).success();
            for total in totals {
                assert!(table.out.split_whitespace().any(|word| word == total), "{total}: {table}");
            }
            let mut lines = table.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let line = lines.find(|words| words.contains(&pid.as_str()));
            let line = line.unwrap_or_else(|| panic!("pid {pid} is not listed: {table}"));
            assert_eq!(line[1..4], ["0", "3", "0"], "GPU, GPU instance, compute instance: {table}");
            holder.finish().success();
        }
    })
}

/// Every view that nvidia-smi has of activity and processes, beside a neighbour that never rests.
fn shows_own_work(suite: &str) -> Verdict {
    with_tool(suite, "", |machine, tool, _| {
        let (bare, quota) = (machine.bare(), machine.quota().memory(CAP));
        let mut neighbour = bare.start("launch_loop", &["busy_5ms", "60"]);
        let neighbour_pid = neighbour.wait_for("ready");
        let mut holder = quota.start("hold", &[]);
        let pid = holder.wait_for("pid");
        assert_eq!(holder.ask(&format!("alloc {GIB}"), "rc"), 0);
        std::thread::sleep(Duration::from_millis(500));
        let whole = Activity::of(&bare, tool);
        assert!(whole.utilization >= 90 && whole.dmon >= 90, "{whole:?}");
        assert!(whole.pmon.contains(&(neighbour_pid, whole.pmon[0].1)), "{whole:?}");
        assert_eq!(whole.apps.len(), 2, "{whole:?}");

        let idle = Activity::of(&quota, tool);
        assert_eq!((idle.utilization, idle.dmon), (0, 0), "{idle:?}");
        assert_eq!(idle.pmon, [(pid, 0)], "{idle:?}");
        assert_eq!(idle.apps, [(pid, idle.used)], "{idle:?}");

        let mut worker = quota.start("launch_loop", &["busy_5ms", "60"]);
        let worker_pid = worker.wait_for("ready");
        std::thread::sleep(Duration::from_millis(1500));
        let own = Activity::of(&quota, tool);
        // Both have the device in turn; a small machine may be late with either.
        assert!((10..=90).contains(&own.utilization) && (10..=90).contains(&own.dmon), "{own:?}");
        let mut named: Vec<_> = own.pmon.iter().map(|(pid, _)| *pid).collect();
        named.sort_unstable();
        let mut expected = [pid, worker_pid];
        expected.sort_unstable();
        assert_eq!(named, expected, "{own:?}");
        assert!(own.pmon.iter().any(|(pid, sm)| *pid == worker_pid && (10..=90).contains(sm)), "{own:?}");
        assert_eq!(own.apps.iter().map(|(_, mib)| mib).sum::<i64>(), own.used, "{own:?}");
        neighbour.kill();
    })
}

/// What nvidia-smi says of device 0, in MiB and percent.
#[derive(Debug)]
struct Activity {
    used: i64,
    utilization: i64,
    dmon: i64,
    /// Pid and percent.
    pmon: Vec<(i64, i64)>,
    /// Pid and MiB.
    apps: Vec<(i64, i64)>,
}

impl Activity {
    fn of(setting: &Setting<'_>, tool: &str) -> Self {
        let rows = |arguments: &[&str]| -> Vec<Vec<String>> {
            let answer = setting.run_command(tool, arguments).success();
            let lines = answer.out.lines().filter(|line| !line.starts_with('#'));
            lines
                .map(|line| {
                    line.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
                })
                .collect()
        };
        let number = |row: &[String], at: usize| row[at].parse().unwrap_or(0);
        let csv = "--format=csv,noheader,nounits";
        let gpu = &rows(&["--query-gpu=memory.used,utilization.gpu", csv])[0];
        let apps = rows(&["--query-compute-apps=pid,used_memory", csv]);
        let dmon = &rows(&["dmon", "-c", "1", "-s", "u"])[0];
        let pmon = rows(&["pmon", "-c", "1"]);
        let activity = Self {
            used: number(gpu, 0),
            utilization: number(gpu, 1),
            dmon: number(dmon, 1),
            pmon: pmon.iter().map(|row| (number(row, 1), number(row, 3))).collect(),
            apps: apps.iter().map(|row| (number(row, 0), number(row, 1))).collect(),
        };
        activity.agrees_with_xml(setting, tool);
        activity
    }

    /// `-q -x` is XML, and says the same.
    fn agrees_with_xml(&self, setting: &Setting<'_>, tool: &str) {
        let xml = setting.run_command(tool, &["-q", "-x"]).success();
        let scratch = Scratch::new();
        let file = scratch.file("nvidia-smi.xml", &xml.out);
        let parse = "import sys, xml.etree.ElementTree as tree
gpu = tree.parse(sys.argv[1]).getroot().find('gpu')
for path in 'fb_memory_usage/total', 'bar1_memory_usage/total', 'bar1_memory_usage/used':
    print(path.replace('/', '_'), gpu.find(path).text.split()[0], sep='=')
for pid in gpu.findall('processes/process_info/pid'):
    print('pid', pid.text, sep='=')";
        let mut reader = Command::new("python3");
        reader.args(["-c", parse]).arg(file);
        let said = Program::start(reader).finish().success();
        let sorted = |mut pids: Vec<i64>| {
            pids.sort_unstable();
            pids
        };
        let pids = self.apps.iter().map(|(pid, _)| *pid).collect();
        assert_eq!(sorted(said.values("pid")), sorted(pids), "{said}");
        let total = said.value("fb_memory_usage_total");
        let window = said.value("bar1_memory_usage_total");
        assert!(window <= total || setting.folder().is_none(), "{said}");
        assert!(said.value("bar1_memory_usage_used") <= window.min(self.used.max(16)), "{said}");
    }
}

/// The tool's output on device 0: its memory and its processes.
fn looked_at(setting: &Setting<'_>, tool: &str, total: i64, version: &str) {
    let list = setting.run_command(tool, &["-L"]).success();
    assert!(list.out.starts_with("GPU 0: NVIDIA H100"), "{list}");

    let mut holder = setting.start("hold", &[]);
    let pid = holder.wait_for("pid");
    assert_eq!(holder.ask(&format!("alloc {GIB}"), "rc"), 0);
    let asked = ["--query-gpu=driver_version,memory.total,memory.used", "--format=csv,noheader,nounits"];
    let answer = setting.run_command(tool, &asked).success();
    let fields: Vec<_> = answer.out.trim().split(", ").collect();
    assert_eq!(fields[0], version, "{answer}");
    assert_eq!(fields[1], (total >> 20).to_string(), "{answer}");
    let used: i64 = fields[2].parse().expect("a number of MiB");
    assert!((1024..2048).contains(&used), "one process holds 1 GiB and its context: {answer}");

    let table = setting.run_command(tool, &[]).success();
    assert!(table.out.contains(&format!("{}MiB", total >> 20)), "{table}");
    let processes = table.out.split("Processes:").nth(1).unwrap_or_else(|| panic!("no processes: {table}"));
    assert!(
        processes.split_whitespace().any(|word| word == pid.to_string()),
        "pid {pid} is not listed: {table}"
    );
    holder.finish().success();
}
