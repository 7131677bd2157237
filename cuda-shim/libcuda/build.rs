//! Link arguments: the soname that programs ask for, calls within the library bound to itself even where a
//! preloaded library exports the same names, and no unmapping: a client may close the driver and still
//! reach it from an exit handler. An export that no room implements is an error of the link.

fn main() {
    for argument in ["-Wl,-soname,libcuda.so.1", "-Wl,-Bsymbolic", "-Wl,-z,nodelete", "-Wl,-z,defs"] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
