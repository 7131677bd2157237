//! Devices that are split into instances (MIG): the simulated driver's answers on them, and the cap that each instance has
//! of its own, by every name and index.

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Outcome, Program, Setting};

const FIRST: &str = "MIG-513dc0da-2330-4000-8000-010000000000";
const SECOND: &str = "MIG-513dc0da-2330-4000-8000-020000000000";
/// `NVML_ERROR_NOT_SUPPORTED`.
const NOT_SUPPORTED: i64 = 3;

/// Two instances of 40 GiB.
fn machine() -> Machine {
    Machine::new("H100-MIG-3g.40gb")
}

/// Starts `mig` with so many MiB on the instance that `visible` names.
fn on(setting: &Setting<'_>, visible: &str, mib: &str) -> Program {
    let mut command = std::process::Command::new("env");
    let inner = setting.command(gpuquota_promises::program("mig"), &[mib]);
    command.arg(format!("CUDA_VISIBLE_DEVICES={visible}")).arg(inner.get_program()).args(inner.get_args());
    Program::start(command)
}

/// Its output once all have started.
fn looked(mut program: Program) -> Outcome {
    program.tell("look");
    program.wait_for("done");
    program.finish().success()
}

/// CUDA's runtime asks the driver by which UUID it knows each device, and starts nowhere if the answer is another one.
#[test]
fn every_runtime_starts_on_an_instance() {
    let machine = machine();
    for name in ["kernels_13", "kernels_13_static", "kernels_12", "kernels_12_static", "kernels_11"] {
        for setting in [machine.bare(), machine.quota().memory("2GiB")] {
            let told = setting.run(name, &[]).success();
            assert_eq!(
                (told.value("copied"), told.text("name").contains("MIG 3g.40gb")),
                (1, true),
                "{name}: {told}"
            );
        }
    }
}

#[test]
fn nvml_distinguishes_a_split_device_from_its_instances() {
    let machine = machine();
    let bare = machine.bare();
    let mut other = on(&bare, SECOND, "100");
    let other_pid = other.wait_for("pid");
    let mut one = on(&bare, FIRST, "300");
    let pid = one.wait_for("pid");
    let told = looked(one);
    for (key, value) in [("count", 1), ("mode", 1), ("most", 7), ("devices", 1), ("sms", 60)] {
        assert_eq!(told.value(key), value, "{key}: {told}");
    }
    assert_eq!(told.text("name"), "NVIDIA H100 80GB HBM3 MIG 3g.40gb");
    assert_eq!((told.text("uuid_0"), told.text("uuid_1")), (FIRST, SECOND));
    for key in ["is_instance", "of_the_whole", "found_by_uuid"] {
        assert_eq!(told.values(key), [1, 1], "{key}: {told}");
    }
    assert_eq!(told.values("none"), [6; 5], "NVML_ERROR_NOT_FOUND beyond the last: {told}");
    assert_eq!((told.value("index_0"), told.value("index_1")), (0, 1));
    assert_eq!((told.value("gi_0"), told.value("gi_1"), told.value("ci_1")), (1, 2, 0));
    // Each has its own memory and its own process, and the whole has all.
    let context = 512 * MIB;
    let (used, used_by_other) = (300 * MIB + context, 100 * MIB + context);
    assert_eq!((told.value("nvml_used_0"), told.value("nvml_total_0")), (used, 40 * GIB), "{told}");
    assert_eq!(told.value("nvml_used_1"), used_by_other, "{told}");
    assert_eq!(told.value("nvml_whole_used_0"), used + used_by_other, "{told}");
    assert_eq!(told.value("nvml_whole_total_0"), 80 * GIB, "{told}");
    assert_eq!((told.values("listed_pid_0"), told.values("listed_gi_0")), (vec![pid], vec![1]), "{told}");
    assert_eq!(
        (told.values("listed_pid_1"), told.values("listed_gi_1")),
        (vec![other_pid], vec![2]),
        "{told}"
    );
    assert_eq!(told.values("listed_whole_pid_0"), [pid, other_pid], "{told}");
    assert_eq!(told.values("listed_whole_gi_0"), [1, 2], "{told}");
    // Figures that drivers do not give for instances.
    assert_eq!(told.value("utilisation"), NOT_SUPPORTED, "{told}");
    assert_eq!(told.values("utilisation_of_instance"), [NOT_SUPPORTED; 2], "{told}");
    assert_eq!(told.values("pci_of_instance"), [2, 2], "{told}");
    other.finish().success();
}

#[test]
fn cuda_sees_one_instance_and_no_whole_device_beside_it() {
    let machine = Machine::new("2xH100-MIG-3g.40gb");
    let bare = machine.bare();
    let by_numbers = "MIG-GPU-513dc0da-2330-4000-8000-000000000000/2/0";
    for (visible, instance) in [
        (FIRST, 1),
        (SECOND, 2),
        (&SECOND[..16], 0),
        (by_numbers, 2),
        ("0", 1),
        ("1", 1),
        ("MIG-513dc0da-2330-4000-8000-020000000000,MIG-513dc0da-2330-4000-8000-010000000000", 2),
        ("GPU-513dc0da-2330-4000-8000-000000000000", 1),
    ] {
        let mut program = on(&bare, visible, "1");
        if instance == 0 {
            // The beginning of several UUIDs names none.
            assert_eq!(program.finish().value("rc"), 100, "{visible}");
            continue;
        }
        program.wait_for("pid");
        let told = program.finish();
        assert_eq!((told.value("devices"), told.value("cuda_instance")), (1, instance), "{visible}: {told}");
        assert_eq!(told.value("cuda_total"), 40 * GIB, "{visible}: {told}");
    }
}

/// An instance shows this cap through every view, and holds it.
#[track_caller]
fn capped(told: &Outcome, place: u32, cap: i64) {
    assert_eq!(told.value("total"), cap, "{told}");
    assert_eq!(told.value("cuda_total"), cap, "{told}");
    assert_eq!(told.value("over"), OUT_OF_MEMORY, "{told}");
    assert_eq!(told.value(&format!("nvml_total_{place}")), cap, "{told}");
    assert_eq!(told.value(&format!("nvml_used_{place}")), cap - told.value("free"), "{told}");
}

#[test]
fn an_instance_is_capped_by_its_uuid() {
    let machine = machine();
    let quota = machine.quota().memory(format!("{FIRST}=2GiB,{SECOND}=3GiB"));
    let (mut one, mut other) = (on(&quota, FIRST, "300"), on(&quota, SECOND, "100"));
    let pids = (one.wait_for("pid"), other.wait_for("pid"));
    let (one, other) = (looked(one), looked(other));
    capped(&one, 0, 2 * GIB);
    capped(&other, 1, 3 * GIB);
    // Each sees the other's instance with the other's cap and books.
    assert_eq!(one.value("nvml_total_1"), 3 * GIB, "{one}");
    assert_eq!((one.value("listed_pid_0"), one.value("listed_pid_1")), pids, "{one}");
    assert_eq!(one.value("listed_bytes_1"), 612 * MIB, "{one}");
    assert_eq!((one.value("listed_gi_0"), one.value("listed_gi_1")), (1, 2), "{one}");
    // The whole device shows both.
    assert_eq!(one.values("listed_whole_pid_0"), [pids.0, pids.1], "{one}");
    assert_eq!(one.values("listed_whole_gi_0"), [1, 2], "{one}");
    assert_eq!(one.value("nvml_whole_total_0"), 5 * GIB, "{one}");
    assert_eq!(one.value("nvml_whole_used_0"), (300 + 512 + 100 + 512) * MIB, "{one}");
}

/// A limit by a device's index holds for each of its instances, whether CUDA or NVML shows the instance first.
#[test]
fn a_limit_by_index_holds_for_each_instance_of_the_device() {
    let machine = Machine::new("2xH100-MIG-3g.40gb");
    let on_second_device = "MIG-513dc0da-2330-4000-8000-010000000001";
    for visible in [on_second_device, "1"] {
        let quota = machine.quota().memory("0=2GiB,1=3GiB");
        let mut program = on(&quota, visible, "300");
        program.wait_for("pid");
        let told = looked(program);
        assert_eq!((told.value("cuda_total"), told.value("total")), (3 * GIB, 3 * GIB), "{visible}: {told}");
        // Device 0's, which only NVML has met.
        assert_eq!((told.value("nvml_total_0"), told.value("nvml_total_1")), (2 * GIB, 2 * GIB), "{told}");
    }
}

/// Two instances of one device have the same PCI address and nearly the same name: only the UUID distinguishes them.
#[test]
fn memory_of_one_instance_is_not_charged_to_the_other() {
    let machine = machine();
    let quota = machine.quota().memory("4GiB");
    let mut first = on(&quota, FIRST, "3000");
    first.wait_for("pid");
    let mut second = on(&quota, SECOND, "3000");
    second.wait_for("pid");
    let told = quota.inspect();
    let devices = told["devices"].as_array().expect("a list");
    let used: Vec<_> = devices.iter().filter_map(|device| device["used"].as_i64()).collect();
    assert_eq!(used, [3512 * MIB; 2], "{told:#}");
    let uuids: Vec<_> = devices.iter().filter_map(|device| device["uuid"].as_str()).collect();
    assert_eq!(uuids, [FIRST, SECOND], "{told:#}");
    first.finish().success();
    second.finish().success();
}
