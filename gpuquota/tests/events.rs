//! `gpuquota events`, `snapshot` and `messages`: what has happened, what happens, and what each code means.

mod common;

use common::agent::Agent;
use common::{Scratch, gpuquota, output, sample, stderr, stdout};
use gpuquota_region::layout::{EVENT_DENIED, EVENT_REAPED};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The tool's own look, or an agent's.
fn place(root: &Path, agent: Option<&Agent>) -> Vec<String> {
    match agent {
        Some(agent) => vec!["--agent".to_owned(), agent.address.clone()],
        None => vec!["--root".to_owned(), root.display().to_string()],
    }
}

/// A program that writes lines until it is dropped.
struct Following(Child, std::sync::mpsc::Receiver<String>);

impl Following {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || lines.for_each(|line| drop(sender.send(line))));
        Self(child, receiver)
    }

    fn next(&self) -> String {
        self.1.recv_timeout(Duration::from_secs(20)).expect("a line")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn what_has_happened_is_told_in_lines_with_codes_and_what_happens_follows() {
    let home = Scratch::new();
    let region = sample(&home.join("train.cache"));
    sample(&home.join("other.cache")).event(EVENT_DENIED, 0, 1 << 30, 2 << 30, 2 << 30);
    region.event(EVENT_DENIED, 0, 3 << 30, 1 << 30, 2 << 30);
    let agent = Agent::of(home.path());
    for by in [None, Some(&agent)] {
        let place = place(home.path(), by);
        let following = Following::start(gpuquota().args(["events", "train", "--follow"]).args(&place));
        let first = following.next();
        for word in ["GQ101 train", " denied ", "requested=3.00GiB", "used=1.00GiB", "limit=2.00GiB"] {
            assert!(first.contains(word), "{word} is not in {first}");
        }
        region.event(EVENT_REAPED, 0, 0, 1 << 20, 0);
        let second = following.next();
        assert!(second.contains("GQ105 train") && second.contains("bytes=1.00MiB"), "{second}");
        let json = output(gpuquota().args(["events", "train", "--json"]).args(&place));
        let told: Vec<Value> =
            stdout(&json).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((&told[0]["code"], &told[0]["event"]), (&"GQ101".into(), &"denied".into()));
        assert_eq!(told[0]["requested"], 3_u64 << 30);
        assert!(told.iter().all(|event| event["container"] == "train"));
    }
}

#[test]
fn a_reader_that_wants_no_more_ends_it_without_a_word() {
    let home = Scratch::new();
    let region = sample(&home.join("train.cache"));
    let agent = Agent::of(home.path());
    for by in [None, Some(&agent)] {
        for command in ["events", "snapshot"] {
            let follow: &[&str] = if command == "events" { &["--follow"] } else { &[] };
            let mut child = gpuquota()
                .arg(command)
                .args(follow)
                .args(place(home.path(), by))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it starts");
            drop(child.stdout.take());
            let until = Instant::now() + Duration::from_secs(20);
            while child.try_wait().expect("a child").is_none() {
                assert!(Instant::now() < until, "{command} does not end");
                region.event(EVENT_REAPED, 0, 0, 1 << 20, 0);
                std::thread::sleep(Duration::from_millis(200));
            }
            let ended = child.wait_with_output().expect("its end");
            assert_eq!((ended.status.code(), stderr(&ended).as_str()), (Some(0), ""), "{command}");
        }
    }
}

#[test]
fn an_agent_that_ends_is_told_in_one_line() {
    let home = Scratch::new();
    sample(&home.join("train.cache"));
    let agent = Agent::of(home.path());
    let mut command = gpuquota();
    command.args(["events", "--follow"]).args(place(home.path(), Some(&agent)));
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    std::thread::sleep(Duration::from_millis(1500));
    drop(agent);
    let ended = child.wait_with_output().expect("its end");
    let said = stderr(&ended);
    assert_eq!((ended.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("(GQ503)"), "{said}");
}

#[test]
fn a_snapshot_is_json_or_a_table_for_a_spreadsheet() {
    let home = Scratch::new();
    sample(&home.join("train.cache"));
    sample(&home.join("=1+1.cache"));
    let agent = Agent::of(home.path());
    for by in [None, Some(&agent)] {
        let json = output(gpuquota().arg("snapshot").args(place(home.path(), by)));
        let node: Value = serde_json::from_str(&stdout(&json)).expect("JSON");
        assert_eq!(node["containers"].as_array().map(Vec::len), Some(2));
        assert_eq!(node["containers"][1]["devices"][0]["memory_limit"], 2_u64 << 30);
        let csv = stdout(&output(gpuquota().args(["snapshot", "--csv"]).args(place(home.path(), by))));
        let mut lines = csv.split("\r\n");
        let columns: Vec<&str> = lines.next().expect("names").split(',').collect();
        let rows: Vec<Vec<&str>> =
            lines.filter(|line| !line.is_empty()).map(|line| line.split(',').collect()).collect();
        assert_eq!(rows.len(), 2, "{csv}");
        let cell = |row: usize, name: &str| {
            rows[row][columns.iter().position(|column| *column == name).expect(name)]
        };
        assert_eq!([0, 1].map(|row| cell(row, "container")), [" =1+1", "train"]);
        assert_eq!(
            (cell(1, "memory_limit"), cell(1, "denied"), cell(1, "core_limit")),
            ("2147483648", "5", "30")
        );
        assert!(rows.iter().all(|row| row.len() == columns.len()), "{csv}");
    }
}

/// Its texts, as a parser of XML reads them.
fn texts(svg: &str, folder: &Scratch) -> Vec<String> {
    let file = folder.join("picture.svg");
    std::fs::write(&file, svg).expect("a file");
    let read = "import sys, json, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
assert root.tag == '{http://www.w3.org/2000/svg}svg', root.tag
print(json.dumps([[node.tag.split('}')[1], node.text] for node in root.iter()]))";
    let python = Command::new("python3").args(["-c", read]).arg(&file).output().expect("python3");
    assert!(python.status.success(), "{}\n{svg}", String::from_utf8_lossy(&python.stderr));
    let nodes: Vec<(String, Option<String>)> = serde_json::from_slice(&python.stdout).expect("JSON");
    let known = ["svg", "style", "title", "text", "rect", "path", "polyline"];
    assert!(nodes.iter().all(|(tag, _)| known.contains(&tag.as_str())), "{nodes:?}");
    nodes.into_iter().filter(|(tag, _)| tag == "text").filter_map(|(_, text)| text).collect()
}

#[test]
fn a_picture_of_the_last_minutes_is_xml_and_complete_by_itself() {
    let (home, files) = (Scratch::new(), Scratch::new());
    let region = sample(&home.join("train.cache"));
    sample(&home.join("<script>alert(1)&amp;\u{1b}\u{ffff}'\".cache"));
    region.event(EVENT_DENIED, 0, 3 << 30, 1 << 30, 2 << 30);
    let agent = Agent::of(home.path());
    for by in [None, Some(&agent)] {
        let told = output(gpuquota().args(["snapshot", "--svg"]).args(place(home.path(), by)));
        let picture = stdout(&told);
        assert!(told.status.success(), "{}", stderr(&told));
        assert_eq!(stderr(&told).contains("no agent has kept the last minutes"), by.is_none());
        let texts = texts(&picture, &files);
        let has = |words: &str| assert!(texts.iter().any(|text| text.contains(words)), "{words}: {texts:?}");
        has("<script>alert(1)&amp;\\x1b\u{fffd}'\"");
        ["2.00 GiB, share 30%", "GQ101 denied train"].into_iter().for_each(has);
        has(if by.is_some() { "looks by agent http" } else { "7 looks by this command" });
        for outside in ["http:", "https:", "href", "url(", "@import"] {
            let rest = picture.replace("xmlns=\"http://www.w3.org/2000/svg\"", "").replace("agent http:", "");
            assert!(!rest.contains(outside), "{outside} is in {picture}");
        }
        // An agent that has looked once has nothing to draw a line between.
        assert!(picture.contains("<path d=\"M270.0"), "{picture}");
        assert!(by.is_some() || picture.contains("<polyline "), "{picture}");
    }
    let both = output(gpuquota().args(["snapshot", "--svg", "--csv"]).args(place(home.path(), None)));
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn a_code_is_explained_and_one_that_does_not_exist_is_refused() {
    let told = stdout(&output(gpuquota().args(["messages", "gq101"])));
    assert!(told.starts_with("GQ101: denied\n") && told.contains("\nNext: "), "{told}");
    let json = stdout(&output(gpuquota().args(["messages", "--json"])));
    let codes: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(codes.len() > 30 && codes.iter().all(|message| message["next"].is_string()));
    let refused = output(gpuquota().args(["messages", "GQ999"]));
    assert_eq!((refused.status.code(), stderr(&refused).lines().count()), (Some(2), 1));
}
