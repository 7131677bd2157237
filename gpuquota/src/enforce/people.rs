//! Users and groups: names to numbers, by the files of the root or, on this machine, by whoever else knows them.

use crate::changes::Root;
use crate::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The number of a user.
pub fn user(root: &Root, name: &str, origin: &str) -> Result<u32, Error> {
    number(root, name, origin, "passwd")
}

/// The number of a group.
pub fn group(root: &Root, name: &str, origin: &str) -> Result<u32, Error> {
    number(root, name, origin, "group")
}

/// The numbers of people, as Linux distributions give them out, that the root's own file knows.
pub fn everybody(root: &Root) -> Vec<u32> {
    let text = fs::read_to_string(root.real(Path::new("/etc/passwd"))).unwrap_or_default();
    let numbers = text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok());
    numbers.filter(|number| (1000..60_000).contains(number)).collect()
}

fn number(root: &Root, name: &str, origin: &str, database: &str) -> Result<u32, Error> {
    // The last of them means "nobody in particular" to the system's calls.
    if let Ok(number) = name.parse::<u32>().map(|number| number.checked_add(1).map(|_| number)) {
        return number.ok_or_else(|| {
            Error::Asked(format!(
                "{origin} {name}: this is nobody's number. Write the name or the number of one"
            ))
        });
    }
    let file = root.real(&Path::new("/etc").join(database));
    let known = fs::read_to_string(file).ok().and_then(|text| line(&text, name));
    let asked = || {
        let asked = root.is_this_machine() && is_name(name);
        let output = asked.then(|| Command::new("getent").args([database, name]).output().ok()).flatten()?;
        line(&String::from_utf8_lossy(&output.stdout), name)
    };
    known.or_else(asked).ok_or_else(|| {
        Error::Asked(format!(
            "{origin} {name}: nobody is called so in {database}. Write the name that `getent {database}` knows, or the number"
        ))
    })
}

fn is_name(name: &str) -> bool {
    !name.starts_with('-') && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

/// The number in the line of that name.
fn line(text: &str, name: &str) -> Option<u32> {
    let lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.into_iter().find(|words| words.first() == Some(&name))?.get(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_number_of_its_line() {
        let text =
            "root:x:0:0::/root:/bin/sh\nann:x:1001:100::/home/ann:/bin/sh\nannie:x:1002:100:::\nbad:x::\n";
        assert_eq!((line(text, "ann"), line(text, "root"), line(text, "an")), (Some(1001), Some(0), None));
        assert_eq!((line(text, "bad"), line(text, "")), (None, None));
    }
}
