//! The hooks: the steps round every intercepted call.
//!
//! One symbol, one entry: the [`hooks!`] macro takes names, signature and behaviour, and makes the export and a check that
//! its signature is NVIDIA's. `dlsym` and `cuGetProcAddress` find a hook as our export of that name (`driver::loader`). Every
//! call passes one [`gate`], which passes the driver's own calls straight through.
//!
//! # Safety
//! This file may use `unsafe` because its exports are called by programs with NVIDIA's signatures and call the real
//! functions with the very arguments that they were given.
#![allow(unsafe_code)]

pub mod cuda;
pub mod gate;
pub mod nvml;

use crate::driver::library::Real;
use crate::thread::HookGuard;

/// The answer of a hook whose real function the driver does not have.
pub trait Missing {
    /// That answer.
    const MISSING: Self;
}

/// Answers that the driver does not have the function.
pub extern "C" fn missing<R: Missing>() -> R {
    R::MISSING
}

/// The body of a hook: it runs `action` with the real function.
#[inline(always)]
pub fn enter<F: Copy, R: Missing>(real: &Real<F>, action: impl FnOnce(F) -> R) -> R {
    let _guard = HookGuard::entered();
    let Some(real) = real.get() else { return R::MISSING };
    action(real)
}

/// Declares intercepted functions. See `CONTRIBUTING.md`.
macro_rules! hooks {
    ($sys:ident; $( $($name:ident),+ : fn $arguments:tt -> $result:ty = |$real:ident| $body:expr; )+) => {
        $($( hooks!(@one $sys, $name, $arguments, $result, $real, $body); )+)+
    };
    (@one $sys:ident, $name:ident, ($($argument:ident : $type:ty),* $(,)?), $result:ty, $real:ident, $body:expr) => {
        const _: () = {
            unsafe extern "C" fn body($($argument: $type),*) -> $result {
                $crate::hook::enter(&$sys::$name::REAL, |$real| {
                    #[allow(unused_variables)]
                    // SAFETY: the real function of this name, with the caller's own arguments.
                    let $real = move || unsafe { $real($($argument),*) };
                    $body
                })
            }

            /// An intercepted function; the `hooks!` table has its behaviour.
            ///
            /// # Safety
            /// As the function of this name in NVIDIA's header.
            #[allow(non_snake_case, unused_variables)]
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                $crate::hook::gate::export!(
                    body, $sys::$name::REAL, $crate::hook::missing::<$result>
                )
            }

            /// The header is the witness: another signature does not compile.
            const _: $sys::$name::F = $name;
        };
    };
}
pub(crate) use hooks;
