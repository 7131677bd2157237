//! Which functions of the driver a program asks for, for `gpuquota doctor --trace`: each look-up is a line of the file that
//! GPUQUOTA_TRACE names. Nobody makes the file here. Calls are not told, so nothing lies on the way of a launch.

use crate::environment;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use gpuquota_quota::text::Fixed;
use gpuquota_region::sys::{self, KeepErrno};

/// The variable.
const VARIABLE: &str = "GPUQUOTA_TRACE";

/// By which door a program asks; the first word of a line.
#[derive(Clone, Copy)]
pub enum Door {
    /// `dlsym` and `dlvsym`.
    Dlsym,
    /// `cuGetProcAddress`.
    GetProcAddress,
}

/// 0: not known yet; 1: nobody wants to know; 2: somebody does.
static WANTED: AtomicU32 = AtomicU32::new(0);

/// A function was looked up. `is_held`: whether the answer is a hook of ours.
pub fn looked_up(door: Door, name: &CStr, is_held: bool) {
    if WANTED.load(Relaxed) != 1 {
        tell(door, name, is_held);
    }
}

#[cold]
fn tell(door: Door, name: &CStr, is_held: bool) {
    let errno = KeepErrno::new();
    let file = environment::get_trusted(VARIABLE).filter(|path| !path.is_empty());
    WANTED.store(if file.is_some() { 2 } else { 1 }, Relaxed);
    if let Some(path) = file.and_then(Fixed::<512>::copy_of) {
        let door: &[u8] = match door {
            Door::Dlsym => b"dlsym ",
            Door::GetProcAddress => b"cuGetProcAddress ",
        };
        let mut line = Fixed::<256>::new();
        let parts: [&[u8]; 4] = [door, if is_held { b"held " } else { b"passed " }, name.to_bytes(), b"\n"];
        if parts.iter().all(|part| line.push(part)) {
            sys::append(path.as_c_str(), line.as_bytes());
        }
    }
    drop(errno);
}
