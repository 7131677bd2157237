//! Would a command be held? Its file is read, and the loader is asked what it would load; the command is not started.

use super::elf::{self, Elf};
use super::finding::Finding;
use super::preload::NAME;
use crate::regions::shown;
use crate::tools::messages::{
    DLMOPEN, NO_PROGRAM, OTHER_CLASS, OTHER_LIBC, PROGRAM_FINE, SECURE, STATIC, WOULD_NOT_MAP,
};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Interpreters of scripts that are followed.
const DEEPEST: usize = 4;

/// What would become of the command.
pub fn look(name: &OsStr) -> Vec<Finding> {
    match file(name) {
        Ok((path, bytes)) => of_program(&path, &bytes),
        Err(says) => vec![Finding::error(&NO_PROGRAM, says)],
    }
}

/// The file that would be run: of a script that of its interpreter.
pub fn real(name: &OsStr) -> Option<PathBuf> {
    file(name).ok().map(|(path, _)| path)
}

fn file(name: &OsStr) -> Result<(PathBuf, Vec<u8>), String> {
    let mut name = name.to_owned();
    for _ in 0..DEEPEST {
        let path = find(&name).ok_or_else(|| format!("{} is not found.", shown(Path::new(&name))))?;
        let bytes = elf::read(&path).map_err(|error| format!("{}: {error}.", shown(&path)))?;
        match script(&bytes) {
            Some(interpreter) => name = interpreter,
            None => return Ok((path, bytes)),
        }
    }
    Err(format!("{} is a script of a script of a script.", shown(Path::new(&name))))
}

/// As a shell finds it.
fn find(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The program that runs a script; of `env` the one that it names.
fn script(bytes: &[u8]) -> Option<OsString> {
    let line = bytes.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let interpreter = words.next()?;
    let by_env = interpreter.ends_with(b"/env").then(|| words.find(|word| !word.starts_with(b"-"))).flatten();
    Some(OsStr::from_bytes(by_env.unwrap_or(interpreter)).to_owned())
}

fn of_program(path: &Path, bytes: &[u8]) -> Vec<Finding> {
    let name = shown(path);
    let Some(program) = Elf::parse(bytes) else {
        return vec![Finding::error(
            &OTHER_CLASS,
            format!("{name} is no program of 64 bits of this processor."),
        )];
    };
    let Some(loader) = program.interpreter() else {
        return vec![Finding::error(&STATIC, format!("{name} asks for no loader."))];
    };
    if !loader.to_string_lossy().contains("ld-linux") {
        return vec![Finding::warning(
            &OTHER_LIBC,
            format!("{name} asks for the loader {}.", shown(&loader)),
        )];
    }
    let mut findings = Vec::new();
    if is_secure(path) {
        findings.push(Finding::warning(&SECURE, format!("{name} runs with more rights than who starts it.")));
    }
    if program.imports("dlmopen") {
        findings.push(Finding::warning(&DLMOPEN, format!("{name} calls dlmopen.")));
    }
    findings.push(by_loader(path, &loader));
    findings
}

fn is_secure(path: &Path) -> bool {
    let mode = path.metadata().map_or(0, |metadata| metadata.permissions().mode());
    let mut room = [0u8; 64];
    mode & 0o6000 != 0 || rustix::fs::getxattr(path, "security.capability", &mut room[..]).is_ok()
}

/// The loader's own word. It lists, and starts nothing.
fn by_loader(path: &Path, loader: &Path) -> Finding {
    let name = shown(path);
    match Command::new(loader).arg("--list").arg(path).output() {
        Ok(listed) if String::from_utf8_lossy(&listed.stdout).contains(NAME) => {
            Finding::fine(&PROGRAM_FINE, format!("{name} would be started with {NAME}."))
        }
        Ok(listed) => {
            let said = String::from_utf8_lossy(&listed.stderr);
            let said = said
                .lines()
                .find(|line| line.contains("preload"))
                .map(|line| format!(" The loader says: {line}"));
            let says = format!("{name} would be started without {NAME}.{}", said.unwrap_or_default());
            Finding::error(&WOULD_NOT_MAP, says)
        }
        Err(error) => {
            Finding::warning(&WOULD_NOT_MAP, format!("{} cannot be asked: {error}.", shown(loader)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_names_its_program() {
        let of = |text: &str| script(text.as_bytes()).map(|name| name.to_string_lossy().into_owned());
        assert_eq!(of("#!/bin/sh -e\nexit"), Some("/bin/sh".into()));
        assert_eq!(of("#! /usr/bin/env python3\n"), Some("python3".into()));
        assert_eq!(of("#!/usr/bin/env -S python3 -u\n"), Some("python3".into()));
        assert_eq!((of("echo"), of("#!\n"), of("")), (None, None, None));
    }
}
