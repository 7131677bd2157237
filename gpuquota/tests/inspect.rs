//! `gpuquota inspect`: what the region says, and a clear word about what is none.

mod common;

use common::{Scratch, UUID, gpuquota, join, output, sample, stderr, stdout};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

fn inspect(path: &Path) -> Value {
    let told = output(gpuquota().arg("inspect").arg(path).arg("--json"));
    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
    assert_eq!(stdout(&told).lines().count(), 1);
    serde_json::from_str(&stdout(&told)).expect("JSON")
}

#[test]
fn a_region_is_told_by_device_and_by_process() {
    let home = Scratch::new();
    let path = home.join("a.cache");
    let slot = join(&sample(&path), &path);
    let told = inspect(&path);
    assert_eq!(told["region"], json!(path.to_string_lossy()));
    let device = json!({
        "index": 0, "uuid": UUID, "memory_limit": 2_u64 << 30, "used": 1 << 30, "peak": 3_u64 << 29, "denied": 5,
        "denied_by": { "memory_limit": 5, "physical_limit": 0, "context": 0, "code": 0, "uncounted": 0, "driver": 0 },
        "would_deny": 0, "core_limit": 30, "gpu_time_ns": 2_500_000_000_u64, "waited_ns": 500_000_000,
        "waited_in_flight_ns": 0, "wait_times": [0, 0, 0, 0, 0, 0, 0, 0], "would_wait": 0, "launches": 9, "waits": 0, "spilled": 0, "spills": 0, "physical_limit": null,
        "memory_total": 0, "clamped": 0, "limit_conflicts": 0, "context_bytes": 0, "estimated_contexts": 0, "asked": [],
        "lease": { "request_percent": null, "burst": false, "idle_only": false, "waited_ns": 0, "held_ns": 0 },
    });
    assert_eq!(told["devices"], json!([device]));
    let process = json!({
        "slot": slot, "pid": std::process::id(), "host_pid": std::process::id(), "alive": true, "priority": 0,
        "devices": [{
            "device": 0, "bytes": 1 << 28, "data_bytes": 1 << 28, "context_bytes": 0, "module_bytes": 0,
            "pool_bytes": 0, "graph_bytes": 0, "pending_ns": 4_000_000,
        }],
    });
    assert_eq!(told["processes"], json!([process]));

    let people = stdout(&output(gpuquota().arg("inspect").arg(&path)));
    for part in [
        "limit 2.00 GiB",
        "used 1.00 GiB",
        "peak 1.50 GiB",
        "denied 5 (5 memory_limit)",
        "share 30%",
        "256.00 MiB",
        "alive",
    ] {
        assert!(people.contains(part), "{part} is not in\n{people}");
    }
}

/// A region with a dead process that holds a quarter of a GiB.
fn with_a_dead_process(path: &Path) -> gpuquota_region::Region {
    let region = sample(path);
    let slot = &region.ours().slots[3];
    slot.pid.store(u32::MAX, Relaxed);
    slot.journal_device[0].store(1, Relaxed);
    region.ours().journals[3][0].held.store((1 << 28) << gpuquota_region::layout::HELD_SHIFT, Relaxed);
    slot.state.store(gpuquota_region::layout::SLOT_TAKEN, Relaxed);
    region.ours().header.slot_high.store(4, Relaxed);
    region
}

#[test]
fn a_dead_process_is_settled_by_whoever_looks() {
    let home = Scratch::new();
    let path = home.join("a.cache");
    let region = with_a_dead_process(&path);
    let told = inspect(&path);
    assert_eq!(told["processes"], json!([]));
    assert_eq!(told["devices"][0]["used"], json!((1 << 30) - (1 << 28)));
    assert_eq!(told["events"][0]["event"], "reaped");
    assert_eq!(region.ours().slots[3].state.load(Relaxed), gpuquota_region::layout::SLOT_FREE);
}

/// Of another boot: whoever makes it anew clears it.
#[test]
fn a_process_whose_lock_is_gone_is_told_as_dead_and_not_counted() {
    let home = Scratch::new();
    let path = home.join("a.cache");
    with_a_dead_process(&path).ours().header.boot_id[0].fetch_xor(1, Relaxed);
    let told = inspect(&path);
    assert_eq!(told["processes"][0]["alive"], json!(false));
    assert_eq!(told["devices"][0]["used"], json!((1 << 30) - (1 << 28)));
}

#[test]
fn without_a_path_the_environments_region_is_meant() {
    let home = Scratch::new();
    let path = home.join("a.cache");
    sample(&path);
    for name in ["GPUQUOTA_REGION", "CUDA_DEVICE_MEMORY_SHARED_CACHE"] {
        let told = output(gpuquota().env(name, &path).arg("inspect"));
        assert!(stdout(&told).contains(UUID), "{name}: {}", stderr(&told));
    }
    let relative = output(gpuquota().env("GPUQUOTA_REGION", "a.cache").arg("inspect"));
    assert_eq!(relative.status.code(), Some(2));
    assert!(stderr(&relative).contains("GPUQUOTA_REGION=\"a.cache\""));
}

#[test]
fn what_is_no_region_is_an_error_with_its_reason() {
    let home = Scratch::new();
    sample(&home.join("whole.cache"));
    let whole = std::fs::read(home.join("whole.cache")).expect("the region");
    let half = &whole[..whole.len() / 2];
    for (name, bytes) in
        [("empty", &b""[..]), ("text", b"no region"), ("half", half), ("noise", &vec![0xa5; 1 << 22])]
    {
        std::fs::write(home.join(name), bytes).expect("a file");
    }
    assert!(std::process::Command::new("mkfifo").arg(home.join("fifo")).status().expect("mkfifo").success());
    for name in ["empty", "text", "half", "noise", "fifo", "missing", "."] {
        let told = output(gpuquota().arg("inspect").arg(home.join(name)));
        assert_eq!((told.status.code(), stdout(&told).as_str()), (Some(2), ""), "{name}");
        assert!(
            stderr(&told).starts_with(&format!("gpuquota: region {}", home.join(name).display())),
            "{name}"
        );
    }
}

#[test]
fn a_tenants_bytes_never_reach_the_terminal_raw() {
    let home = Scratch::new();
    let path = home.join("a.cache");
    let uuid = u64::from_le_bytes(*b"\x1b[31m\n\"\xff");
    sample(&path).ours().devices[0].uuid[0].store(uuid, std::sync::atomic::Ordering::Relaxed);
    let told = output(gpuquota().arg("inspect").arg(&path));
    assert!(stdout(&told).contains("\\x1b[31m\\n\\\"\\xff"), "{}", stdout(&told));
}
