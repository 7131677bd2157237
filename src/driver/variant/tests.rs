//! The variant of a function that answers a request.

use super::{FunctionRequest, version};
use core::ffi::{CStr, c_int};

#[test]
fn a_name_gives_its_version_or_means_the_first() {
    let names = [
        (c"cuMemAlloc", 1),
        (c"cuMemAlloc_v2", 2),
        (c"cuMemcpyHtoDAsync_v2_ptsz", 2),
        (c"cuCtxCreate_v4", 4),
    ];
    for (name, expected) in
        names.into_iter().chain([(c"cuMemAlloc_v", 1), (c"cuMemAlloc_vx", 1), (c"", 1), (c"_v9", 9)])
    {
        assert_eq!(version(name), expected, "{name:?}");
    }
}

/// The best of some exports for a request.
fn best(name: &CStr, version: c_int, per_thread: bool, exports: &[&'static CStr]) -> Option<&'static CStr> {
    let request = FunctionRequest { name, version, per_thread };
    let ranked = exports.iter().filter_map(|export| Some((request.rank(export)?, *export)));
    ranked.max_by_key(|(rank, _)| *rank).map(|(_, export)| export)
}

#[test]
fn a_request_gets_the_latest_variant_of_its_version() {
    let exports = [c"cuMemAlloc", c"cuMemAlloc_v2", c"cuMemAllocHost", c"cuMemAllocManaged"];
    assert_eq!(best(c"cuMemAlloc", 12040, false, &exports), Some(c"cuMemAlloc_v2"));
    assert_eq!(best(c"cuMemAlloc", 3010, false, &exports), Some(c"cuMemAlloc"));
    let exports = [c"cuCtxCreate", c"cuCtxCreate_v2", c"cuCtxCreate_v3", c"cuCtxCreate_v4"];
    assert_eq!(best(c"cuCtxCreate", 11030, false, &exports), Some(c"cuCtxCreate_v2"));
    assert_eq!(best(c"cuCtxCreate", 11040, false, &exports), Some(c"cuCtxCreate_v3"));
    assert_eq!(best(c"cuCtxCreate", 12050, false, &exports), Some(c"cuCtxCreate_v4"));
    assert_eq!(best(c"cuMemFree", 12040, false, &exports), None);
}

#[test]
fn a_name_that_only_begins_alike_is_another_function() {
    for export in [c"cuMemAllocHost", c"cuMemAlloc_v2x", c"cuMemAlloc_x2", c"cuMemAllo"] {
        assert_eq!(best(c"cuMemAlloc", 13000, true, &[export]), None, "{export:?}");
    }
}

#[test]
fn per_thread_variants_answer_only_requests_for_them() {
    let exports = [c"cuLaunchKernel", c"cuLaunchKernel_ptsz"];
    assert_eq!(best(c"cuLaunchKernel", 12040, true, &exports), Some(c"cuLaunchKernel_ptsz"));
    assert_eq!(best(c"cuLaunchKernel", 12040, false, &exports), Some(c"cuLaunchKernel"));
    let exports = [c"cuMemcpyHtoD_v2", c"cuMemcpyHtoD_v2_ptds"];
    assert_eq!(best(c"cuMemcpyHtoD", 12040, true, &exports), Some(c"cuMemcpyHtoD_v2_ptds"));
    assert_eq!(best(c"cuMemcpyHtoD", 12040, false, &exports), Some(c"cuMemcpyHtoD_v2"));
}

#[test]
fn a_reused_name_means_the_new_function() {
    let exports = [c"cuGraphInstantiate", c"cuGraphInstantiate_v2"];
    assert_eq!(best(c"cuGraphInstantiate", 11040, false, &exports), Some(c"cuGraphInstantiate_v2"));
    assert_eq!(best(c"cuGraphInstantiate", 12000, false, &exports), None);
}
