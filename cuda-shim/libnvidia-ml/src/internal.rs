//! NVML's private table, which nvidia-smi asks for by identifier.
//!
//! What its entries do is not published. Those that are here were found by watching what nvidia-smi 535 to 555 pass
//! to them and print of what they leave: the three lists of processes, of a structure that carries the process's
//! name; whether the device is a board for servers or workstations, without which `pmon` and `dmon` refuse it; and
//! the samples of processes that `pmon` prints. nvidia-smi does without all others, which answer `NOT_SUPPORTED`. The identifier and the length (255 words in driver 555) are what one sees by asking a real
//! library.
//!
//! # Safety
//! An entry that answers `NOT_SUPPORTED` takes no notice of its arguments.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_void};

use crate::abi::{Answer, Code, Error, Out, code, field, put_list};
use crate::library::{Device, Handle};
use crate::pids::Naming;
use crate::processes::{Listed, none, running};
use crate::system::program;
use crate::utilisation::{PERIOD_NS, closed};

/// Words of the table, its size among them.
const WORDS: usize = 255;
/// Whether a device is a professional board, and the samples of its processes, in drivers 535 to 555.
const PROFESSIONAL: usize = 72;
const PROCESS_SAMPLES: usize = 145;
/// Where the lists of processes lie there.
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

/// The most busy process of an engine in a sample. The rest is of no visible effect.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct EngineSample {
    percent: u32,
    unknown: u32,
    pid: u32,
    rest: [u32; 17],
}

/// Multiprocessors, memory, encoder, decoder, and from driver 550 on JPEG and optical flow.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProcessSample<const ENGINES: usize> {
    time_stamp: u64,
    engines: [EngineSample; ENGINES],
}

const _: () = assert!(size_of::<ProcessSample<4>>() == 328 && size_of::<ProcessSample<6>>() == 488);

/// As a client sees it: the size in bytes, then addresses of functions.
#[repr(transparent)]
struct Table([*const c_void; WORDS]);

// SAFETY: the table is never written, and what it points to is code.
unsafe impl Sync for Table {}

static TABLE: Table = {
    let mut words = [not_supported as *const c_void; WORDS];
    words[0] = core::ptr::without_provenance(size_of::<Table>());
    words[PROFESSIONAL] = professional as *const c_void;
    words[PROCESS_SAMPLES] = process_samples as *const c_void;
    words[COMPUTE_PROCESSES] = compute_processes as *const c_void;
    words[GRAPHICS_PROCESSES] = no_processes as *const c_void;
    words[MPS_PROCESSES] = no_processes as *const c_void;
    Table(words)
};

extern "C" fn not_supported() -> Code {
    Error::NotSupported as Code
}

/// `(nvmlDevice_t device, unsigned *answer, 1)`
extern "C" fn professional(device: Handle, answer: Out<u32>) -> Code {
    code(device.device().and_then(|_| answer.put(1)))
}

/// `(nvmlDevice_t device, unsigned long long last seen, unsigned *unknown, unsigned *count, sample *samples)`
extern "C" fn process_samples(
    device: Handle,
    last_seen: u64,
    _unknown: Out<u32>,
    count: Out<u32>,
    samples: Out<ProcessSample<4>>,
) -> Code {
    code(device.unsplit().and_then(|device| {
        if Naming::of(device.state).version < (550, 0) {
            put_samples(&device, last_seen, count, samples)
        } else {
            put_samples(&device, last_seen, count, samples.cast::<ProcessSample<6>>())
        }
    }))
}

/// nvidia-smi prints the mean over all samples, of which each names one process. So a time in which several processes
/// worked becomes as many samples, each with as many times of what the process did.
fn put_samples<const ENGINES: usize>(
    device: &Device,
    last_seen: u64,
    count: Out<u32>,
    samples: Out<ProcessSample<ENGINES>>,
) -> Answer {
    let naming = Naming::of(device.state);
    let mut found = Vec::new();
    for sample in closed(device).filter(|sample| sample.time_stamp > last_seen) {
        let workers: Vec<_> = sample.busy.iter().filter(|(_, busy)| *busy > 0).collect();
        for (process, busy) in &workers {
            let percent = busy * 100 * workers.len() as u64 / PERIOD_NS;
            let mut engines = [EngineSample::default(); ENGINES];
            engines[0].percent = percent.min(100) as u32;
            engines[0].pid = naming.sampled(*process);
            found.push(ProcessSample { time_stamp: sample.time_stamp, engines });
        }
    }
    if found.is_empty() { Err(Error::NotFound) } else { put_list(count, samples, &found) }
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
