//! `cuda-sim record` makes a machine file of the installed driver. These tests need no GPU: they record simulated machines,
//! two of which come from real cards' recordings, and the answers that real drivers give without a card.

use std::process::{Command, ExitCode};

use gpuquota_promises::{GIB, MIB, Machine, Program, Scratch, Setting, Verdict, artifact, fetched, trials};

fn main() -> ExitCode {
    trials(&[
        ("a_machine_made_from_its_recording_answers_as_it_did", the_same_again),
        ("a_recording_has_the_driver_s_answers", what_was_seen),
        ("the_machine_of_a_real_cards_recording_is_that_card_again", real_cards),
        ("functions_that_driver_535_lacks_are_absent_again", || lacking_again("bookworm")),
        ("functions_that_driver_550_lacks_are_absent_again", || lacking_again("trixie")),
        ("functions_that_driver_555_lacks_are_absent_again", || lacking_again("experimental")),
    ])
}

/// What is recorded in a setting.
fn recording(setting: &Setting<'_>) -> String {
    let recorder = artifact("cuda-sim");
    setting.run_command(recorder.to_str().expect("text"), &["record"]).success().out
}

/// A machine from the text of its file.
fn made(scratch: &Scratch, text: &str) -> Machine {
    Machine::new(scratch.file("recorded.toml", text).to_str().expect("text"))
}

fn the_same_again() -> Verdict {
    let scratch = Scratch::new();
    let changed = "
        driver = \"570.86.15\"
        cuda = \"12.8\"
        lacks = [\"cuMemAllocAsync\", \"cuGraphInstantiateWithParams\"]
        [[device]]
        like = \"A100\"
        name = \"Another\"
        memory = \"23GiB\"
        context = \"300MiB\"
        sm_count = 77
        count = 2
        [[device]]
        like = \"T4\"
    ";
    let file = scratch.file("changed.toml", changed);
    for kind in ["H100", "A100", "T4", "2xH200", file.to_str().expect("text")] {
        let first = recording(&Machine::new(kind).bare());
        assert!(first.lines().count() > 1000, "{kind}: {first}");
        let again = recording(&made(&scratch, &first).bare());
        let differ: Vec<_> =
            first.lines().zip(again.lines()).filter(|(first, again)| first != again).collect();
        assert!(first == again, "{kind}: {differ:#?}");
    }
    Verdict::Kept
}

fn what_was_seen() -> Verdict {
    let scratch = Scratch::new();
    let machine = Machine::new("2xA100");
    let text = recording(&machine.bare());
    let has = |line: &str| assert!(text.lines().any(|told| told == line), "no {line}: {text}");
    has("driver = \"580.65.06\"");
    has("cuda = \"13.0\"");
    has("lacks = []");
    has("like = \"A100\"");
    has("count = 2");
    has(&format!("memory = \"{}B\"", 80 * GIB));
    has(&format!("context = \"{}B\"", 400 * MIB));
    has("granularity = \"2097152B\"");
    // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT; and where it stands on the bus is no answer of the kind.
    has("16 = 108");
    assert!(!text.lines().any(|line| line.starts_with("33 = ")), "{text}");
    has("cuMemAlloc_v2 = \"CUDA_ERROR_NOT_INITIALIZED\"");
    has("cuMemAlloc_v2 = \"CUDA_ERROR_INVALID_VALUE\"");
    assert!(!text.contains("a crash"), "{text}");
    // Programs find on the recorded machine what was recorded, even where the model says otherwise.
    let other = text.replace("\n16 = 108\n", "\n16 = 100\n").replace("\n10 = 32\n", "\n10 = 64\n");
    assert!(recording(&made(&scratch, &other).bare()).contains("\n10 = 64\n"));
    let fewer = text.replace("lacks = []", "lacks = [\"cuMemAllocAsync\", \"cuMemAllocAsync_ptsz\"]");
    machine.bare().run("door_getproc", &["2", "2"]).success();
    let outcome = made(&scratch, &fewer).bare().run("door_getproc", &["2", "2"]);
    assert!(!outcome.status.success(), "a function that the driver lacks was handed out: {outcome}");
    Verdict::Kept
}

/// The recordings of real cards (cuda-shim/README.md, *Machines*), and the memory that each card shows.
const REAL: [(&str, i64); 2] = [
    (include_str!("../../cuda-shim/machines/h200-580.159.04.toml"), 150_109_880_320),
    (include_str!("../../cuda-shim/machines/h100-580.159.04.toml"), 85_017_493_504),
];

/// The facts of a machine file that `cuda-sim record` must record again. Answers to nulls do not count: a driver may crash on
/// them, and has functions that the simulator lacks. Other tests measure the costs of calls.
fn facts(text: &str) -> Vec<&str> {
    let tables =
        text.split("\n[").filter(|table| !table.starts_with("nulls.") && !table.starts_with("latency]"));
    tables.flat_map(str::lines).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

fn real_cards() -> Verdict {
    for (card, bytes) in REAL {
        let scratch = Scratch::new();
        let machine = made(&scratch, card);
        let outcome = machine.bare().run("conformance", &["memory", "device"]).success();
        assert!(outcome.out.lines().count() > 20, "{outcome}");
        assert_eq!(machine.bare().start("hold", &[]).ask("info", "total"), bytes);
        assert!(facts(card).iter().any(|line| line.starts_with("lacks = [\"cuCheckpoint")), "{card}");
        assert!(facts(card).contains(&"16 = 132"), "{card}");
        assert_eq!(facts(card), facts(&recording(&machine.bare())));
    }
    Verdict::Kept
}

/// The functions that `cuGetProcAddress` of a real driver does not hand out, and the simulated one of its recording.
fn lacking_again(suite: &str) -> Verdict {
    let folder = match fetched("debian-driver", suite) {
        Ok(folder) => folder,
        Err(why) => return Verdict::Skipped(why),
    };
    let mut command = Command::new(artifact("cuda-sim"));
    command.args(["record", "--folder"]).arg(folder);
    let real = Program::start(command).finish().success().out;
    let scratch = Scratch::new();
    let again = recording(&made(&scratch, &format!("{real}\n[[device]]\nlike = \"H100\"\n")).bare());
    let lacks = |text: &str| text.lines().find(|line| line.starts_with("lacks = ")).map(str::to_owned);
    assert!(lacks(&real).is_some_and(|line| line.contains("cuMemcpyBatchAsync")), "{real}");
    assert_eq!(lacks(&real), lacks(&again));
    Verdict::Kept
}
