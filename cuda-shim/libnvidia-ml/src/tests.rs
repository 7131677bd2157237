//! NVML's promises, held from inside: every entry called as a client calls it, on a machine of two devices.
//!
//! # Safety
//! Sets one environment variable and reads one word of a static table.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_void};
use core::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cuda_shim_device::{Machine, STATE_ENV, Seat, State, open_from_env};

use crate::abi::{Code, Error, Out, SUCCESS, Text};
use crate::accounting::*;
use crate::activity::{nvmlDeviceGetProcessUtilization, nvmlDeviceGetSamples, nvmlDeviceGetUtilizationRates};
use crate::device::*;
use crate::fields::nvmlDeviceGetFieldValues;
use crate::internal::nvmlInternalGetExportTable;
use crate::library::{Handle, nvmlInit_v2, nvmlShutdown};
use crate::memory::{nvmlDeviceGetMemoryInfo, nvmlDeviceGetMemoryInfo_v2};
use crate::processes::*;
use crate::topology::nvmlDeviceGetGpuFabricInfoV;
use crate::types::*;
use crate::unsupported::nvmlDeviceGetSerial;

const MIB: u64 = 1 << 20;

/// A machine of two devices for this test process, of which the second is this process's: 512 MiB of
/// context, 1000 MiB of memory. Tests take turns, since users of NVML are counted per process.
fn machine() -> (MutexGuard<'static, ()>, &'static Seat) {
    static TURN: Mutex<()> = Mutex::new(());
    static SEAT: OnceLock<Seat> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let seat = SEAT.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("nvml-test-{}", std::process::id()));
        let mut machine = Machine::preset("2xH100").unwrap();
        machine.devices[1].accounting = true;
        State::create(&path, &machine).unwrap();
        // SAFETY: every thread that might look at the environment waits for its turn.
        unsafe { std::env::set_var(STATE_ENV, &path) };
        let state = open_from_env().unwrap();
        std::fs::remove_file(&path).unwrap();
        let seat = Seat::take(state, 1).unwrap();
        state.memory(1).charge_context(512 * MIB).unwrap();
        state.memory(1).charge(1000 * MIB, 1000 * MIB).unwrap();
        seat
    });
    (turn, seat)
}

/// The same with the library initialised and the handle of the second device.
fn device() -> (MutexGuard<'static, ()>, &'static Seat, Handle) {
    let (turn, seat) = machine();
    assert_eq!(nvmlInit_v2(), SUCCESS);
    let mut handle = Handle::of(0);
    assert_eq!(nvmlDeviceGetHandleByIndex_v2(1, out(&mut handle)), SUCCESS);
    (turn, seat, handle)
}

fn out<T>(place: &mut T) -> Out<T> {
    Out::from(&raw mut *place)
}

fn null<T>() -> Out<T> {
    Out::from(null_mut())
}

fn is(error: Error) -> Code {
    error as Code
}

fn text(bytes: &[c_char]) -> String {
    bytes.iter().take_while(|byte| **byte != 0).map(|byte| char::from(byte.cast_unsigned())).collect()
}

#[test]
fn users_are_counted_and_nothing_answers_without_one() {
    let (_turn, _) = machine();
    let mut count = 0;
    assert_eq!(nvmlDeviceGetCount_v2(out(&mut count)), is(Error::Uninitialized));
    assert_eq!(nvmlDeviceGetSerial(), is(Error::Uninitialized));
    assert_eq!(nvmlShutdown(), is(Error::Uninitialized));
    assert_eq!((nvmlInit_v2(), nvmlInit_v2(), nvmlShutdown()), (SUCCESS, SUCCESS, SUCCESS));
    assert_eq!((nvmlDeviceGetCount_v2(out(&mut count)), count), (SUCCESS, 2));
    assert_eq!(nvmlDeviceGetSerial(), is(Error::NotSupported));
    assert_eq!(nvmlShutdown(), SUCCESS);
    assert_eq!(nvmlDeviceGetCount_v2(out(&mut count)), is(Error::Uninitialized));
}

#[test]
fn a_device_is_found_by_index_uuid_and_address_alike() {
    let (_turn, _, device) = device();
    let mut uuid = [0; 80];
    assert_eq!(nvmlDeviceGetUUID(device, Out::from(uuid.as_mut_ptr()), 80), SUCCESS);
    let uuid = std::ffi::CString::new(text(&uuid)).unwrap();
    for found in [
        |handle, _: &std::ffi::CStr| {
            nvmlDeviceGetHandleByPciBusId_v2(Text::from(c"00000000:11:00.0"), handle)
        },
        |handle, _: &std::ffi::CStr| nvmlDeviceGetHandleByPciBusId(Text::from(c"0000:11:00.0"), handle),
        |handle, _: &std::ffi::CStr| nvmlDeviceGetHandleByPciBusId_v2(Text::from(c"11:00"), handle),
        |handle, uuid: &std::ffi::CStr| nvmlDeviceGetHandleByUUID(Text::from(uuid), handle),
    ] {
        let (mut handle, mut index) = (Handle::of(0), 9);
        assert_eq!(found(out(&mut handle), &uuid), SUCCESS);
        assert_eq!((nvmlDeviceGetIndex(handle, out(&mut index)), index), (SUCCESS, 1));
    }
    nvmlShutdown();
}

#[test]
fn bad_arguments_are_refused() {
    let (_turn, _, device) = device();
    let mut handle = Handle::of(0);
    let mut name = [0; 96];
    assert_eq!(nvmlDeviceGetHandleByIndex_v2(2, out(&mut handle)), is(Error::InvalidArgument));
    assert_eq!(nvmlDeviceGetHandleByIndex_v2(0, null()), is(Error::InvalidArgument));
    assert_eq!(nvmlDeviceGetHandleByUUID(Text::from(c"GPU-no"), out(&mut handle)), is(Error::NotFound));
    for address in [c"", c"x", c"0:1:2:3", c"11:00.1"] {
        let found = nvmlDeviceGetHandleByPciBusId_v2(Text::from(address), out(&mut handle));
        assert_eq!(found, is(Error::InvalidArgument), "{address:?}");
    }
    // Handle::of(2) is of no device of this machine.
    assert_eq!(
        nvmlDeviceGetName(Handle::of(2), Out::from(name.as_mut_ptr()), 96),
        is(Error::InvalidArgument)
    );
    assert_eq!(nvmlDeviceGetName(device, null(), 96), is(Error::InvalidArgument));
    assert_eq!(nvmlDeviceGetName(device, Out::from(name.as_mut_ptr()), 5), is(Error::InsufficientSize));
    assert_eq!(nvmlDeviceGetName(device, Out::from(name.as_mut_ptr()), 96), SUCCESS);
    assert_eq!(text(&name), "NVIDIA H100 80GB HBM3");
    nvmlShutdown();
}

#[test]
fn both_memory_calls_tell_what_the_device_holds() {
    let (_turn, _, device) = device();
    let mut memory = Memory { total: 0, free: 0, used: 0 };
    assert_eq!(nvmlDeviceGetMemoryInfo(device, out(&mut memory)), SUCCESS);
    assert_eq!((memory.total, memory.used), (80 << 30, 1512 * MIB));
    let mut wide = MemoryV2 { version: 0x0200_0028, total: 0, reserved: 1, free: 0, used: 0 };
    assert_eq!(nvmlDeviceGetMemoryInfo_v2(device, out(&mut wide)), SUCCESS);
    assert_eq!(
        (wide.total, wide.reserved, wide.free, wide.used),
        (memory.total, 0, memory.free, memory.used)
    );
    wide.version = 0x0100_0028;
    assert_eq!(nvmlDeviceGetMemoryInfo_v2(device, out(&mut wide)), is(Error::ArgumentVersionMismatch));
    nvmlShutdown();
}

#[test]
fn a_process_with_a_context_is_listed_in_every_layout() {
    let (_turn, _, device) = device();
    let pid = std::process::id();
    for list in [nvmlDeviceGetComputeRunningProcesses_v2, nvmlDeviceGetComputeRunningProcesses_v3] {
        let mut count = 0;
        assert_eq!(list(device, out(&mut count), null()), is(Error::InsufficientSize));
        assert_eq!((list(device, out(&mut count), null()), count), (is(Error::InvalidArgument), 1));
        let none = ProcessInfo { pid: 0, used_gpu_memory: 0, gpu_instance_id: 0, compute_instance_id: 0 };
        let mut infos = [none; 3];
        count = 3;
        assert_eq!(list(device, out(&mut count), Out::from(infos.as_mut_ptr())), SUCCESS);
        assert_eq!((count, infos[0].pid, infos[0].used_gpu_memory), (1, pid, 1512 * MIB));
        assert_eq!((infos[0].gpu_instance_id, infos[1].pid), (NO_INSTANCE, 0));
    }
    let (mut count, mut info) = (1, ProcessInfoV1 { pid: 0, used_gpu_memory: 0 });
    assert_eq!(nvmlDeviceGetComputeRunningProcesses(device, out(&mut count), out(&mut info)), SUCCESS);
    assert_eq!((count, info.pid, info.used_gpu_memory), (1, pid, 1512 * MIB));
    assert_eq!(nvmlDeviceGetGraphicsRunningProcesses(device, out(&mut count), null()), SUCCESS);
    assert_eq!(count, 0);
    nvmlShutdown();
}

/// The driver's period of samples, and a bit.
const PERIOD_NS: u64 = 1_000_000_000 / 6 + 5_000_000;

#[test]
fn utilisation_follows_the_work_and_names_who_did_it() {
    let (_turn, seat, device) = device();
    let (mut count, mut rates) = (0, Utilization { gpu: 0, memory: 0 });
    let end = {
        let mut work = seat.work(&mut cuda_shim_device::Clock::default());
        let now = work.now();
        work.run(now, 1_300_000_000)
    };
    seat.wait(end - 100_000_000);
    assert_eq!(nvmlDeviceGetUtilizationRates(device, out(&mut rates)), SUCCESS);
    assert!(rates.gpu >= 95, "{} % of a device that never rests", rates.gpu);
    let asked = nvmlDeviceGetProcessUtilization(device, null(), out(&mut count), 0);
    assert_eq!((asked, count), (is(Error::InsufficientSize), 1));
    let none =
        ProcessUtilizationSample { pid: 0, time_stamp: 0, sm_util: 0, mem_util: 0, enc_util: 0, dec_util: 0 };
    let mut samples = [none; 2];
    count = 2;
    let place = Out::from(samples.as_mut_ptr());
    assert_eq!(nvmlDeviceGetProcessUtilization(device, place, out(&mut count), 0), SUCCESS);
    assert_eq!((count, samples[0].pid), (1, std::process::id()));
    assert!(samples[0].sm_util >= 95 && samples[0].time_stamp > 0);
    let seen = samples[0].time_stamp;
    assert_eq!(
        nvmlDeviceGetProcessUtilization(device, place, out(&mut count), seen + 1_000_000),
        is(Error::NotFound),
        "nothing is newer than what will be"
    );
    seat.wait(end + 2 * PERIOD_NS);
    assert_eq!(nvmlDeviceGetUtilizationRates(device, out(&mut rates)), SUCCESS);
    assert_eq!(rates.gpu, 0, "at rest");
    // What was done lies in older samples, and only whoever asks for these is told.
    assert_eq!(nvmlDeviceGetProcessUtilization(device, place, out(&mut count), 0), SUCCESS);
    let newest = samples[0].time_stamp;
    assert!(samples[0].sm_util < 95 && newest > seen);
    let asked = nvmlDeviceGetProcessUtilization(device, place, out(&mut count), newest - 1);
    assert_eq!(asked, is(Error::NotFound), "nobody worked in the newest sample");
    nvmlShutdown();
}

#[test]
fn who_worked_for_less_than_a_percent_is_told_with_none() {
    let (_turn, seat, device) = device();
    // By then no sample that is kept has other tests' work.
    seat.wait(seat.now() + 7 * PERIOD_NS);
    let mut count = 1;
    let mut sample =
        ProcessUtilizationSample { pid: 0, time_stamp: 0, sm_util: 9, mem_util: 0, enc_util: 0, dec_util: 0 };
    let mut ask = || {
        (
            nvmlDeviceGetProcessUtilization(device, out(&mut sample), out(&mut count), 0),
            sample.pid,
            sample.sm_util,
        )
    };
    assert_eq!(ask().0, is(Error::NotFound), "nobody worked");
    let end = {
        let mut work = seat.work(&mut cuda_shim_device::Clock::default());
        let now = work.now();
        work.run(now, 1_000_000)
    };
    seat.wait(end + PERIOD_NS);
    assert_eq!(ask(), (SUCCESS, std::process::id(), 0));
    nvmlShutdown();
}

#[test]
fn samples_are_told_once_in_their_order() {
    const UTILIZATION: u32 = 1;
    let (_turn, seat, device) = device();
    let (mut kind, mut room) = (9, 0);
    let ask = |kind: &mut u32, room: &mut u32, samples, since| {
        nvmlDeviceGetSamples(device, UTILIZATION, since, out(kind), out(room), samples)
    };
    assert_eq!((ask(&mut kind, &mut room, null(), 0), kind), (SUCCESS, 1));
    assert!(room >= 2, "room for all that are kept");
    let mut samples = vec![Sample { time_stamp: 0, value: 999 }; room as usize];
    let mut none = 0;
    let place = Out::from(samples.as_mut_ptr());
    assert_eq!(ask(&mut kind, &mut none, place, 0), is(Error::InvalidArgument));
    assert_eq!(ask(&mut kind, &mut room, place, 0), SUCCESS);
    assert!(samples.is_sorted_by(|a, b| a.time_stamp < b.time_stamp && b.value <= 100));
    let last = samples[room as usize - 1].time_stamp;
    assert_eq!(ask(&mut kind, &mut room, place, last + 1_000_000), is(Error::NotFound));
    seat.wait(seat.now() + PERIOD_NS);
    let mut one = 1;
    assert_eq!((ask(&mut kind, &mut one, place, last), one), (SUCCESS, 1));
    assert!(samples[0].time_stamp > last, "a sample was told twice");
    for (kind, answer) in [(3, Error::NotSupported), (10, Error::InvalidArgument)] {
        let mut value = 0;
        let told = nvmlDeviceGetSamples(device, kind, 0, out(&mut value), out(&mut room), null());
        assert_eq!(told, is(answer), "{kind}");
    }
    nvmlShutdown();
}

#[test]
fn account_is_kept_of_processes_once_it_is_asked_for() {
    let (_turn, _, device) = device();
    let (mut mode, mut count, mut pids) = (9, 4, [0; 4]);
    let mut stats = AccountingStats {
        gpu_utilization: 0,
        memory_utilization: 0,
        max_memory_usage: 0,
        time: 0,
        start_time: 0,
        is_running: 9,
        reserved: [0; 5],
    };
    // Kept from the start on device 1, where this process holds memory, and not at all on device 0.
    assert_eq!((nvmlDeviceGetAccountingMode(device, out(&mut mode)), mode), (SUCCESS, 1));
    let told = nvmlDeviceGetAccountingPids(device, out(&mut count), Out::from(pids.as_mut_ptr()));
    assert_eq!((told, count, pids[0]), (SUCCESS, 1, std::process::id()));
    assert_eq!(nvmlDeviceGetAccountingStats(device, pids[0], out(&mut stats)), SUCCESS);
    assert_eq!((stats.is_running, stats.max_memory_usage, stats.time), (1, 1512 * MIB, 0));
    assert!(stats.start_time > 0 && stats.gpu_utilization <= 100);
    assert_eq!(nvmlDeviceGetAccountingStats(device, 1 << 23, out(&mut stats)), is(Error::NotFound));
    assert_eq!(nvmlDeviceGetAccountingStats(device, pids[0], null()), is(Error::InvalidArgument));
    let other = Handle::of(0);
    assert_eq!((nvmlDeviceGetAccountingMode(other, out(&mut mode)), mode), (SUCCESS, 0));
    assert_eq!(nvmlDeviceGetAccountingPids(other, out(&mut count), null()), is(Error::NotSupported));
    nvmlShutdown();
}

#[test]
fn each_field_carries_a_result_of_its_own() {
    let (_turn, _, device) = device();
    let field = |field_id| FieldValue {
        field_id,
        scope_id: 0,
        timestamp: 0,
        latency_usec: 0,
        value_type: 0,
        nvml_return: 99,
        value: 7,
    };
    let mut fields = [field(186), field(1)];
    assert_eq!(nvmlDeviceGetFieldValues(device, 2, Out::from(fields.as_mut_ptr())), SUCCESS);
    assert_eq!(fields.map(|field| field.nvml_return), [SUCCESS, is(Error::NotSupported)]);
    assert_eq!(
        nvmlDeviceGetFieldValues(device, -1, Out::from(fields.as_mut_ptr())),
        is(Error::InvalidArgument)
    );
    nvmlShutdown();
}

#[test]
fn a_versioned_structure_is_filled_to_its_own_size() {
    let (_turn, _, device) = device();
    let mut room = [0xee_u8; size_of::<GpuFabricInfoV3>() + 8];
    for (version, size) in [(2_u32, size_of::<GpuFabricInfoV2>()), (3, size_of::<GpuFabricInfoV3>())] {
        room.fill(0xee);
        room[..4].copy_from_slice(&(size as u32 | version << 24).to_ne_bytes());
        let mut aligned = Box::new([0_u64; 6]);
        let bytes = Out::<GpuFabricInfoV2>::from(aligned.as_mut_ptr().cast());
        for (word, chunk) in aligned.iter_mut().zip(room.chunks_exact(8)) {
            *word = u64::from_ne_bytes(chunk.try_into().unwrap());
        }
        assert_eq!(nvmlDeviceGetGpuFabricInfoV(device, bytes), SUCCESS);
        let after: Vec<u8> = aligned.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert!(after[size..].iter().all(|byte| *byte == 0xee), "version {version} wrote beyond its end");
    }
    nvmlShutdown();
}

#[test]
fn the_private_table_begins_with_its_size() {
    let (_turn, _) = machine();
    let mut table: *const c_void = null_mut();
    let mut id = 0xc4fe3e6c_c98f_6c4e_a327_ee696e12f7c4_u128.to_be_bytes();
    assert_eq!(nvmlInternalGetExportTable(out(&mut table), out(&mut id)), SUCCESS);
    // SAFETY: the table is a static array of words, the first of which is its size.
    assert_eq!(unsafe { table.cast::<usize>().read() }, 255 * 8);
    id[0] ^= 1;
    assert_eq!(nvmlInternalGetExportTable(out(&mut table), out(&mut id)), is(Error::InvalidArgument));
}
