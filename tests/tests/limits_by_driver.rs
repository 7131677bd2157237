//! The driver's own limits by cgroup, as a second holder of the cap: set where they are shown, and believed when they are read.

use std::fs;
use std::path::{Path, PathBuf};

use gpuquota_promises::{GIB, Machine, OUT_OF_MEMORY, Outcome, Program, Scratch, Setting, artifact};

/// A container on a machine with this driver, whose region knows its device.
struct Case {
    machine: Machine,
    cgroups: Scratch,
}

/// What the simulated kernel calls the device in its files.
const KEY: &str = "nvidia/0000:10:00.0";

impl Case {
    fn new(driver: &str) -> Self {
        let cgroups = Scratch::new();
        let file = format!("driver = \"{driver}\"\n[[device]]\nlike = \"H100\"\n");
        let machine = Machine::new(cgroups.file("machine.toml", file).to_str().expect("UTF-8"));
        Self { machine, cgroups }
    }

    /// A quota that a program has used.
    fn quota(&self) -> Setting<'_> {
        let quota = self.machine.quota().memory("8GiB");
        quota.run("hold", &[]).success();
        quota
    }

    /// A container's cgroup in that of its pod, with the kernel's files if they are there.
    fn leaf(&self, has_dmem: bool) -> PathBuf {
        let leaf = self.cgroups.path().join("pod/leaf");
        fs::create_dir_all(&leaf).expect("a directory");
        if has_dmem {
            for place in [&leaf, leaf.parent().expect("a pod")] {
                fs::write(place.join("dmem.max"), format!("{KEY} max\n")).expect("a file");
                fs::write(place.join("dmem.min"), format!("{KEY} 0\n")).expect("a file");
            }
        }
        leaf
    }

    fn limit(&self, quota: &Setting<'_>, cgroup: &Path, options: &[&str]) -> Outcome {
        let mut command = self.machine.bare().command(artifact("gpuquota"), &["limit"]);
        command.arg(quota.region()).arg("--cgroup").arg(cgroup).args(options);
        Program::start(command).finish()
    }
}

/// The figure in a kernel's file.
fn figure(file: PathBuf) -> String {
    let text = fs::read_to_string(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
    let line =
        text.lines().find_map(|line| line.strip_prefix(KEY)).unwrap_or_else(|| panic!("no {KEY} in {text}"));
    line.trim().to_owned()
}

fn of_region(quota: &Setting<'_>) -> Option<i64> {
    quota.inspect()["devices"][0]["memory_limit"].as_i64()
}

#[test]
fn the_driver_holds_the_cap_on_the_containers_own_cgroup_beside_the_region() {
    for has_dmem in [true, false] {
        let case = Case::new("615.71.09");
        let (quota, leaf) = (case.quota(), case.leaf(has_dmem));
        let set = case.limit(&quota, &leaf, &["--memory", "2GiB"]).success();
        assert!(set.out.contains("by the driver: 2.00 GiB\n"), "{}", set.out);
        assert_eq!(of_region(&quota), Some(2 * GIB));
        if has_dmem {
            assert_eq!(figure(leaf.join("dmem.max")), (2 * GIB).to_string());
            assert_eq!(figure(leaf.join("dmem.min")), "0");
        }
        let reset = case.limit(&quota, &leaf, &["--reset"]).success();
        assert!(reset.out.contains("by the driver: no limit\n"), "{}", reset.out);
        if has_dmem {
            assert_eq!(figure(leaf.join("dmem.max")), "max");
        }
    }
}

#[test]
fn where_the_driver_has_no_limits_nothing_changes() {
    let case = Case::new("580.65.06");
    let (quota, leaf) = (case.quota(), case.leaf(true));
    let refused = case.limit(&quota, &leaf, &["--memory", "2GiB"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        refused.stderr.contains("driver: this driver, or this device, has no limits by cgroup\n"),
        "{}",
        refused.stderr
    );
    assert_eq!(of_region(&quota), Some(8 * GIB));
    assert_eq!(figure(leaf.join("dmem.max")), "max");
}

#[test]
fn a_limit_on_a_cgroup_with_others_below_it_is_refused() {
    let case = Case::new("615.71.09");
    let (quota, leaf) = (case.quota(), case.leaf(true));
    let refused = case.limit(&quota, leaf.parent().expect("a pod"), &["--memory", "2GiB"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.contains("has others below it, such as leaf"), "{}", refused.stderr);
    let refused = case.limit(&quota, &leaf.join("none"), &["--memory", "2GiB"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(refused.stderr.contains("No such file"), "{}", refused.stderr);
}

#[test]
fn a_limit_further_up_is_told_as_such() {
    let case = Case::new("615.71.09");
    let (quota, leaf) = (case.quota(), case.leaf(true));
    let pod = leaf.parent().expect("a pod");
    fs::write(pod.join("dmem.max"), format!("{KEY} {GIB}\n")).expect("a file");
    let told = case.limit(&quota, &leaf, &["--memory", "2GiB"]).success();
    let line =
        format!("by the driver: 1.00 GiB, set on {}, which programs inside are not shown\n", pod.display());
    assert!(told.out.contains(&line), "{}", told.out);
}

#[test]
fn a_reset_takes_back_a_guarantee_from_all_cgroups_above() {
    let case = Case::new("615.71.09");
    let (quota, leaf) = (case.quota(), case.leaf(true));
    let pod = leaf.parent().expect("a pod");
    // Another container of the pod has a guarantee of its own.
    fs::write(leaf.join("dmem.min"), format!("{KEY} {GIB}\n")).expect("a file");
    fs::write(pod.join("dmem.min"), format!("other 7\n{KEY} {}\n", 3 * GIB)).expect("a file");
    case.limit(&quota, &leaf, &["--memory", "4GiB"]).success();
    assert_eq!(figure(leaf.join("dmem.min")), GIB.to_string(), "what is below the cap stays");
    case.limit(&quota, &leaf, &["--reset"]).success();
    assert_eq!(figure(leaf.join("dmem.min")), "0");
    assert_eq!(figure(pod.join("dmem.min")), (2 * GIB).to_string());
}

#[test]
fn the_drivers_limit_holds_programs_that_have_no_library() {
    for has_dmem in [true, false] {
        let case = Case::new("615.71.09");
        let (quota, leaf) = (case.quota(), case.leaf(has_dmem));
        let start = |cgroup: &Path| {
            // Neither the library nor any other way of ours is in these programs.
            let mut program = case.machine.bare().with("CUDA_SIM_CGROUP", cgroup).start("hold", &[]);
            program.wait_for("pid");
            program
        };
        let alloc = |program: &mut Program, bytes: i64| program.ask(&format!("alloc {bytes}"), "rc");
        let (mut inside, mut outside) = (start(&leaf), start(case.cgroups.path()));
        assert_eq!(alloc(&mut inside, GIB), 0);
        case.limit(&quota, &leaf, &["--memory", "4GiB"]).success();
        assert_eq!(alloc(&mut inside, 3 * GIB), OUT_OF_MEMORY, "with its context that is more");
        assert_eq!(alloc(&mut inside, GIB), 0);
        // All of a cgroup share its limit, and nobody else is held to it.
        let mut second = start(&leaf);
        assert_eq!(alloc(&mut second, 2 * GIB), OUT_OF_MEMORY);
        assert_eq!(alloc(&mut outside, 8 * GIB), 0);
        inside.finish().success();
        assert_eq!(alloc(&mut second, 2 * GIB), 0, "what the dead had is free");
        case.limit(&quota, &leaf, &["--reset"]).success();
        assert_eq!(alloc(&mut second, 8 * GIB), 0);
    }
}

#[test]
fn what_the_driver_refuses_below_the_cap_is_told_as_such() {
    let case = Case::new("615.71.09");
    let (quota, leaf) = (case.quota(), case.leaf(true));
    case.limit(&quota, &leaf, &["--memory", "2GiB"]).success();
    // The region allows more than the driver does.
    let option = ["--memory", "8GiB"];
    assert_eq!(quota.limit(&option).success().status.code(), Some(0));
    let quota = quota.with("CUDA_SIM_CGROUP", &leaf);
    let mut program = quota.start("hold", &[]);
    program.wait_for("pid");
    assert_eq!(program.ask(&format!("alloc {}", 4 * GIB), "rc"), OUT_OF_MEMORY);
    let device = &quota.inspect()["devices"][0];
    assert_eq!((&device["denied"], &device["denied_by"]["driver"]), (&0.into(), &1.into()), "{device:#}");
}
