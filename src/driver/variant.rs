//! Variants of a function: the names of a driver's exports say version and stream semantics.

use core::ffi::{CStr, c_int};

/// The version in a name such as `cuMemAlloc_v2`; 1 for a name without one.
pub fn version(name: &CStr) -> u8 {
    let mut pairs = name.to_bytes().windows(3);
    let written = pairs.find_map(|window| match window {
        [b'_', b'v', digit @ b'0'..=b'9'] => Some(*digit),
        _ => None,
    });
    written.map_or(1, |digit| digit.wrapping_sub(b'0'))
}

/// A program's request to `cuGetProcAddress`.
pub struct FunctionRequest<'n> {
    /// The function's name, without a version.
    pub name: &'n CStr,
    /// The CUDA version whose variant the program wants, such as 12040.
    pub version: c_int,
    /// Whether the null stream shall be the calling thread's own.
    pub per_thread: bool,
}

impl FunctionRequest<'_> {
    /// How well the function of this name meets the request: variants with per-thread streams first, then later ones;
    /// `None` if not at all.
    pub fn rank(&self, name: &CStr) -> Option<(bool, c_int)> {
        let (requested, name) = (self.name.to_bytes(), name.to_bytes());
        let rest = name.strip_prefix(requested)?;
        let of_thread = [&b"_ptsz"[..], b"_ptds"].iter().find_map(|suffix| rest.strip_suffix(*suffix));
        let since = match of_thread.unwrap_or(rest) {
            [] => 0,
            version @ [b'_', b'v', _] => since(name.get(..requested.len().wrapping_add(version.len()))?),
            _ => return None,
        };
        // From 12.0 on this name means another function, which also has a name of its own.
        let renamed = requested == b"cuGraphInstantiate" && self.version >= 12000;
        let eligible = since <= self.version && (self.per_thread || of_thread.is_none()) && !renamed;
        eligible.then_some((of_thread.is_some(), since))
    }
}

/// The CUDA version that introduced a later variant of a function, by cudaTypedefs.h.
fn since(name: &[u8]) -> c_int {
    match name {
        b"cuCtxDestroy_v2" => 4000,
        b"cuDevicePrimaryCtxRelease_v2" | b"cuDevicePrimaryCtxReset_v2" | b"cuGraphInstantiate_v2" => 11000,
        b"cuCtxCreate_v3" => 11040,
        b"cuGetProcAddress_v2" => 12000,
        b"cuCtxCreate_v4" => 12050,
        b"cuCtxSynchronize_v2" => 13000,
        b"cuMulticastBindMem_v2" | b"cuMulticastBindAddr_v2" => 13010,
        _ => 3020,
    }
}

#[cfg(test)]
mod tests;
