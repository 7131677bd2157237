//! The limits reader: an environment and a limits file that anybody may have written.
#![no_main]

use arbitrary::Arbitrary;
use gpuquota_quota::limits::{KNOBS, Reading, read, region_path};
use gpuquota_quota::text::Line;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'i> {
    file: Option<&'i [u8]>,
    /// A knob, by its place in the table, with a device's index at its end or without one, and its value.
    variables: Vec<(u8, Option<u8>, &'i [u8])>,
    index: u32,
    uuid: &'i [u8],
}

fuzz_target!(|input: Input| {
    let variables: Vec<(String, &[u8])> = input
        .variables
        .iter()
        .map(|(knob, index, value)| {
            let name = KNOBS[usize::from(*knob) % KNOBS.len()].name;
            (index.map_or(name.to_owned(), |index| format!("{name}_{}", index % 17)), *value)
        })
        .collect();
    let env = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| *value);

    let reading = read(&env, input.file);
    judge(&reading, input.index, input.uuid);
    assert_eq!(reading.limits, read(&env, input.file).limits, "the same words mean the same");

    if let Ok(found) = region_path(&env) {
        assert!(found.path.as_bytes().starts_with(b"/"), "every process has the same file");
    }
});

fn judge(reading: &Reading, index: u32, uuid: &[u8]) {
    let limits = &reading.limits;
    let share = limits.cores_for(index, uuid);
    assert!(share.is_none_or(|share| (1..=100).contains(&share)));
    assert!(limits.request_for(index, uuid).unwrap_or(0) <= share.unwrap_or(100));
    assert!(!reading.closed() || reading.problems.errors() > 0, "no GPU is not for nothing");
    for problem in reading.problems.iter() {
        let mut line = Line::<512>::new();
        problem.write(&mut line, reading.consequence());
        let text = line.end();
        assert!(text.ends_with(b"\n"));
        let plain = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        assert!(text[..text.len() - 1].iter().all(plain), "a stranger's value stays within its quotes");
    }
}
