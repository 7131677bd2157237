//! The symbols and headers of a library, by binutils.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The output of a tool of binutils on a library.
pub fn binutils(tool: &str, arguments: &[&str], library: &Path) -> String {
    let output = Command::new(tool).args(arguments).arg(library).output();
    let output = output.unwrap_or_else(|why| panic!("{tool}: {why}; it comes with binutils"));
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Names of the dynamic symbols that a library defines, without their versions.
pub fn exports(library: &Path) -> BTreeSet<String> {
    let table = binutils("nm", &["-D", "--defined-only"], library);
    let names = table.lines().filter_map(|line| line.split_whitespace().last());
    names.map(|name| name.split('@').next().unwrap_or(name).to_owned()).collect()
}
