//! The steps round a call: admission, commit and roll back.

use super::{CUresult, Decision};
use crate::memory::tests::{Bench, memory_at};

const MIB: u64 = 1 << 20;
const SUCCESS: CUresult = CUresult::CUDA_SUCCESS;
const FAILURE: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;

#[test]
fn an_allocation_is_charged_until_it_is_freed() {
    let bench = Bench::new(10 * MIB);
    let memory = bench.memory();
    let Decision::Granted(grant) = memory.admit(bench.device(0), 10 * MIB) else { panic!("it fits") };
    assert_eq!(grant.call(|| SUCCESS), SUCCESS);
    grant.commit(Some(memory_at(0x1000)), 1);
    assert_eq!((bench.used(0), bench.shown_bytes(0)), (10 * MIB, [10 * MIB, 0, 0, 10 * MIB]));
    assert!(matches!(memory.admit(bench.device(0), 1), Decision::Refused));
    // A free that fails changes nothing.
    assert_eq!(memory.free(Some(memory_at(0x1000)), || FAILURE), FAILURE);
    assert_eq!(bench.used(0), 10 * MIB);
    assert_eq!(memory.free(Some(memory_at(0x1000)), || SUCCESS), SUCCESS);
    assert_eq!((bench.used(0), bench.shown_bytes(0)), (0, [0; 4]));
    // A free of an unknown address changes nothing either.
    assert_eq!(memory.free(Some(memory_at(0x1000)), || SUCCESS), SUCCESS);
    assert_eq!(bench.used(0), 0);
}

#[test]
fn the_memory_of_a_context_is_freed_with_it() {
    let bench = Bench::new(100 * MIB);
    let memory = bench.memory();
    for (address, context) in (1..=20).zip([7, 8].into_iter().cycle()) {
        let Decision::Granted(grant) = memory.admit(bench.device(0), MIB) else { panic!("it fits") };
        grant.commit(Some(memory_at(address << 20)), context);
    }
    memory.context_was_destroyed(7);
    assert_eq!((bench.used(0), bench.shown_bytes(0)), (10 * MIB, [10 * MIB, 0, 0, 10 * MIB]));
    memory.context_was_destroyed(8);
    assert_eq!(bench.used(0), 0);
}
