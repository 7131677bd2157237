//! Which device of a machine file an error is about.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// The error with its line and its key, and with the device if it lies in one's table.
pub fn told(error: &toml::de::Error, text: &str) -> String {
    let place = error.span().unwrap_or_default();
    let file = DeTable::parse(text).ok();
    match file.as_ref().and_then(|file| file.get_ref().get("device")).map(Spanned::get_ref) {
        Some(DeValue::Array(devices)) => match device_at(devices, &place) {
            Some(index) => format!("device {index}: {error}"),
            None => error.to_string(),
        },
        Some(_) => format!("{}: write [[device]], a table for each device", error.to_string().trim_end()),
        None => error.to_string(),
    }
}

/// The number in the machine of the device whose table has this place.
fn device_at(devices: &DeArray<'_>, place: &Range<usize>) -> Option<usize> {
    let before = devices.iter().position(|device| reaches(device, place))?;
    Some(devices.iter().take(before).map(count).fold(0, usize::saturating_add))
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
        Some(DeValue::Integer(number)) => usize::from_str_radix(number.as_str(), number.radix()).unwrap_or(1),
        _ => 1,
    }
}
