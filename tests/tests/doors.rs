//! The doors: by every way in which a program finds the driver's functions, each call reaches the hook exactly once.

use std::path::Path;

use gpuquota_promises::{
    GIB, MIB, Machine, OUT_OF_MEMORY, Outcome, Promise, Scratch, Setting, artifact, program,
};

const CAP: i64 = 2 * GIB;

/// The walk saw the slice, was charged once for each allocation, could not pass the cap, and each free gave its bytes back.
#[track_caller]
fn walked_under_the_quota(outcome: Outcome) -> Outcome {
    let outcome = outcome.success();
    assert_eq!(outcome.value("total"), CAP, "the view passed the hook: {outcome}");
    assert_eq!(outcome.value("charged"), 64 * MIB, "{outcome}");
    assert_eq!(outcome.value("over"), OUT_OF_MEMORY, "{outcome}");
    assert_eq!(outcome.value("returned"), 64 * MIB, "{outcome}");
    outcome
}

/// The same walk with the quota and, so that the test can fail, without it.
#[track_caller]
fn door(name: &str, arguments: &[&str]) {
    let machine = Machine::new("H100");
    let bare = machine.bare().run(name, arguments).success();
    assert!(bare.value("total") > CAP, "the bare walk saw a slice: {bare}");
    walked_under_the_quota(machine.quota().memory(CAP).run(name, arguments));
}

#[track_caller]
fn plugin(name: &str, how: &str) {
    let path = program(name);
    door("plugin_host", &[path.to_str().expect("the path is text"), how]);
}

#[test]
fn linked_symbols() {
    door("door_linked", &[]);
}

#[test]
fn dlsym() {
    door("door_dlsym", &[]);
}

#[test]
fn a_driver_closed_and_opened_anew() {
    door("door_dlclose", &[]);
}

#[test]
fn get_proc_address_version_1() {
    let promise = &Promise::to(&["HAMi-core#36"]);
    promise.asserts(|| door("door_getproc", &["1", "0"]));
}

#[test]
fn get_proc_address_version_1_with_per_thread_streams() {
    door("door_getproc", &["1", "2"]);
}

#[test]
fn get_proc_address_version_2() {
    let promise = &Promise::to(&["HAMi-core#36"]);
    promise.asserts(|| door("door_getproc", &["2", "0"]));
}

#[test]
fn get_proc_address_version_2_with_per_thread_streams() {
    door("door_getproc", &["2", "2"]);
}

#[test]
fn a_local_plugin_that_is_linked() {
    plugin("plugin_linked.so", "local");
}

#[test]
fn a_local_plugin_that_uses_dlsym() {
    plugin("plugin_dlsym.so", "local");
}

#[test]
fn a_local_plugin_that_uses_rtld_next() {
    let promise = &Promise::to(&["HAMi-core#279"]);
    promise.asserts(|| plugin("plugin_next.so", "local"));
}

#[test]
fn a_deepbind_plugin_that_is_linked() {
    plugin("plugin_linked.so", "deepbind");
}

#[test]
fn a_deepbind_plugin_that_uses_dlsym() {
    plugin("plugin_dlsym.so", "deepbind");
}

#[test]
fn a_deepbind_plugin_loaded_after_the_driver() {
    plugin("plugin_linked.so", "deepbind_later");
    plugin("plugin_dlsym.so", "deepbind_later");
}

/// The file names no driver, but is linked to another plugin that does.
#[test]
fn a_deepbind_plugin_whose_dependency_is_linked() {
    plugin("plugin_needs.so", "deepbind");
}

/// The loader finds the plugin beside its host, so its path is not known before.
#[test]
fn a_deepbind_plugin_opened_by_its_bare_name() {
    for name in ["plugin_linked.so", "plugin_dlsym.so", "plugin_needs.so"] {
        door("plugin_host", &[name, "deepbind"]);
    }
}

/// The driver's file has other names, and the plugin learns which one when it runs.
#[test]
fn a_deepbind_plugin_that_names_the_driver_when_it_runs() {
    for kind in ["bound", "plt", "executable", "relro", "sysv"] {
        let machine = Machine::with_driver(kind);
        let other = Scratch::new();
        let library = program(&format!("driver_{kind}/libcuda.so.1"));
        let linked = other.path().join("libcuda.so");
        std::os::unix::fs::symlink(&library, &linked).expect("a link");
        let copy = other.file("libnothing.so", std::fs::read(&library).expect("built"));
        for driver in [Path::new("libcuda.so.1"), &library, &linked, &copy] {
            let path = program("plugin_named.so");
            let walk = ["plugin_host", path.to_str().expect("text"), "deepbind"];
            let bare = machine.bare().with("DRIVER", driver).run(walk[0], &walk[1..]).success();
            assert!(bare.value("total") > CAP, "{driver:?}: {bare}");
            walked_under_the_quota(
                machine.quota().memory(CAP).with("DRIVER", driver).run(walk[0], &walk[1..]),
            );
        }
    }
}

/// Only the plugin says where the driver lies, so it cannot be opened before.
#[test]
fn a_deepbind_plugin_that_alone_finds_the_driver() {
    let machine = Machine::with_driver("bound");
    let path = program("plugin_runpath.so");
    let walk = [path.to_str().expect("text"), "deepbind"];
    let bare = machine.bare().with("LD_LIBRARY_PATH", "/nowhere").run("plugin_host", &walk).success();
    assert!(bare.value("total") > CAP, "{bare}");
    let quota = machine.quota().memory(CAP).with("LD_LIBRARY_PATH", "/nowhere");
    walked_under_the_quota(quota.run("plugin_host", &walk));
}

/// Python's extension modules and what they open, ctypes among them.
#[test]
fn python_with_deepbind() {
    let script = "import sys, os
sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
import ctypes
cu = ctypes.CDLL('libcuda' + '.so.1', os.RTLD_NOW | os.RTLD_DEEPBIND)
context, memory, left, total = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_size_t(), ctypes.c_size_t()
assert not cu.cuInit(0) and not cu.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) and not cu.cuCtxSetCurrent(context)
def free():
    assert not cu.cuMemGetInfo_v2(ctypes.byref(left), ctypes.byref(total))
    return left.value
before = free()
assert not cu.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(64 << 20))
after = free()
print(f'total={total.value}')
print(f'charged={before - after}')
print(f'over={cu.cuMemAlloc_v2(ctypes.byref(ctypes.c_uint64()), ctypes.c_size_t(after + 1))}')
assert not cu.cuMemFree_v2(memory)
print(f'returned={free() - after}')";
    for machine in [Machine::new("H100"), Machine::with_driver("bound")] {
        let bare = machine.bare().run_command("python3", &["-c", script]).success();
        assert!(bare.value("total") > CAP, "{bare}");
        walked_under_the_quota(machine.quota().memory(CAP).run_command("python3", &["-c", script]));
    }
}

#[test]
fn libc_s_own_dlsym_however_it_was_taken() {
    for how in ["dlvsym", "handle", "versioned_handle", "next", "versioned_next", "dlopen"] {
        door("door_loader", &[how]);
    }
}

#[test]
fn a_look_up_by_version() {
    let machine = Machine::with_driver("versioned");
    let bare = machine.bare().run("door_loader", &["lookup"]).success();
    assert!(bare.value("total") > CAP, "{bare}");
    walked_under_the_quota(machine.quota().memory(CAP).run("door_loader", &["lookup"]));
}

#[test]
fn a_reader_of_symbol_tables() {
    door("door_reader", &["opened"]);
    door("door_reader", &["loader"]);
    door("door_reader_linked", &["linked"]);
}

/// Both copies are one driver under one cap, whichever is called.
#[test]
fn a_second_copy_of_the_driver() {
    let library = std::fs::read(program("driver_bound/libcuda.so.1")).expect("built");
    let scratch = Scratch::new();
    let same = scratch.file("libcuda.so.1", &library);
    let renamed = scratch.file("libsecond.so", &library);
    let other = program("driver_renamed/libcuda.so.1");
    let executable = program("driver_executable/libcuda.so.1");
    for kind in ["bound", "executable", "plt"] {
        let machine = Machine::with_driver(kind);
        for second in [&same, &renamed, &other, &executable] {
            for how in ["dlsym", "reader", "getproc"] {
                // A table that lies among code leads to the hooks too.
                for when in ["before", "later"] {
                    let walk = [second.to_str().expect("text"), how, when];
                    if second.ends_with(format!("driver_{kind}/libcuda.so.1")) {
                        continue;
                    }
                    let bare = machine.bare().run("door_copies", &walk).success();
                    assert!(bare.value("total") > CAP, "{bare}");
                    let quota = machine.quota().memory(CAP).run("door_copies", &walk);
                    let outcome = walked_under_the_quota(quota);
                    assert_eq!(outcome.value("counted"), 0, "{walk:?}: {outcome}");
                }
            }
        }
    }
}

/// On the simulator a second copy that was never started answers no call.
#[test]
fn a_second_copy_of_the_simulated_driver() {
    let machine = Machine::new("H100");
    let scratch = Scratch::new();
    let library = scratch.file("libcuda.so.1", std::fs::read(artifact("libcuda.so")).expect("built"));
    for how in ["dlsym", "reader"] {
        let walk = [library.to_str().expect("text"), how, "later"];
        let outcome = walked_under_the_quota(machine.quota().memory(CAP).run("door_copies", &walk));
        assert_eq!(outcome.value("counted"), 0, "{outcome}");
    }
}

#[test]
fn a_constructor_of_a_plugin_that_is_linked() {
    plugin("plugin_linked_constructor.so", "constructor");
}

#[test]
fn a_constructor_of_a_plugin_that_uses_dlsym() {
    plugin("plugin_dlsym_constructor.so", "constructor");
}

/// Preloaded libraries are initialised last to first: this one calls before the quota's own library had a
/// chance to do anything.
#[test]
fn a_constructor_that_runs_before_our_own() {
    let machine = Machine::new("H100");
    for name in ["plugin_linked_constructor.so", "plugin_dlsym_constructor.so"] {
        let quota = machine.quota().memory(CAP).preloading(program(name), false);
        walked_under_the_quota(quota.run_command("true", &[]));
    }
}

/// Another preloaded tool in front of ours calls on by RTLD_NEXT: a call reaches both, each once.
#[test]
fn a_tool_in_front_of_ours_that_uses_rtld_next() {
    let promise = &Promise::to(&["HAMi-core#279"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP).preloading(program("tool_next.so"), true);
    let outcome = walked_under_the_quota(quota.run("door_linked", &[]));
    promise.asserts(|| assert_eq!(outcome.value("tool"), 2, "{outcome}"));
}

#[test]
fn a_tool_behind_ours() {
    let promise = &Promise::to(&["HAMi-core#279"]);
    let machine = Machine::new("H100");
    let quota = machine.quota().memory(CAP).preloading(program("tool_next.so"), false);
    promise.asserts(|| walked_under_the_quota(quota.run("door_linked", &[])));
}

#[test]
fn the_same_library_preloaded_twice() {
    let machine = Machine::new("H100");
    let quota: Setting<'_> = machine.quota().memory(CAP).preloading(artifact("libgpuquota.so"), false);
    walked_under_the_quota(quota.run("door_linked", &[]));
}

#[test]
fn cudart_13() {
    let promise = &Promise::to(&["HAMi-core#233"]);
    promise.asserts(|| door("cudart_13", &[]));
}

#[test]
fn cudart_13_static() {
    door("cudart_13_static", &[]);
}

#[test]
fn cudart_12() {
    door("cudart_12", &[]);
}

#[test]
fn cudart_12_static() {
    door("cudart_12_static", &[]);
}

#[test]
fn cudart_11() {
    let promise = &Promise::to(&["HAMi-core#36"]);
    promise.asserts(|| door("cudart_11", &[]));
}
