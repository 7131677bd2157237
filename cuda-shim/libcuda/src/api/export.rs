//! How a function of the driver is declared as an export: what it answers before `cuInit`, the faults that meet it, the log of its failures.

use crate::model::logs;
use crate::tools::status::Outcome;

/// `CUresult` of what `call` came to.
#[inline]
pub fn result(call: &'static str, outcome: Outcome) -> i32 {
    match outcome {
        Ok(()) => 0,
        Err(status) => {
            logs::failed(call, status);
            status.code()
        }
    }
}

/// Declares exports. The body comes to an [`Outcome`].
///
/// - `fn name(...) {}`: one export, which answers `NOT_INITIALIZED` before `cuInit`, whatever it is given;
/// - `early fn ...`: the same, but what it is given is looked at first, as drivers do in these calls, or the body
///   asks for the driver before all else by itself;
/// - `fn name = alias, alias (...) {}`: one behaviour under several names;
/// - `twin fn |null| name / per_thread (...) {}`: the export and its `_ptsz` or `_ptds` twin; `null` tells
///   the body which default stream is meant.
macro_rules! export {
    () => {};
    (twin fn $($rest:tt)*) => {
        $crate::api::export::export!(@twin { $crate::model::world::driver()?; } $($rest)*);
    };
    (early twin fn $($rest:tt)*) => {
        $crate::api::export::export!(@twin {} $($rest)*);
    };
    (fn $($rest:tt)*) => {
        $crate::api::export::export!(@plain { $crate::model::world::driver()?; } $($rest)*);
    };
    (early fn $($rest:tt)*) => {
        $crate::api::export::export!(@plain {} $($rest)*);
    };
    (@twin { $($first:tt)* }
        |$null:ident| $name:ident / $twin:ident ($($arg:ident: $ty:ty),* $(,)?) $body:block $($rest:tt)*
    ) => {
        const _: () = {
            #[inline]
            #[allow(clippy::too_many_arguments, reason = "NVIDIA's signatures")]
            fn body($null: $crate::tools::ffi::NullStream $(, $arg: $ty)*) -> $crate::tools::status::Outcome {
                $($first)*
                $body
            }
            #[unsafe(no_mangle)]
            extern "C" fn $name($($arg: $ty),*) -> i32 {
                $crate::api::export::result(
                    stringify!($name),
                    $crate::model::operations::faults::met(stringify!($name), || body($crate::tools::ffi::NullStream::Legacy $(, $arg)*)),
                )
            }
            #[unsafe(no_mangle)]
            extern "C" fn $twin($($arg: $ty),*) -> i32 {
                $crate::api::export::result(
                    stringify!($twin),
                    $crate::model::operations::faults::met(stringify!($twin), || body($crate::tools::ffi::NullStream::PerThread $(, $arg)*)),
                )
            }
        };
        $crate::api::export::export!($($rest)*);
    };
    (@plain { $($first:tt)* }
        $name:ident $(= $($alias:ident),+)? ($($arg:ident: $ty:ty),* $(,)?) $body:block $($rest:tt)*
    ) => {
        const _: () = {
            #[inline]
            #[allow(clippy::too_many_arguments, reason = "NVIDIA's signatures")]
            fn body($($arg: $ty),*) -> $crate::tools::status::Outcome {
                $($first)*
                $body
            }
            #[unsafe(no_mangle)]
            extern "C" fn $name($($arg: $ty),*) -> i32 {
                $crate::api::export::result(
                stringify!($name),
                $crate::model::operations::faults::met(stringify!($name), || body($($arg),*)),
            )
            }
            $crate::api::export::alias!([$($($alias)+)?] $($arg: $ty),*);
        };
        $crate::api::export::export!($($rest)*);
    };
}
pub(crate) use export;

/// Further names of one behaviour; see [`export!`].
macro_rules! alias {
    ([] $($arg:ident: $ty:ty),*) => {};
    ([$name:ident $($more:ident)*] $($arg:ident: $ty:ty),*) => {
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $ty),*) -> i32 {
            $crate::api::export::result(
                stringify!($name),
                $crate::model::operations::faults::met(stringify!($name), || body($($arg),*)),
            )
        }
        $crate::api::export::alias!([$($more)*] $($arg: $ty),*);
    };
}
pub(crate) use alias;
