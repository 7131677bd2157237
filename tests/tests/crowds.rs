//! More processes than anybody else has on one simulated device. Apart from tests that measure times, which they would disturb.

use gpuquota_promises::{MIB, Machine, Scratch};

/// A machine with room for many contexts.
fn roomy(scratch: &Scratch) -> String {
    let file = scratch.file("many.toml", "[[device]]\nlike = \"H100\"\ncontext = \"2MiB\"");
    file.to_str().expect("text").to_owned()
}

#[test]
fn hundreds_of_processes_have_a_context_on_one_device() {
    const PROCESSES: i64 = 200;
    let scratch = Scratch::new();
    let machine = Machine::new(&roomy(&scratch));
    let mut all: Vec<_> = (0..PROCESSES).map(|_| machine.bare().start("hold", &[])).collect();
    for one in &mut all {
        assert_eq!(one.ask("alloc 2097152", "rc"), 0);
    }
    let truth = machine.truth();
    assert_eq!(truth.device("physical_bytes"), PROCESSES * 4 * MIB);
    let free = all[0].ask("info", "free");
    assert_eq!(free, truth.device("total_bytes") - PROCESSES * 4 * MIB);
}

#[test]
fn nine_hundred_processes_work_on_one_device_at_once_and_end() {
    let machine = Machine::of_the_field(&roomy(&Scratch::new()), &[]);
    let told = machine.bare().run("crowd", &["900"]).success();
    assert_eq!((told.value("worked"), told.value("full"), told.value("other")), (900, 0, 0), "{told}");
}

#[test]
fn a_process_for_which_a_device_has_no_place_is_told_so() {
    let machine = Machine::new(&roomy(&Scratch::new()));
    let told = machine.bare().run("crowd", &["2053"]).success();
    assert_eq!((told.value("worked"), told.value("full"), told.value("other")), (2048, 5, 0), "{told}");
    let line = "simulated libcuda: device 0 has no place for this process: at most 2048 processes work on one device";
    assert_eq!(told.stderr.lines().filter(|told| *told == line).count(), 5, "{}", told.stderr);
    assert_eq!(told.stderr.lines().count(), 5, "{}", told.stderr);
}
