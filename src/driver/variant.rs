//! Variants of a function: what the names of a driver's exports say.

use core::ffi::{CStr, c_int};

/// The version in a name such as `cuMemAlloc_v2`; 1 where none is written.
pub fn version(name: &CStr) -> u8 {
    let mut pairs = name.to_bytes().windows(3);
    let written = pairs.find_map(|window| match window {
        [b'_', b'v', digit @ b'0'..=b'9'] => Some(*digit),
        _ => None,
    });
    written.map_or(1, |digit| digit.wrapping_sub(b'0'))
}

/// What a program asks `cuGetProcAddress` for.
pub struct Request<'n> {
    /// The function's name, without a version.
    pub name: &'n CStr,
    /// The CUDA version whose variant is meant, such as 12040.
    pub version: c_int,
    /// Whether streams that are not named are the thread's own.
    pub per_thread: bool,
}

impl Request<'_> {
    /// How well a function's name answers it: the thread's own streams first, then the later variant; `None` if not.
    pub fn rank(&self, name: &CStr) -> Option<(bool, c_int)> {
        let (asked, name) = (self.name.to_bytes(), name.to_bytes());
        let rest = name.strip_prefix(asked)?;
        let of_thread = [&b"_ptsz"[..], b"_ptds"].iter().find_map(|suffix| rest.strip_suffix(*suffix));
        let since = match of_thread.unwrap_or(rest) {
            [] => 0,
            version @ [b'_', b'v', _] => since(name.get(..asked.len().wrapping_add(version.len()))?),
            _ => return None,
        };
        // From 12.0 on this name means another function, which has a name of its own too.
        let renamed = asked == b"cuGraphInstantiate" && self.version >= 12000;
        let may_be = since <= self.version && (self.per_thread || of_thread.is_none()) && !renamed;
        may_be.then_some((of_thread.is_some(), since))
    }
}

/// The CUDA version that brought a later variant of a function, by cudaTypedefs.h.
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
