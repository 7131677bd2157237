//! Regions as the node reads them: files that tenants can write, and therefore not believed.

mod asked;
mod events;
mod find;
mod kinds;
mod read;
mod reap;
mod report;

pub use events::{Event, EventKind};
pub use find::{Found, Mishap, Places};
pub use kinds::Kinds;
pub use read::read_path;
pub use reap::{SETTLE, settle};
#[cfg(test)]
pub use report::LeaseReport;
pub use report::{Device, Process, ProcessDevice, Region};
