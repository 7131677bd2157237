//! What can hold a container to a cap: its region, and from driver 615 on the driver itself, by cgroup.
//!
//! The region holds programs that load the library, in every respect. The driver holds the memory of all programs, static ones
//! and those that talk to it directly too, and nothing else.

mod backend;
mod driver;
mod leaf;
mod region;

pub use backend::{Backend, Cap, Wanted};
pub use driver::Driver;
pub use leaf::leaf_of;
pub use region::InRegion;
