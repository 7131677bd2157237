//! What happens round every intercepted call?
//!
//! One symbol, one entry: the [`hooks!`] macro takes names, signature and behaviour, and makes the export, the slot
//! of the real function, the row by which `dlsym` and `cuGetProcAddress` find the hook, and a check that the
//! signature is NVIDIA's. Every call passes one gate, which finds the real function and lets calls from inside
//! another hook straight through.
//!
//! # Safety
//! This room may use `unsafe` because its exports are called by programs with NVIDIA's signatures and call the real
//! functions with the very arguments that they were given.
#![allow(unsafe_code)]

pub mod cuda;
pub mod nvml;

use crate::driver::Real;
use crate::thread::Inside;

/// What a function answers that the driver does not have.
pub trait Missing {
    /// That answer.
    const MISSING: Self;
}

/// The gate: `body` runs with the real function; from inside another hook, or while a thread's hook is being
/// served, the call goes straight to it.
#[inline(always)]
pub fn gate<F: Copy, R: Missing>(
    real: &Real<F>,
    straight: impl FnOnce(F) -> R,
    body: impl FnOnce(F) -> R,
) -> R {
    let Some(real) = real.get() else { return R::MISSING };
    match Inside::enter() {
        Some(_inside) => body(real),
        None => straight(real),
    }
}

/// Declares intercepted functions. See `CONTRIBUTING.md`.
macro_rules! hooks {
    ($library:path, $sys:ident; $( $($name:ident),+ : fn $arguments:tt -> $result:ty = |$real:ident| $body:expr; )+) => {
        $($( hooks!(@one $library, $sys, $name, $arguments, $result, $real, $body); )+)+

        /// The rows of this room's functions.
        pub static TABLE: &[$crate::driver::Entry] = &[
            $($( $crate::driver::Entry {
                name: $name::NAME,
                slot: &$name::SLOT,
                hook: Some($crate::driver::Hook($name as *const core::ffi::c_void)),
            }, )+)+
        ];
    };
    (@one $library:path, $sys:ident, $name:ident, ($($argument:ident : $type:ty),* $(,)?), $result:ty, $real:ident, $body:expr) => {
        #[allow(non_snake_case, missing_docs)]
        pub mod $name {
            #[allow(unused_imports)]
            use super::*;
            pub type F = unsafe extern "C" fn($($type),*) -> $result;
            pub const NAME: &core::ffi::CStr = hooks!(@c_string $name);
            pub static SLOT: $crate::driver::Slot = $crate::driver::Slot::new();
            pub static REAL: $crate::driver::Real<F> = $crate::driver::Real::new(&$library, &SLOT);
            /// The header is the witness: another signature does not compile.
            const _: F = $sys::$name;
        }

        /// Intercepted; the behaviour stands in the table.
        ///
        /// # Safety
        /// As the function of this name in NVIDIA's header.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
            $crate::hook::gate(
                &$name::REAL,
                // SAFETY: the real function of this name, with the caller's own arguments.
                |real| unsafe { real($($argument),*) },
                |$real| {
                    #[allow(unused_variables)]
                    // SAFETY: as above.
                    let $real = move || unsafe { $real($($argument),*) };
                    $body
                },
            )
        }
    };
    (@c_string $name:ident) => {
        match core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => c"",
        }
    };
}
/// Declares functions that the library only calls.
macro_rules! calls {
    ($library:path, $sys:ident; $( $name:ident: fn $arguments:tt -> $result:ty; )+) => {
        $(
            #[allow(non_snake_case, missing_docs)]
            pub mod $name {
                #[allow(unused_imports)]
                use super::*;
                pub type F = unsafe extern "C" fn $arguments -> $result;
                pub const NAME: &core::ffi::CStr = hooks!(@c_string $name);
                pub static SLOT: $crate::driver::Slot = $crate::driver::Slot::new();
                pub static REAL: $crate::driver::Real<F> = $crate::driver::Real::new(&$library, &SLOT);
                const _: F = $sys::$name;
            }
        )+

        /// The rows of functions that the library only calls.
        pub static CALLED: &[$crate::driver::Entry] = &[
            $( $crate::driver::Entry { name: $name::NAME, slot: &$name::SLOT, hook: None }, )+
        ];
    };
}
pub(crate) use {calls, hooks};
