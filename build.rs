//! Link arguments of libgpuquota.so, and nothing else.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in [
        // The name that other objects see, whatever the file is called when it is mounted (libvgpu.so...).
        "-Wl,-soname,libgpuquota.so",
        // Pointers to our hooks are handed out for good.
        "-Wl,-z,nodelete",
        // Our own tables must hold our own functions, whoever else exports a `cuMemAlloc_v2`.
        "-Wl,-Bsymbolic",
        // An undefined symbol is a link error: in release builds a reachable panic is one (see lib.rs).
        "-Wl,-z,defs",
        // Neither constructors nor destructors of C's start files are needed.
        "-nostartfiles",
        // The libc crate names it only where no other member of the workspace builds that crate for std.
        "-lc",
    ] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
