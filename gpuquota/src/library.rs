//! The library as a file: where it is without any engine, what names it and its limits to programs, and whether a file is it, for
//! that machine.

use crate::changes::Root;
use crate::error::Error;
use gpuquota_quota::limits::LIMITS_FILE;
use std::fs;
use std::path::Path;

/// Where the library is without any engine.
pub const INSTALLED: &str = "/usr/local/lib/gpuquota/libgpuquota.so";

/// The loader's list of libraries that every program gets.
pub const PRELOAD: &str = "/etc/ld.so.preload";

/// The limits file's place, as the library has it.
pub fn limits_file() -> &'static str {
    LIMITS_FILE.to_str().unwrap_or_default()
}

/// Names of ELF machines that NVIDIA has drivers for.
const MACHINES: [(u16, &str); 2] = [(62, "x86_64"), (183, "aarch64")];

/// The ELF class and machine of a file, if it is a shared object or a program.
fn machine(bytes: &[u8]) -> Option<(u8, u16)> {
    let head = bytes.get(..20).filter(|head| head.starts_with(b"\x7fELF"))?;
    let kind = u16::from_le_bytes([head[16], head[17]]);
    matches!(kind, 2 | 3).then(|| (head[4], u16::from_le_bytes([head[18], head[19]])))
}

fn name((class, machine): (u8, u16)) -> String {
    let bits = if class == 1 { ", 32 bit" } else { "" };
    let known = MACHINES.iter().find(|(number, _)| *number == machine);
    known.map_or_else(|| format!("machine {machine}{bits}"), |(_, name)| format!("{name}{bits}"))
}

/// Whether a library is ours, whatever its file is called: by the SONAME that we give it.
pub fn is_it(bytes: &[u8]) -> bool {
    const SONAME: &[u8] = b"libgpuquota.so\0";
    bytes.windows(SONAME.len()).any(|window| window == SONAME)
}

/// Reads the library, and refuses what would not load on that machine.
pub fn read(path: &Path, root: &Root) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(path).map_err(|error| {
        Error::Asked(format!("--library {}: {error}. Name the libgpuquota.so of the release", path.display()))
    })?;
    let refused = |why: String| {
        Err(Error::Asked(format!(
            "--library {}: {why}. Take libgpuquota.so from the release for this machine",
            path.display()
        )))
    };
    let Some(own) = machine(&bytes) else { return refused("it is no shared library".to_owned()) };
    let program = root.program().or_else(|| fs::read("/proc/self/exe").ok());
    let wanted = program.as_deref().and_then(machine).unwrap_or(own);
    if own != wanted {
        return refused(format!(
            "it is for {}, and the programs of this root are for {}",
            name(own),
            name(wanted)
        ));
    }
    // Somebody else's library under our name would be a quota that is none.
    if !is_it(&bytes) {
        return refused("it is a library, and not libgpuquota.so".to_owned());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_told_apart() {
        let elf = |class: u8, kind: u8, machine: u8| {
            let mut bytes = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
            bytes.resize(16, 0);
            bytes.extend([kind, 0, machine, 0]);
            bytes
        };
        assert_eq!(machine(&elf(2, 3, 62)).map(name).as_deref(), Some("x86_64"));
        assert_eq!(machine(&elf(2, 3, 183)).map(name).as_deref(), Some("aarch64"));
        assert_eq!(machine(&elf(1, 3, 3)).map(name).as_deref(), Some("machine 3, 32 bit"));
        assert_eq!((machine(&elf(2, 1, 62)), machine(b"\x7fELF"), machine(b"#!/bin/sh")), (None, None, None));
    }
}
