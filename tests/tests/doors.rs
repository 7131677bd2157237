//! The doors: by every way in which a program finds the driver's functions, each call reaches the hook exactly once.

use gpuquota_promises::{GIB, MIB, Machine, OUT_OF_MEMORY, Outcome, Promise, Setting, artifact, program};

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
