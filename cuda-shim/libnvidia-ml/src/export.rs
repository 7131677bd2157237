//! How a function of NVML is declared as an export: the faults that meet it, and that it needs an initialised library.

/// Declares exported functions of NVML that need an initialised library. Each body is an [`Answer`](crate::abi::Answer).
macro_rules! nvml {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block)+) => {$(
        $(#[$doc])*
        #[allow(non_snake_case, unsafe_code)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $kind),*) -> $crate::abi::Code {
            $crate::library::met(stringify!($name), || {
                $crate::abi::code($crate::library::machine().and_then(|_| $body))
            })
        }
    )+};
}
pub(crate) use nvml;
