//! What a library says of itself, by binutils.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// What a tool of binutils prints of a library.
pub fn binutils(tool: &str, arguments: &[&str], library: &Path) -> String {
    let output = Command::new(tool).args(arguments).arg(library).output();
    let output = output.unwrap_or_else(|why| panic!("{tool}: {why}; it comes with binutils"));
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Names of the dynamic symbols that it defines, without their versions.
pub fn exports(library: &Path) -> BTreeSet<String> {
    let table = binutils("nm", &["-D", "--defined-only"], library);
    let names = table.lines().filter_map(|line| line.split_whitespace().last());
    names.map(|name| name.split('@').next().unwrap_or(name).to_owned()).collect()
}
