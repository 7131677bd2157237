//! Correct on a driver that is not ours: `drivers/other.c`, written apart from the simulator, built and linked in every way
//! in which drivers may differ. It counts the calls that reach it.

use gpuquota_promises::{
    GIB, MIB, Machine, OUT_OF_MEMORY, Outcome, Promise, Scratch, Setting, artifact, program,
};

const CAP: i64 = 2 * GIB;

/// The slice was seen, the cap held, and each call reached the driver exactly once.
#[track_caller]
fn walked_once(outcome: Outcome) {
    let outcome = outcome.success();
    assert_eq!(outcome.value("total"), CAP, "{outcome}");
    assert_eq!(outcome.value("charged"), 64 * MIB, "{outcome}");
    assert_eq!(outcome.value("over"), OUT_OF_MEMORY, "{outcome}");
    assert_eq!(outcome.value("returned"), 64 * MIB, "{outcome}");
    let reached =
        ["inits", "allocations", "frees", "infos"].map(|call| outcome.value(&format!("driver_{call}")));
    assert_eq!(reached, [1, 1, 1, 3], "{outcome}");
    assert_eq!(outcome.value("driver_peak"), 64 * MIB, "{outcome}");
    assert_eq!(outcome.value("driver_held"), 0, "{outcome}");
}

/// Every door into a driver of this kind, each with the quota and without.
#[track_caller]
fn every_door(kind: &str, doors: &[(&str, &[&str])]) {
    let machine = Machine::with_driver(kind);
    for (door, arguments) in doors {
        let bare = machine.bare().run(door, arguments).success();
        assert_eq!(bare.value("total"), 16 * GIB, "{kind}, {door}: {bare}");
        assert_eq!(bare.value("driver_allocations"), 2, "{kind}, {door}: {bare}");
        walked_once(machine.quota().memory(CAP).run(door, arguments));
    }
}

const WITH_GET_PROC_ADDRESS: &[(&str, &[&str])] = &[
    ("door_linked", &[]),
    ("door_dlsym", &[]),
    ("door_getproc", &["1", "0"]),
    ("door_getproc", &["2", "0"]),
];

#[test]
fn a_driver_older_than_cu_get_proc_address() {
    every_door("old", &[("door_linked", &[]), ("door_dlsym", &[])]);
}

/// The loader binds this driver's names for its own functions to our hooks.
#[test]
fn a_driver_whose_own_calls_go_through_the_loader() {
    let promise = &Promise::to(&["HAMi-core#215"]);
    promise.asserts(|| every_door("plt", WITH_GET_PROC_ADDRESS));
}

#[test]
fn a_driver_bound_to_itself() {
    let promise = &Promise::to(&["HAMi-core#233"]);
    promise.asserts(|| every_door("bound", WITH_GET_PROC_ADDRESS));
}

#[test]
fn a_driver_with_a_sysv_hash_table_only() {
    every_door("sysv", WITH_GET_PROC_ADDRESS);
}

#[test]
fn a_driver_whose_symbols_lie_among_its_code() {
    every_door("executable", WITH_GET_PROC_ADDRESS);
}

#[test]
fn a_driver_that_is_bound_at_once_and_read_only_then() {
    every_door("relro", WITH_GET_PROC_ADDRESS);
}

/// The library never gives uncounted memory, also on a driver that gives few figures.
#[test]
fn a_driver_that_gives_neither_context_nor_device() {
    every_door("silent", &[("door_linked", &[]), ("door_dlsym", &[])]);
}

/// Devices are matched by their numbers where they have no UUID, or only NVML knows it.
#[test]
fn a_device_without_a_uuid_has_one_slice_all_the_same() {
    let machine = Machine::with_driver("silent");
    for uuid in [None, Some("GPU-of-nvml-alone")] {
        let mut quota = machine.quota().memory(CAP);
        if let Some(uuid) = uuid {
            quota = quota.with("OTHER_UUID", uuid);
        }
        let seen = quota.run("views_first", &[]).success();
        assert_eq!(seen.value("nvml_total"), CAP, "{uuid:?}: {seen}");
        assert_eq!(seen.value("device_total"), CAP, "{uuid:?}: {seen}");
        assert_eq!(seen.value("nvml_grown"), 64 * MIB, "{uuid:?}: {seen}");
    }
}

#[test]
fn a_driver_that_works_without_a_context() {
    every_door("implicit", WITH_GET_PROC_ADDRESS);
}

#[test]
fn a_driver_that_hands_out_functions_that_it_does_not_export() {
    for kind in ["hidden", "secret"] {
        every_door(kind, &[("door_getproc", &["1", "0"]), ("door_getproc", &["2", "0"])]);
    }
}

#[test]
fn a_driver_under_another_name() {
    let promise = &Promise::to(&["HAMi-core#215"]);
    let library = program("driver_renamed/libcuda.so.1");
    let scratch = Scratch::new();
    let copy = scratch.file("libother.so", std::fs::read(library).expect("built"));
    promise.asserts(|| every_door("renamed", &[("door_dlsym", &[copy.to_str().expect("text")])]));
}

/// Its functions jump into another library, and `cuGetProcAddress` answers with that library's.
#[test]
fn a_driver_that_only_forwards() {
    let real = program("driver_bound/libcuda.so.1");
    let scratch = Scratch::new();
    let library = std::fs::read(&real).expect("built");
    for name in ["libcuda.so.1.1", "libelsewhere.so"] {
        let inner = scratch.file(name, &library);
        for (kind, doors) in
            [("forward", WITH_GET_PROC_ADDRESS), ("forward_lazy", &WITH_GET_PROC_ADDRESS[..2])]
        {
            let machine = Machine::with_driver(kind);
            for (door, arguments) in doors {
                let setting = |setting: Setting<'_>| setting.with("FORWARD_TO", &inner).run(door, arguments);
                let bare = setting(machine.bare()).success();
                assert_eq!(bare.value("total"), 16 * GIB, "{kind}, {door}: {bare}");
                walked_once(setting(machine.quota().memory(CAP)));
            }
            // The program finds the inner library too.
            let quota = machine.quota().memory(CAP).with("FORWARD_TO", &inner);
            walked_once(quota.run("door_dlsym", &[inner.to_str().expect("text")]));
        }
    }
}

/// A program that met the stand-in of the toolkit first goes on to the driver.
#[test]
fn a_driver_behind_a_stand_in() {
    let machine = Machine::with_driver("stub");
    let library = program("driver_bound/libcuda.so.1");
    for how in ["dlsym", "reader", "getproc"] {
        let walk = [library.to_str().expect("text"), how, "before"];
        let bare = machine.bare().run("door_copies", &walk).success();
        assert_eq!(bare.value("total"), 16 * GIB, "{bare}");
        walked_once(machine.quota().memory(CAP).run("door_copies", &walk));
    }
}

/// A plugin opened with RTLD_DEEPBIND is bound to the driver before us, on drivers of every make.
#[test]
fn a_deepbind_plugin_on_every_driver() {
    for kind in ["old", "plt", "bound", "sysv", "executable", "relro", "versioned"] {
        for name in ["plugin_linked.so", "plugin_dlsym.so"] {
            let path = program(name);
            for how in ["deepbind", "deepbind_later"] {
                every_door(kind, &[("plugin_host", &[path.to_str().expect("text"), how])]);
            }
        }
    }
}

/// With any padding of rows the library grants requests that fit, to the byte, and refuses requests that do not.
#[test]
fn rows_are_charged_as_the_driver_pads_them() {
    for (kind, pitch) in [("bound", 1536), ("fine", 1056), ("coarse", 4096)] {
        let machine = Machine::with_driver(kind);
        let outcome = machine.quota().memory(CAP).run("pitched", &[]).success();
        assert_eq!(outcome.value("pitch"), pitch, "{kind}: {outcome}");
        assert_eq!(outcome.value("rc"), 0, "{kind}: what fits was refused: {outcome}");
        assert_eq!(outcome.values("free"), [CAP, 0], "{kind}: {outcome}");
        assert_eq!(outcome.values("over"), [OUT_OF_MEMORY, OUT_OF_MEMORY], "{kind}: {outcome}");
        assert_eq!(outcome.value("driver_peak"), CAP, "{kind}: {outcome}");
    }
}

#[test]
fn a_reused_address_replaces_the_previous_holding() {
    let machine = Machine::with_driver("bound");
    let outcome = machine.quota().memory(CAP).run("lost", &[]).success();
    assert_eq!(outcome.values("free"), [CAP, CAP - 32 * MIB, CAP], "{outcome}");
}

/// Calls of the first driver API, physical memory under a mapping or a multicast object, memory of other APIs.
#[test]
fn rare_routes_are_charged_too() {
    let promise = &Promise::to(&["HAMi-core#187"]);
    let machine = Machine::with_driver("rare");
    let outcome = machine.quota().memory(CAP).run("rare", &[]).success();
    let held = outcome.values("held");
    assert_eq!(held, [0, 1, 2, 6, 0, 8, 8, 12, 8, 0, 0].map(|mib| mib * MIB), "{outcome}");
    promise.asserts(|| assert_eq!(outcome.values("charged"), held, "{outcome}"));
    assert_eq!(outcome.value("left"), CAP - 16 * MIB, "{outcome}");
    assert_eq!(outcome.value("over"), OUT_OF_MEMORY, "{outcome}");
}

/// A container that was given the library twice, by its image and by its node, from two files.
#[test]
fn a_second_copy_of_the_library_does_nothing() {
    let scratch = Scratch::new();
    let library = std::fs::read(artifact("libgpuquota.so")).expect("built");
    let copy = scratch.file("libvgpu.so", library);
    for kind in ["plt", "bound", "executable"] {
        let machine = Machine::with_driver(kind);
        for (door, arguments) in WITH_GET_PROC_ADDRESS {
            for first in [true, false] {
                let quota = machine.quota().memory(CAP).preloading(copy.clone(), first);
                walked_once(quota.run(door, arguments));
            }
        }
    }
}

/// The books change before the driver can give a handle out again: thread 1 gives 4 MiB back, and while it is still in that
/// call thread 2 gets 8 MiB under the same handle.
#[test]
fn a_handle_that_is_given_out_again_at_once_belongs_to_its_new_owner() {
    let machine = Machine::with_driver("life");
    for (call, held) in [
        ("cuMemFree", [4, 8, 0]),
        ("cuMemRelease", [4, 8, 0]),
        ("cuMemUnmap", [4, 8, 0]),
        ("cuMulticastUnbind", [4, 8, 0]),
        ("cuCtxDestroy", [4, 8, 0]),
        ("cuCtxDetach", [4, 8, 0]),
        ("cuDevicePrimaryCtxRelease", [4, 8, 0]),
        ("cuGreenCtxDestroy", [4, 8, 0]),
        ("cuMemPoolDestroy", [4, 12, 0]),
        ("cuGraphExecDestroy", [0, 0, 8]),
    ] {
        let outcome = machine.quota().memory(CAP).run("reuse", &[call]).success();
        let held = held.map(|mib| mib * MIB);
        assert_eq!(outcome.values("held"), held, "{call}: {outcome}");
        let charged = outcome.values("charged");
        assert_eq!(charged, held[..charged.len()], "{call}: {outcome}");
    }
}
