//! `gpuquota inspect --json` and `include/gpuquota_region.py` read the same: regions of every minor version, as they were
//! stored, and regions that tenants have filled with whatever they like.

mod common;

use common::{Scratch, c_path, gpuquota, join, output, sample, stderr, stdout};
use gpuquota_region::Region;
use gpuquota_region::layout::{ABI_MAJOR, ABI_MINOR, Header, OURS};
use serde_json::Value;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::Ordering::Relaxed;

fn python(path: &Path) -> Output {
    let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/../include/gpuquota_region.py");
    output(Command::new("python3").arg("-B").arg(reader).arg(path))
}

fn inspect(path: &Path) -> Output {
    output(gpuquota().arg("inspect").arg(path).arg("--json"))
}

#[track_caller]
fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_str(&stdout(output)).expect("JSON")
}

/// A message without its code, which `gpuquota messages` explains.
fn without_code(said: &str) -> String {
    let said = said.trim_start_matches("gpuquota: ").trim_end();
    format!("{}\n", said.rsplit_once(" (GQ").map_or(said, |(message, _)| message))
}

/// What both readers say of a region, which is the same.
#[track_caller]
fn read(path: &Path) -> Value {
    let (ours, python) = (json(&inspect(path)), json(&python(path)));
    assert_eq!(ours, python, "`gpuquota inspect` and the Python reader differ");
    ours
}

fn golden(minor: u32, ending: &str) -> PathBuf {
    let name = format!("region-{ABI_MAJOR}.{minor}.{ending}");
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).join(name)
}

/// The bytes of a golden file: `length BYTES`, then rows of an offset and the bytes there; the rest is 0.
fn region(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (first, second) = line.split_once(' ').expect("two words");
        if first == "length" {
            bytes = vec![0; second.parse().expect("a length")];
            continue;
        }
        let offset = usize::from_str_radix(first, 16).expect("an offset");
        for (at, pair) in second.as_bytes().chunks(2).enumerate() {
            let pair = std::str::from_utf8(pair).expect("ASCII");
            bytes[offset + at] = u8::from_str_radix(pair, 16).expect("a byte");
        }
    }
    bytes
}

#[test]
fn regions_of_every_minor_version_read_as_they_did_when_they_were_stored() {
    let home = Scratch::new();
    for minor in 0..=ABI_MINOR {
        let text = std::fs::read_to_string(golden(minor, "txt"))
            .unwrap_or_else(|why| panic!("version {ABI_MAJOR}.{minor} has no golden file: {why}"));
        assert!(text.len() < 64 << 10, "a golden file is small");
        let path = home.join("golden.cache");
        let mut bytes = region(&text);
        // Of another boot, wherever this runs: whoever reads it settles no dead process.
        bytes[OURS + offset_of!(Header, boot_id)] ^= 1;
        std::fs::write(&path, bytes).expect("a scratch file");
        let mut seen = read(&path);
        assert_eq!(seen["abi"], serde_json::json!([ABI_MAJOR, minor]));
        seen.as_object_mut().expect("an object").remove("region");
        let stored = golden(minor, "json");
        let expected = std::fs::read_to_string(&stored).unwrap_or_default();
        let expected: Value = serde_json::from_str(&expected).unwrap_or_default();
        assert!(seen == expected, "{}: expected\n{expected}\nbut read\n{seen}", stored.display());
    }
}

#[test]
fn a_live_process_and_a_uuid_full_of_nonsense_read_the_same() {
    let home = Scratch::new();
    let path = home.join("a.cache");
    let region = sample(&path);
    join(&region, &path);
    let device = &region.ours().devices[0];
    device.uuid[0].store(u64::from_le_bytes(*b"\x1b[31m\n\"\xff"), Relaxed);
    region.event(99, 3, 1, 2, 3);
    let seen = read(&path);
    assert_eq!((&seen["processes"][0]["alive"], &seen["events"][0]["code"]), (&true.into(), &99.into()));
}

#[test]
fn what_one_reader_refuses_the_other_one_refuses_for_the_same_reason() {
    let home = Scratch::new();
    let path = home.join("a.cache");
    Region::open(&c_path(&path), 1).expect("a region");
    let whole = std::fs::read(&path).expect("the file");
    // The length of a slot record is at 28, the offset of the events at 80, the state at 128.
    for (at, value) in [(0, 1), (8, 2), (28, 0x7F), (128, 0), (24, 0), (83, 0xFF)] {
        let mut bytes = whole.clone();
        bytes[OURS + at] = value;
        bytes[OURS + at + 1] = 0;
        std::fs::write(&path, bytes).expect("the file");
        let (ours, python) = (inspect(&path), python(&path));
        assert!(!ours.status.success() && !python.status.success(), "the byte at {at} is {value}");
        assert_eq!(without_code(&stderr(&ours)), stderr(&python), "the byte at {at}");
    }
    for length in [0, OURS - 1, OURS + 100, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).expect("the file");
        let (ours, python) = (inspect(&path), python(&path));
        assert!(!ours.status.success() && !python.status.success(), "{length} bytes");
        assert_eq!(without_code(&stderr(&ours)), stderr(&python), "{length} bytes");
    }
}
