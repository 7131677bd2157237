//! NVML's private table, which nvidia-smi asks for by identifier.
//!
//! What its entries do is not published. Those that nvidia-smi lists processes with were found by watching
//! what nvidia-smi 535 passes to them and prints of what they leave: the three lists of processes, of a
//! structure that carries the process's name. nvidia-smi does without all others, which answer
//! `NOT_SUPPORTED`. The identifier and the length (255 words in driver 555) are what one sees by asking a real
//! library.
//!
//! # Safety
//! An entry that answers `NOT_SUPPORTED` takes no notice of its arguments.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_void};

use crate::abi::{Code, Error, Out, code, field, put_list};
use crate::library::Handle;
use crate::processes::{Listed, none, running};
use crate::system::program;

/// Words of the table, its size among them.
const WORDS: usize = 255;
/// Where the lists of processes lie, in drivers 535 to 555.
const COMPUTE_PROCESSES: usize = 213;
const GRAPHICS_PROCESSES: usize = 214;
const MPS_PROCESSES: usize = 215;

/// A process with its name.
#[repr(C)]
#[derive(Clone, Copy)]
struct NamedProcess {
    pid: u32,
    used_gpu_memory: u64,
    gpu_instance_id: u32,
    compute_instance_id: u32,
    /// Of no visible effect.
    unknown: u64,
    name: [c_char; 4096],
}

const _: () = assert!(size_of::<NamedProcess>() == 4128);

/// As a client sees it: the size in bytes, then addresses of functions.
#[repr(transparent)]
struct Table([*const c_void; WORDS]);

// SAFETY: the table is never written, and what it points to is code.
unsafe impl Sync for Table {}

static TABLE: Table = {
    let mut words = [not_supported as *const c_void; WORDS];
    words[0] = core::ptr::without_provenance(size_of::<Table>());
    words[COMPUTE_PROCESSES] = compute_processes as *const c_void;
    words[GRAPHICS_PROCESSES] = no_processes as *const c_void;
    words[MPS_PROCESSES] = no_processes as *const c_void;
    Table(words)
};

extern "C" fn not_supported() -> Code {
    Error::NotSupported as Code
}

/// `(nvmlDevice_t device, unsigned *count, named process *infos)`, by the protocol of the public lists.
extern "C" fn compute_processes(device: Handle, count: Out<u32>, infos: Out<NamedProcess>) -> Code {
    code(device.any().and_then(|device| {
        let named = |Listed { pid, bytes, instance: [gpu_instance_id, compute_instance_id] }| NamedProcess {
            pid,
            used_gpu_memory: bytes,
            gpu_instance_id,
            compute_instance_id,
            unknown: 0,
            name: field(program(pid).unwrap_or_default()),
        };
        put_list(count, infos, &running(&device).into_iter().map(named).collect::<Vec<_>>())
    }))
}

extern "C" fn no_processes(device: Handle, count: Out<u32>, _infos: Out<NamedProcess>) -> Code {
    code(none(device, count))
}

/// The table of an identifier of 16 bytes. Asked for before `nvmlInit`.
#[allow(non_snake_case)]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInternalGetExportTable(table: Out<*const c_void>, id: Out<[u8; 16]>) -> Code {
    const ID: [u8; 16] = 0xc4fe3e6c_c98f_6c4e_a327_ee696e12f7c4_u128.to_be_bytes();
    code(match id.get() {
        Ok(ID) => table.put((&raw const TABLE).cast()),
        _ => Err(Error::InvalidArgument),
    })
}
