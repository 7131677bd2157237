//! What a pointer is.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::operations::pointers::{self, DEVICE, Known};
use crate::model::world::world;
use crate::tools::ffi::{In, Out};
use crate::tools::status::{INVALID_VALUE, NOT_SUPPORTED, Outcome};

/// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS`, the one that can be set.
const SYNC_MEMOPS: u32 = 6;

/// An attribute's value, by its size.
enum Value {
    Short(u32),
    Long(u64),
}

fn attribute(known: &Known, attribute: u32, address: u64) -> Outcome<Value> {
    Ok(match attribute {
        1 if known.context == 0 => return Err(INVALID_VALUE),
        1 => Value::Long(known.context),
        2 => Value::Short(known.memory),
        3 => Value::Long(address),
        4 if known.host => Value::Long(address),
        4 => return Err(INVALID_VALUE),
        5 => return Err(NOT_SUPPORTED),
        SYNC_MEMOPS => Value::Short(0),
        7 | 20 => Value::Long(known.id),
        8 => Value::Short(u32::from(known.managed)),
        9 => Value::Short(known.ordinal as u32),
        10 => Value::Short(u32::from(known.legacy_ipc)),
        11 | 19 => Value::Long(known.start),
        12 | 18 => Value::Long(known.length),
        13 => Value::Short(1),
        14 => Value::Long(u64::from(known.handle_types)),
        15 => Value::Short(u32::from(known.memory == DEVICE)),
        16 => Value::Short(3),
        17 => Value::Long(known.pool),
        21 => Value::Short(0),
        // Of no locality domain.
        22 => Value::Short(-1_i32 as u32),
        _ => return Err(INVALID_VALUE),
    })
}

fn put(out: Out<u64>, value: Value) -> Outcome {
    match value {
        Value::Short(value) => out.cast::<u32>().put(value),
        Value::Long(value) => out.put(value),
    }
}

/// What [`attribute`] would say of an address that the driver does not know: nothing, in the same size.
fn nothing(attribute: u32) -> Outcome<Value> {
    Ok(match attribute {
        2 | SYNC_MEMOPS | 8 | 10 | 13 | 15 | 16 | 21 => Value::Short(0),
        22 => Value::Short(-1_i32 as u32),
        9 => Value::Short(-2_i32 as u32),
        1 | 3 | 4 | 7 | 11 | 12 | 14 | 17..=20 => Value::Long(0),
        _ => return Err(INVALID_VALUE),
    })
}

export! {
    fn cuPointerGetAttribute(out: Out<u64>, which: u32, address: u64) {
        out.required()?;
        let mut world = world()?;
        world.current()?;
        let known = pointers::describe(&mut world, address).ok_or(INVALID_VALUE)?;
        put(out, attribute(&known, which, address)?)
    }

    fn cuPointerGetAttributes(count: u32, which: In<u32>, out: In<Out<u64>>, address: u64) {
        let mut world = world()?;
        world.current()?;
        if count == 0 {
            return Err(INVALID_VALUE);
        }
        let known = pointers::describe(&mut world, address);
        for index in 0..count as usize {
            let which = which.at(index)?;
            // What does not apply to a pointer is answered with nothing, not with an error.
            let value = match known.as_ref().map(|known| attribute(known, which, address)) {
                Some(Ok(value)) => value,
                _ => nothing(which)?,
            };
            put(out.at(index)?, value)?;
        }
        Ok(())
    }

    fn cuPointerSetAttribute(value: In<u32>, which: u32, address: u64) {
        let mut world = world()?;
        world.current()?;
        value.get()?;
        if which != SYNC_MEMOPS || pointers::describe(&mut world, address).is_none() {
            return Err(INVALID_VALUE);
        }
        Ok(())
    }
}
