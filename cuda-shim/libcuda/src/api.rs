//! The exported functions: each checks its arguments, has the model do what is asked and stores the answer. Nothing of the
//! model imports anything of this.

mod abi;
mod array;
mod capture;
mod context;
mod device;
mod event;
mod export;
mod graph;
mod launch;
mod logs;
mod memory;
mod misc;
mod module;
mod narrow;
mod occupancy;
mod start;
mod stream;
mod stubs;
mod symbols;
mod texture;
mod values;
