//! A container without a runtime: what it was given is mounted in a namespace of its own, and a program runs there.

use gpuquota_promises::{Machine, Program, Scratch, mount_namespace, own_etc, program, start_after};

/// A mount: source, destination, and whether it can only be read.
pub type Bind = (String, String, bool);

/// Starts `hold` on a machine with these mounts.
fn start(machine: &Machine, binds: &[Bind]) -> Program {
    let options = mount_namespace().expect("root may make a mount namespace");
    let etc = Scratch::new();
    let mut script = format!("{}; mount -t tmpfs none /run; mkdir -p /etc/gpuquota", own_etc(&etc));
    // The list of the loader's comes last: the commands of this script are no programs of the container.
    let (list, others): (Vec<_>, Vec<_>) = binds.iter().partition(|(_, to, _)| to == "/etc/ld.so.preload");
    for (from, to, is_read_only) in others.into_iter().chain(list) {
        let make = format!("if [ -d {from} ]; then mkdir -p {to}; else [ -e {to} ] || : > {to}; fi");
        let access = if *is_read_only { "ro" } else { "rw" };
        script.push_str(&format!("; {make}; mount --bind {from} {to}; mount -o remount,bind,{access} {to}"));
    }
    let mut started = start_after(options, &script, machine.bare().command(program("hold"), &[]));
    // What the script needs goes with this function.
    started.wait_for("pid");
    started
}

/// What programs of that container see and get: the total, and the answers to two requests that together are above it.
pub fn has(machine: &Machine, binds: &[Bind], bytes: u64) {
    let mut first = start(machine, binds);
    let mut second = start(machine, binds);
    assert_eq!(first.ask("info", "total"), bytes as i64);
    assert_eq!(second.ask("info", "total"), bytes as i64);
    let most = bytes / 4 * 3;
    assert_eq!(first.ask(&format!("alloc {most}"), "rc"), 0);
    // Both are in one region, and have one cap.
    assert_eq!(second.ask(&format!("alloc {most}"), "rc"), gpuquota_promises::OUT_OF_MEMORY);
    first.finish().success();
    second.finish().success();
}
