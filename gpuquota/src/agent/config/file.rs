//! The TOML file with the agent's settings.

use super::keys::{KEYS, Settings, nearest, take};
use crate::error::Error;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;
use toml::Value;

/// Longer files are refused.
const LONGEST: u64 = 1 << 20;

/// Applies what the file says. `named`: who named the file; one that nobody named need not be there.
pub fn apply(settings: &mut Settings, path: &Path, named: Option<&str>) -> Result<(), Error> {
    let told = |why: &dyn std::fmt::Display| Error::Asked(format!("{}: {why}", path.display()));
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => return Ok(()),
        Err(error) => {
            let by = named.map_or_else(String::new, |named| format!("{named}: "));
            return Err(Error::Asked(format!("{by}cannot read {}: {error}", path.display())));
        }
    };
    let table: toml::Table = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let before = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count() + 1;
        told(&format_args!("line {line}: {}", error.message().replace('\n', " ")))
    })?;
    for (name, value) in &table {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let near = nearest(name).map_or_else(String::new, |near| format!("; did you mean {near}?"));
            return Err(told(&format_args!("{} is no setting{near}", name.escape_debug())));
        };
        let values = match value {
            Value::Array(values) if key.many => values.iter().map(word).collect(),
            value => word(value).map(|value| vec![value]),
        };
        let values = values.map_err(|why| told(&format_args!("{name}: {why}")))?;
        take(settings, key, &values, &format!("{}: {name}", path.display()))?;
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    if file.take(LONGEST + 1).read_to_string(&mut text)? as u64 > LONGEST {
        return Err(io::Error::other(format!("it is longer than {LONGEST} bytes")));
    }
    Ok(text)
}

/// A value as it would stand behind a flag.
fn word(value: &Value) -> Result<OsString, String> {
    match value {
        Value::String(text) => Ok(text.into()),
        Value::Integer(number) => Ok(number.to_string().into()),
        Value::Boolean(is) => Ok(is.to_string().into()),
        other => {
            Err(format!("it is {}, and should be text, a whole number, true or false", other.type_str()))
        }
    }
}
