//! Those of dcgm-exporter's metrics that HAMi-WebUI queries, in dcgm-exporter's units.

use super::family::{Family, Of, Scheme, Value, gauge};
use crate::agent::snapshot::Card;

const fn of_card(name: &'static str, help: &'static str, value: fn(&Card) -> Option<Value>) -> Family {
    let absent = "the card does not tell";
    Family { absent, scheme: Scheme::Dcgm, ..gauge(name, "", help, Of::CardFigure(value)) }
}

fn mebibytes(bytes: u64) -> Value {
    (bytes >> 20).into()
}

#[rustfmt::skip]
pub const FAMILIES: [Family; 8] = [
    of_card("DCGM_FI_DEV_FB_USED", "Memory of the device that is in use (in MiB).",
        |card| card.memory_used_bytes.map(mebibytes)),
    of_card("DCGM_FI_DEV_FB_FREE", "Memory of the device that is free (in MiB).", |card| {
        Some(mebibytes(card.memory_total_bytes?.saturating_sub(card.memory_used_bytes?)))
    }),
    of_card("DCGM_FI_DEV_GPU_UTIL", "Utilization of the device (in %).",
        |card| card.utilization_ratio.map(|ratio| (ratio * 100.0).into())),
    of_card("DCGM_FI_DEV_POWER_USAGE", "Power that the device draws (in W).",
        |card| card.power_watts.map(Value::from)),
    of_card("DCGM_FI_DEV_GPU_TEMP", "Temperature of the device (in C).",
        |card| card.temperature_celsius.map(Value::from)),
    of_card("DCGM_FI_DEV_MEMORY_TEMP", "Temperature of the device's memory (in C).",
        |card| card.memory_temperature_celsius.map(Value::from)),
    of_card("DCGM_FI_DEV_FAN_SPEED", "Speed of the device's fan (in %).",
        |card| card.fan_ratio.map(|ratio| (ratio * 100.0).into())),
    of_card("DCGM_FI_DEV_XID_ERRORS", "The last Xid that the device reported.",
        |card| card.last_xid.map(Value::from)),
];
