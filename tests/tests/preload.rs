//! The library brings nothing but itself into every process of a container.

use std::path::Path;

use gpuquota_promises::{Promise, artifact, binutils, exports};

/// The libraries that it makes a process load.
fn needed(library: &Path) -> Vec<String> {
    let table = binutils("readelf", &["-dW"], library);
    let lines = table.lines().filter(|line| line.contains("(NEEDED)"));
    lines.filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned())).collect()
}

#[test]
fn it_needs_nothing_but_libc() {
    let promise = &Promise::to(&["HAMi-core#174"]);
    let library = artifact("libgpuquota.so");
    let more: Vec<_> = needed(&library)
        .into_iter()
        .filter(|name| name != "libc.so.6" && !name.starts_with("ld-linux"))
        .collect();
    promise.asserts(|| assert!(more.is_empty(), "every process would load {more:?}"));
}

#[test]
fn it_exports_the_hooks_and_the_loader_s_names_only() {
    let exported = exports(&artifact("libgpuquota.so"));
    for name in ["cuMemAlloc_v2", "cuLaunchKernel", "cuGetProcAddress_v2", "nvmlDeviceGetMemoryInfo", "dlsym"]
    {
        assert!(exported.iter().any(|one| one == name), "{name} is not exported");
    }
    let loader = ["dlsym", "dlvsym", "dlopen", "dlmopen"];
    let stray: Vec<_> = exported
        .iter()
        .filter(|name| {
            !name.starts_with("cu") && !name.starts_with("nvml") && !loader.contains(&name.as_str())
        })
        .collect();
    assert!(stray.is_empty(), "it would take the place of {stray:?} in the host program");
}

#[test]
fn it_cannot_panic_into_the_host() {
    let table = binutils("nm", &["-C"], &artifact("libgpuquota.so"));
    let machinery: Vec<_> = table
        .lines()
        .filter(|line| {
            ["core::panicking", "rust_begin_unwind", "rust_eh_personality", "std::"]
                .iter()
                .any(|part| line.contains(part))
        })
        .collect();
    assert!(machinery.is_empty(), "{machinery:#?}");
}

#[test]
fn it_is_never_unloaded() {
    assert!(binutils("readelf", &["-dW"], &artifact("libgpuquota.so")).contains("NODELETE"));
}
