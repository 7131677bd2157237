//! Fills: every form comes to one [`Fill`] with checked addresses.

use crate::model::objects::moves::Fill;
use crate::model::operations::access;
use crate::model::world::World;
use crate::tools::status::{INVALID_VALUE, Outcome};

/// Rows to set: where, bytes from row to row, elements per row, rows.
pub type Rows = (u64, u64, u64, u64);

/// The fill that a call stands for; `None` if it sets nothing.
///
/// # Errors
/// `INVALID_VALUE` for memory that is not the device's, or not aligned to the element.
pub fn resolve(world: &mut World, rows: Rows, value: u32, element: u32) -> Outcome<Option<Fill>> {
    let (to, pitch, count, height) = rows;
    let bytes = u64::from(element);
    if count == 0 || height == 0 {
        return Ok(None);
    }
    let width = count.checked_mul(bytes).ok_or(INVALID_VALUE)?;
    let aligned = to.is_multiple_of(bytes) && (height == 1 || pitch.is_multiple_of(bytes));
    if !aligned || (height > 1 && pitch < width) {
        return Err(INVALID_VALUE);
    }
    let pitch = if height == 1 { width } else { pitch };
    let reach =
        pitch.checked_mul(height - 1).and_then(|rows| rows.checked_add(width)).ok_or(INVALID_VALUE)?;
    if !access::reaches(world, to, reach, true) {
        return Err(INVALID_VALUE);
    }
    Ok(Some(Fill { to, pitch, value, element, width, height }))
}
