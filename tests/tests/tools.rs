//! The real nvidia-smi of three drivers, from Debian's packages: on the simulated machine as it is, and under the
//! quota. Where a package is not available the test is skipped with the reason.

use std::process::ExitCode;

use gpuquota_promises::{GIB, Machine, Scratch, Setting, Verdict, fetched, trials};

const CAP: i64 = 8 * GIB;

fn main() -> ExitCode {
    trials(&[
        ("nvidia_smi_of_driver_535_shows_the_slice", || shows_the_slice("bookworm")),
        ("nvidia_smi_of_driver_550_shows_the_slice", || shows_the_slice("trixie")),
        ("nvidia_smi_of_driver_555_shows_the_slice", || shows_the_slice("experimental")),
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
