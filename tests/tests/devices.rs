//! Several devices: each has its own cap, in every numbering of devices.

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Outcome, Promise};

const SECOND: &str = "GPU-513dc0da-2330-4000-8000-000000000001";

/// `devices` on two H100 shows this cap for each device that it sees, and holds it.
#[track_caller]
fn capped(outcome: Outcome, caps: &[i64]) {
    let outcome = outcome.success();
    assert_eq!(outcome.value("count"), caps.len() as i64, "{outcome}");
    for (ordinal, cap) in caps.iter().enumerate() {
        assert_eq!(outcome.value(&format!("total_{ordinal}")), *cap, "{outcome}");
        assert_eq!(outcome.value(&format!("nvml_total_{ordinal}")), *cap, "{outcome}");
        assert_eq!(outcome.value(&format!("nvml_free_differs_{ordinal}")), 0, "{outcome}");
        assert_eq!(
            outcome.value(&format!("taken_{ordinal}")),
            if ordinal == 0 { GIB } else { 0 },
            "{outcome}"
        );
        assert_eq!(outcome.value(&format!("over_{ordinal}")), OUT_OF_MEMORY, "{outcome}");
    }
}

#[test]
fn a_bare_limit_is_each_device_s_own() {
    let machine = Machine::new("2xH100");
    capped(machine.quota().memory("2GiB").run("devices", &[]), &[2 * GIB, 2 * GIB]);
}

#[test]
fn a_device_is_named_by_index_or_uuid() {
    let machine = Machine::new("2xH100");
    let memory = format!("0=2GiB,{SECOND}=3GiB");
    capped(machine.quota().memory(memory).run("devices", &[]), &[2 * GIB, 3 * GIB]);
    let hami =
        machine.quota().with("CUDA_DEVICE_MEMORY_LIMIT_0", "2g").with("CUDA_DEVICE_MEMORY_LIMIT_1", "3g");
    capped(hami.run("devices", &[]), &[2 * GIB, 3 * GIB]);
}

/// Ordinal 0 of a process is then another device; the cap stays with the device.
#[test]
fn a_subset_in_another_order_keeps_each_device_s_cap() {
    let promise = &Promise::to(&["HAMi-core#319"]);
    let machine = Machine::new("2xH100");
    let memory = "0=2GiB,1=3GiB";
    for (visible, caps) in [
        ("1", &[3 * GIB][..]),
        ("1,0", &[3 * GIB, 2 * GIB]),
        (SECOND, &[3 * GIB]),
        ("GPU-513dc0da-2330-4000-8000-000000000001,0", &[3 * GIB, 2 * GIB]),
    ] {
        let quota = machine.quota().memory(memory).with("CUDA_VISIBLE_DEVICES", visible);
        promise.asserts(|| capped(quota.run("devices", &[]), caps));
    }
}

/// A process that sees one device only, and one that sees both in another order, share each device's cap.
#[test]
fn processes_with_different_subsets_share_each_device_s_cap() {
    let promise = &Promise::to(&["HAMi-core#319"]);
    let machine = Machine::new("2xH100");
    let quota = machine.quota().memory(format!("0=2GiB,{SECOND}=3GiB")).with("CUDA_VISIBLE_DEVICES", "1");
    let mut holder = quota.start("hold", &[]);
    assert_eq!(holder.ask("info", "total"), 3 * GIB);
    assert_eq!(holder.ask(&format!("alloc {}", 3 * GIB / 2), "rc"), 0);
    let quota = quota.with("CUDA_VISIBLE_DEVICES", "1,0");
    let other = quota.run("devices", &[]);
    promise.asserts(|| assert!(!other.status.success(), "a GiB of 512 MiB was given: {other}"));
    let quota = quota.with("CUDA_VISIBLE_DEVICES", "0,1");
    let other = quota.run("devices", &[]).success();
    assert_eq!(other.value("taken_0"), GIB, "{other}");
    holder.finish().success();
}

/// HAMi's region has records for sixteen.
#[test]
fn more_than_sixteen_devices_have_a_cap_each() {
    let promise = &Promise::to(&["HAMi-core#169"]);
    let machine = Machine::new("24xH100");
    let quota = machine.quota().memory("20=3GiB,2GiB");
    let outcome = quota.run("devices", &["last too"]).success();
    for ordinal in 0..24 {
        let cap = if ordinal == 20 { 3 * GIB } else { 2 * GIB };
        let taken = if matches!(ordinal, 0 | 23) { GIB } else { 0 };
        for (key, value) in [("total", cap), ("nvml_total", cap), ("taken", taken), ("over", OUT_OF_MEMORY)] {
            promise.asserts(|| {
                assert_eq!(outcome.value(&format!("{key}_{ordinal}")), value, "{key} of {ordinal}: {outcome}")
            });
        }
    }
    // A context was counted on each of them, however many there are.
    let told = quota.inspect();
    let peaks = told["devices"].as_array().expect("a list").iter().map(|device| device["peak"].as_i64());
    assert!(peaks.flatten().all(|peak| peak >= 512 * MIB), "{told:#}");
}
