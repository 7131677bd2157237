//! Values by number: `nvmlDeviceGetFieldValues`. Each carries a result of its own.

use crate::abi::{Error, Out, SUCCESS};
use crate::activity::now_us;
use crate::export::nvml;
use crate::library::{Device, Handle};
use crate::sensors::power_mw;
use crate::types::FieldValue;

/// `NVML_FI_DEV_*`.
const NVLINK_LINK_COUNT: u32 = 91;
const PCIE_REPLAY_COUNTER: u32 = 94;
const POWER_AVERAGE: u32 = 185;
const POWER_INSTANT: u32 = 186;

/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const UNSIGNED_INT: u32 = 1;

fn value(device: &Device, field: u32) -> Option<u32> {
    match field {
        NVLINK_LINK_COUNT | PCIE_REPLAY_COUNTER => Some(0),
        POWER_AVERAGE | POWER_INSTANT => Some(power_mw(device)),
        _ => None,
    }
}

nvml! {
    /// Fills in what is known of the fields asked for; the others say `NOT_SUPPORTED` in their places.
    fn nvmlDeviceGetFieldValues(device: Handle, count: i32, fields: Out<FieldValue>) {
        let device = device.device()?;
        let count = usize::try_from(count).map_err(|_| Error::InvalidArgument)?;
        if count == 0 {
            return Err(Error::InvalidArgument);
        }
        for index in 0..count {
            let asked = fields.get_at(index)?;
            let found = value(&device, asked.field_id);
            fields.put_at(index, FieldValue {
                timestamp: now_us().cast_signed(),
                latency_usec: 0,
                value_type: UNSIGNED_INT,
                nvml_return: found.map_or(Error::NotSupported as u32, |_| SUCCESS),
                value: found.unwrap_or(0).into(),
                ..asked
            })?;
        }
        Ok(())
    }
}
