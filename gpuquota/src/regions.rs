//! Regions as the node reads them: files that tenants can write, and therefore not believed.

mod asked;
mod directory;
mod events;
mod index;
mod kinds;
mod look;
mod names;
mod owners;
mod place;
mod read;
mod reap;
mod refusals;
mod report;
mod unreadable;
mod watch;

pub use directory::Owner;
pub use directory::PREPARED;
pub use events::{Event, EventKind};
pub use index::{AllLiving, Found, Has, Index, Living, Mishap};
pub use kinds::Kinds;
pub use names::{harmless, shown};
pub use owners::owners;
pub use place::{OF_OTHERS, OF_USERS, Places};
pub use read::read_path;
pub use reap::{SETTLE, settle};
pub use refusals::Refusals;
#[cfg(test)]
pub use report::LeaseReport;
pub use report::{Device, Process, ProcessDevice, Region};
