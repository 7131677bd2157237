//! For every function that a program can call there is a decision: the library intercepts all its versions, or leaves it
//! alone for a reason that `surface/exempt.txt` gives. A new release of CUDA shows up here as a failing line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use gpuquota_promises::{Promise, artifact, exports};

/// The name of a function without the suffixes of its versions.
fn base(export: &str) -> &str {
    let name = export.trim_end_matches("_ptds").trim_end_matches("_ptsz");
    match name.rsplit_once("_v") {
        Some((name, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    }
}

/// The words of the list.
fn exempt() -> BTreeSet<String> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("surface/exempt.txt");
    let text = std::fs::read_to_string(&list).unwrap_or_else(|why| panic!("{}: {why}", list.display()));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// Functions of the libraries of the newest headers: the simulated ones export just these.
fn newest() -> BTreeSet<String> {
    let answer = Command::new(artifact("cuda-sim")).arg("libdir").output().expect("it was built");
    let folder = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
    functions(&folder)
}

/// The functions of a driver's two libraries, without the debugger's.
fn functions(folder: &Path) -> BTreeSet<String> {
    let both = ["libcuda.so.1", "libnvidia-ml.so.1"].map(|name| exports(&folder.join(name)));
    let all = both.into_iter().flatten();
    let api =
        |name: &String| name.starts_with("cu") && !name.starts_with("cudbg") || name.starts_with("nvml");
    all.filter(api).collect()
}

/// Functions without a decision, and versions of an intercepted function that are not intercepted.
fn undecided(functions: &BTreeSet<String>) -> Vec<String> {
    let hooks = exports(&artifact("libgpuquota.so"));
    let exempt = exempt();
    let intercepted: BTreeSet<_> = hooks.iter().map(|hook| base(hook)).collect();
    let decided = |name: &&String| {
        hooks.contains(*name)
            || exempt.contains(*name)
            || exempt.contains(base(name)) && !intercepted.contains(base(name))
    };
    functions.iter().filter(|name| !decided(name)).cloned().collect()
}

#[test]
fn every_function_of_the_newest_headers_is_decided() {
    let promise = &Promise::to(&["HAMi-core#233"]);
    let undecided = undecided(&newest());
    promise.asserts(|| {
        assert!(undecided.is_empty(), "intercept them, or say in surface/exempt.txt why not: {undecided:#?}")
    });
}

#[test]
fn no_exemption_is_stale() {
    let functions = newest();
    let bases: BTreeSet<_> = functions.iter().map(|name| base(name)).collect();
    let hooks = exports(&artifact("libgpuquota.so"));
    let undocumented = BTreeSet::from(UNDOCUMENTED);
    let stale: Vec<_> = exempt()
        .into_iter()
        .filter(|name| hooks.contains(name) || !bases.contains(name.as_str()))
        .filter(|name| !undocumented.contains(name.as_str()))
        .collect();
    assert!(stale.is_empty(), "intercepted by now, or in no header: {stale:#?}");
}

/// Exports of real drivers that no public header names.
const UNDOCUMENTED: [&str; 2] = ["cuEGLApiInit", "cuMemGetAttribute"];

/// `make surface` fetches real drivers, which answer such questions without a GPU, and lists their folders, with colons
/// between them.
#[test]
#[ignore = "needs real drivers: make surface"]
fn every_function_of_real_drivers_is_decided() {
    let folders =
        std::env::var_os("GPUQUOTA_REAL_DRIVERS").expect("GPUQUOTA_REAL_DRIVERS: `make surface` sets it");
    for folder in std::env::split_paths(&folders) {
        let functions = functions(&folder);
        assert!(functions.len() > 500, "{}: no driver: {functions:?}", folder.display());
        let undecided = undecided(&functions);
        assert!(undecided.is_empty(), "{}: {undecided:#?}", folder.display());
    }
}
