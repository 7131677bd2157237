//! The symbol side of a CUDA driver: what it exports, how `cuGetProcAddress` chooses among it, and what errors are
//! called.
//!
//! A name such as `cuMemAlloc` stands for several exports: one per version of its signature and, for calls
//! that imply a stream, one per kind of default stream. [`ROWS`] lists them all, [`find`] is the rule. This
//! crate knows names only; the simulated libcuda binds them to addresses, `tests/oracle.rs` to those of a
//! real driver.

#![forbid(unsafe_code)]

mod errors;
mod table;

pub use errors::{CUDA_ERRORS, NVML_ERRORS};

/// One export of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The name under which `cuGetProcAddress` knows it, without any suffix.
    pub name: &'static str,
    /// The CUDA version that brought this signature, as `1000 * major + 10 * minor`.
    pub version: u32,
    /// Which default stream its null stream means.
    pub stream: Stream,
    /// The symbol: the name with its suffixes.
    pub export: &'static str,
}

/// Which default stream an export means by a null stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The legacy one, shared by all threads of a context; also said of calls that know no stream.
    Legacy,
    /// The calling thread's own: exports with the suffix `_ptsz` or `_ptds`.
    PerThread,
}

/// What `cuGetProcAddress` finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// The export asked for.
    Export(T),
    /// No export has this name, or the name carries a suffix.
    NotFound,
    /// The name is known, but not at a version this low, or not for the kind of stream asked for.
    VersionNotSufficient,
    /// A flag that the driver does not know.
    InvalidFlags,
}

/// `CU_GET_PROC_ADDRESS_LEGACY_STREAM`: asks for the legacy default stream, as does 0.
pub const LEGACY_STREAM: u64 = 1;
/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`: asks for the thread's own default stream.
pub const PER_THREAD_DEFAULT_STREAM: u64 = 2;

/// The place in `rows`, which must be sorted like [`ROWS`], of the export that a driver hands out for `name`
/// as of CUDA `version`.
///
/// The newest signature not newer than `version` is taken. Versions compare unsigned, so a negative one
/// asks for the newest. With [`PER_THREAD_DEFAULT_STREAM`] only per-thread exports count if the name has
/// any: there is no falling back to an older signature without one.
pub fn find(rows: &[Row], name: &str, version: i32, flags: u64) -> Found<usize> {
    if flags & !(LEGACY_STREAM | PER_THREAD_DEFAULT_STREAM) != 0 {
        return Found::InvalidFlags;
    }
    let first = rows.partition_point(|row| row.name < name);
    let count = rows[first..].partition_point(|row| row.name == name);
    let named = &rows[first..first + count];
    if named.is_empty() {
        return Found::NotFound;
    }
    let has_per_thread = named.iter().any(|row| row.stream == Stream::PerThread);
    let stream = if has_per_thread && flags & PER_THREAD_DEFAULT_STREAM != 0 {
        Stream::PerThread
    } else {
        Stream::Legacy
    };
    named
        .iter()
        .rposition(|row| row.stream == stream && row.version <= version.cast_unsigned())
        .map_or(Found::VersionNotSufficient, |place| Found::Export(first + place))
}

macro_rules! rows {
    ($($name:ident $version:literal $stream:ident $export:ident;)*) => {
        /// Every export, sorted by name, then kind of stream, then version.
        pub static ROWS: &[Row] = &[$(Row {
            name: stringify!($name),
            version: $version,
            stream: rows!(@$stream),
            export: stringify!($export),
        }),*];
    };
    (@legacy) => { Stream::Legacy };
    (@per_thread) => { Stream::PerThread };
}
symbols!(rows);

#[cfg(test)]
mod tests {
    use super::*;

    fn export(name: &str, version: i32, flags: u64) -> Found<&'static str> {
        match find(ROWS, name, version, flags) {
            Found::Export(place) => Found::Export(ROWS[place].export),
            Found::NotFound => Found::NotFound,
            Found::VersionNotSufficient => Found::VersionNotSufficient,
            Found::InvalidFlags => Found::InvalidFlags,
        }
    }

    #[test]
    fn the_table_is_sorted_and_no_export_comes_twice() {
        let key = |row: &Row| (row.name, row.stream == Stream::PerThread, row.version);
        assert!(ROWS.windows(2).all(|pair| key(&pair[0]) < key(&pair[1])));
        let mut exports: Vec<_> = ROWS.iter().map(|row| row.export).collect();
        exports.sort_unstable();
        assert!(exports.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn the_newest_signature_not_newer_than_asked_is_found() {
        assert_eq!(export("cuMemAlloc", 2000, 0), Found::Export("cuMemAlloc"));
        assert_eq!(export("cuMemAlloc", 3019, 0), Found::Export("cuMemAlloc"));
        assert_eq!(export("cuMemAlloc", 3020, 0), Found::Export("cuMemAlloc_v2"));
        assert_eq!(export("cuGetProcAddress", 11999, 0), Found::Export("cuGetProcAddress"));
        assert_eq!(export("cuGetProcAddress", 12000, 0), Found::Export("cuGetProcAddress_v2"));
    }

    #[test]
    fn versions_compare_unsigned() {
        assert_eq!(export("cuMemAlloc", -5, 0), Found::Export("cuMemAlloc_v2"));
        assert_eq!(export("cuMemAlloc", 99999, 0), Found::Export("cuMemAlloc_v2"));
        assert_eq!(export("cuMemAlloc", 0, 0), Found::VersionNotSufficient);
    }

    #[test]
    fn the_per_thread_flag_never_falls_back() {
        assert_eq!(export("cuMemcpyHtoD", 7000, 2), Found::Export("cuMemcpyHtoD_v2_ptds"));
        assert_eq!(export("cuMemcpyHtoD", 6999, 2), Found::VersionNotSufficient);
        assert_eq!(export("cuMemcpyHtoD", 7000, 0), Found::Export("cuMemcpyHtoD_v2"));
        assert_eq!(export("cuMemAlloc", 3020, 2), Found::Export("cuMemAlloc_v2"));
        assert_eq!(export("cuLaunchKernel", 99999, 3), Found::Export("cuLaunchKernel_ptsz"));
    }

    #[test]
    fn suffixed_empty_and_unknown_names_are_not_found() {
        for name in ["cuMemAlloc_v2", "cuLaunchKernel_ptsz", "", "cuNoSuch", "cu", "zz"] {
            assert_eq!(export(name, 99999, 0), Found::NotFound, "{name:?}");
        }
    }

    #[test]
    fn unknown_flags_are_invalid() {
        assert_eq!(export("cuMemAlloc", 3020, 4), Found::InvalidFlags);
        assert_eq!(export("cuNoSuch", 3020, u64::MAX), Found::InvalidFlags);
    }
}
