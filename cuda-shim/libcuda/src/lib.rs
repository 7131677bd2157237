//! The simulated `libcuda.so.1`: a driver good enough that real, unmodified CUDA software runs on it.
//!
//! Kernels take time and compute nothing; copies, fills and host functions are real. All processes of a simulated
//! machine share its devices through `cuda-shim-device`. The rooms, from the border inwards:
//!
//! - `ffi`, `abi`, `status`, `logs`, `faults`, `table`: arguments, structs, errors, their log and their script,
//!   handles;
//! - `start`, `symbols`, `dark`, `stubs`: how a process gets in, where functions are, private tables, what is missing;
//! - `device`, `attributes`, `context`, `module`, `image`, `ptx`, `kernel`, `occupancy`, `launch`: what there is and what
//!   runs on it;
//! - `stream`, `event`, `capture`, `graph`, `op`, `hostfn`, `values`, `time`, `latency`, `stamps`: order and time;
//! - `memory`, `array`, `texture`, `heap`, `bytes`: memory, its addresses and its content;
//! - `narrow`: first versions of calls, of 32 bits;
//! - `world`, `spin`, `thread`: all objects behind one lock, and what each thread has.

mod abi;
mod array;
mod attributes;
mod bytes;
mod capture;
mod context;
mod dark;
mod device;
mod event;
mod faults;
mod ffi;
mod graph;
mod heap;
mod hostfn;
mod image;
mod kernel;
mod latency;
mod launch;
mod logs;
mod memory;
mod misc;
mod module;
mod narrow;
mod occupancy;
mod op;
mod ptx;
mod spin;
mod stamps;
mod start;
mod status;
mod stream;
mod stubs;
mod symbols;
mod table;
mod texture;
mod thread;
mod time;
mod values;
mod world;
