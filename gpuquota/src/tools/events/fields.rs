//! The fields of an event as people read them, in a terminal and on the agent's page.

use crate::tools::node::Event;
use crate::words::bytes;
use serde_json::Value;

/// All of them in one line.
pub fn told(event: &Event) -> String {
    let more: Vec<String> = event.more.iter().filter_map(|(name, value)| field(name, value)).collect();
    more.join(" ")
}

/// One field of an event, as a person reads it; sizes by their names.
fn field(name: &str, value: &Value) -> Option<String> {
    let is_size = matches!(name, "requested" | "used" | "limit" | "bytes" | "card_bytes" | "booked_bytes");
    match value {
        _ if matches!(name, "number" | "device") => None,
        Value::Null => None,
        Value::Number(number) if is_size => match number.as_u64() {
            Some(percent) if percent <= 100 => Some(format!("{name}={percent}")),
            Some(size) => Some(format!("{name}={}", bytes(size).replace(' ', ""))),
            None => None,
        },
        Value::String(text) if text.contains(' ') => Some(format!("{name}={text:?}")),
        Value::String(text) => Some(format!("{name}={text}")),
        value => Some(format!("{name}={value}")),
    }
}
