//! The region's C header and its Rust layout say the same.

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::{Command, Stdio};

use gpuquota_region::hami::{Process, View};
use gpuquota_region::layout::{Device, Event, Header, Lane, OURS, Ours, Slot, Turns};

/// `_Static_assert`s for a struct's size and the offsets of the named fields, with Rust's numbers.
macro_rules! agree {
    ($text:ident, $type:ty, $c:literal, $($field:ident),+) => {
        writeln!($text, "_Static_assert(sizeof(struct {}) == {}, \"\");", $c, size_of::<$type>()).unwrap();
        $(writeln!($text, "_Static_assert(offsetof(struct {}, {}) == {}, \"{}\");",
            $c, stringify!($field), offset_of!($type, $field), stringify!($field)).unwrap();)+
    };
}

#[test]
fn the_c_header_and_the_rust_layout_agree_on_every_field() {
    let mut text = String::from("#include \"gpuquota_region.h\"\n");
    agree!(
        text,
        Header,
        "gpuquota_header",
        magic,
        abi_major,
        abi_minor,
        length,
        record_bytes,
        record_count,
        record_offset,
        generation,
        boot_id,
        time_namespace,
        created_at_ns,
        state,
        spoken,
        slot_high,
        mode,
        event_next,
        fallbacks,
        shares,
        monitor_ns,
        turns
    );
    agree!(
        text,
        Turns,
        "gpuquota_turns",
        turn,
        told_at,
        bell,
        terms,
        asked_at,
        in_flight_ns,
        doubt_ns,
        waited_ns,
        held_ns
    );
    agree!(
        text,
        Device,
        "gpuquota_device",
        uuid,
        state,
        core_limit,
        memory_limit,
        memory_total,
        claimed_by,
        used,
        peak,
        denied,
        would_deny,
        reaped_at_ns,
        spilled,
        spills,
        physical_limit,
        virtual_time,
        busy_until,
        longest,
        virtual_rate,
        idle_at,
        flight_until,
        gaps_from,
        idle_ns,
        gpu_time_ns,
        waited_ns,
        launches,
        waits,
        would_wait,
        clamped,
        waited_flight_ns,
        gaps,
        wait_times
    );
    agree!(
        text,
        Slot,
        "gpuquota_slot",
        state,
        pid,
        start_time,
        pid_namespace,
        host_pid,
        heartbeat_ns,
        lane_device,
        lane_kind,
        pending_ns
    );
    agree!(text, Lane, "gpuquota_lane", amount, operation, held, reserving);
    agree!(text, Event, "gpuquota_event", stamp, code, pid, device, requested, used, limit, time_ns);
    agree!(text, Ours, "gpuquota_ours", header, devices, slots, lanes, events);
    agree!(
        text,
        Process,
        "gpuquota_hami_process",
        pid,
        host_pid,
        used,
        monitor_used,
        utilization,
        status,
        sequence
    );
    agree!(
        text,
        View,
        "gpuquota_hami_view",
        initialized_flag,
        major,
        minor,
        device_num,
        uuids,
        limit,
        sm_limit,
        procs,
        proc_num,
        utilization_switch,
        recent_kernel,
        priority,
        last_kernel_time
    );
    writeln!(text, "_Static_assert(GPUQUOTA_OURS == {OURS}, \"\");").unwrap();
    writeln!(text, "_Static_assert(GPUQUOTA_MAGIC == {}ull, \"\");", gpuquota_region::layout::MAGIC).unwrap();
    writeln!(text, "_Static_assert(GPUQUOTA_SLOT_BYTE == {}ull, \"\");", gpuquota_region::lock::SLOT_BYTE)
        .unwrap();

    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/../include");
    let mut compiler = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Werror", "-fsyntax-only", "-x", "c", "-I", include, "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler");
    std::io::Write::write_all(&mut compiler.stdin.take().expect("a pipe"), text.as_bytes())
        .expect("the source");
    assert!(compiler.wait().expect("its end").success(), "the compiler refused:\n{text}");
}
