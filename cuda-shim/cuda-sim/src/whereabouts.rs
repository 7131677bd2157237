//! Which device of a machine file an error is about.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The error with its line and its key, and with the device if it lies in one's table.
pub fn told(error: &toml::de::Error, text: &str) -> String {
    let device = error.span().and_then(|place| device_at(text, &place));
    device.map_or_else(|| error.to_string(), |index| format!("device {index}: {error}"))
}

/// The number in the machine of the device whose table has this place.
fn device_at(text: &str, place: &Range<usize>) -> Option<usize> {
    let file = DeTable::parse(text).ok()?;
    let DeValue::Array(devices) = file.get_ref().get("device")?.get_ref() else { return None };
    let before = devices.iter().position(|device| reaches(device, place))?;
    Some(devices.iter().take(before).map(count).sum())
}

/// Whether a value, or a key or a value within it, has this place.
fn reaches(value: &Spanned<DeValue<'_>>, place: &Range<usize>) -> bool {
    let is_there = |span: Range<usize>| span.start <= place.start && place.end <= span.end;
    is_there(value.span())
        || match value.get_ref() {
            DeValue::Array(values) => values.iter().any(|value| reaches(value, place)),
            DeValue::Table(table) => {
                table.iter().any(|(key, value)| is_there(key.span()) || reaches(value, place))
            }
            _ => false,
        }
}

/// So many devices a table stands for.
fn count(device: &Spanned<DeValue<'_>>) -> usize {
    match device.get_ref().get("count").map(Spanned::get_ref) {
        Some(DeValue::Integer(number)) => number.as_str().parse().unwrap_or(1),
        _ => 1,
    }
}
