//! Links the library under the name by which clients open NVML, bound to itself.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in [
        "-Wl,-soname,libnvidia-ml.so.1",
        // Our calls to our own exports must not be answered by a preloaded library.
        "-Wl,-Bsymbolic",
        // A client that closes the library and opens it again must not meet state half destroyed.
        "-Wl,-z,nodelete",
    ] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
