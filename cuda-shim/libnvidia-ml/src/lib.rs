//! The simulated libnvidia-ml.so.1: NVML over the truth of the simulated device.
//!
//! Rooms, imports point downward only:
//! - `system`, `device`, `memory`, `activity`, `accounting`, `processes`, `sensors`, `modes`, `topology`,
//!   `fields`, `events`, `limits`: NVML by subject, one entry per function;
//! - `unsupported`: every other function of the header, each answering `NOT_SUPPORTED`;
//! - `internal`: the private table that nvidia-smi asks for;
//! - `utilisation`: samples of how busy a device is;
//! - `pids`: process ids as the caller's namespace has them;
//! - `export`: how a function is declared as an export;
//! - `library`: initialisation, the machine, handles;
//! - `types`: NVML's structures;
//! - `abi`: what C hands in and gets back; the only room that touches the caller's memory.
//!
//! What the machine does not simulate (memory traffic, temperatures, fans, links) is a constant or
//! `NOT_SUPPORTED`, never a guess that changes.

mod abi;
mod accounting;
mod activity;
mod device;
mod events;
mod export;
mod fields;
mod internal;
mod library;
mod limits;
mod memory;
mod modes;
mod pids;
mod processes;
mod sensors;
mod system;
#[cfg(test)]
mod tests;
mod topology;
mod types;
mod unsupported;
mod utilisation;
