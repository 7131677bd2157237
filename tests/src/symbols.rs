//! The symbols and headers of a library, by binutils.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The output of a tool of binutils on a library.
pub fn binutils(tool: &str, arguments: &[&str], library: &Path) -> String {
    run(tool, arguments, library).unwrap_or_else(|why| panic!("{why}"))
}

/// Names of the dynamic symbols that a library defines, without their versions.
pub fn exports(library: &Path) -> BTreeSet<String> {
    try_exports(library).unwrap_or_else(|why| panic!("{why}"))
}

/// The same of a file that may be no library.
pub fn try_exports(library: &Path) -> Result<BTreeSet<String>, String> {
    let table = run("nm", &["-D", "--defined-only"], library)?;
    let names = table.lines().filter_map(|line| line.split_whitespace().last());
    Ok(names.map(|name| name.split('@').next().unwrap_or(name).to_owned()).collect())
}

fn run(tool: &str, arguments: &[&str], library: &Path) -> Result<String, String> {
    let output = Command::new(tool).args(arguments).arg(library).output();
    let output = output.map_err(|why| format!("{tool}: {why}; it comes with binutils"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{tool}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
