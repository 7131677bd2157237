//! `gpuquota agent`: serves what the node's regions say, and no tenant can stop or fool it.

mod common;

use common::agent::Agent;
use common::{Scratch, UUID, errors, gpuquota, join, output, sample, stderr, value};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::time::Duration;

#[test]
fn every_layout_of_the_engines_is_found_and_told() {
    let root = Scratch::new();
    std::fs::create_dir(root.join("4711_main")).expect("a directory");
    let inner = root.join("4711_main/8f3a.cache");
    join(&sample(&inner), &inner);
    std::fs::write(root.join("4711_main/libvgpu.so"), b"").expect("the library's stub");
    sample(&root.join("0815_side"));
    sample(&root.join("12-ab.cache"));
    let text = Agent::of(root.path()).metrics();
    for container in ["4711_main", "0815_side", "12-ab"] {
        let labels = format!("{{container=\"{container}\",device_uuid=\"{UUID}\",device_index=\"0\"}}");
        let of = |name: &str| value(&text, &format!("gpuquota_container_{name}{labels}"));
        assert_eq!(of("memory_limit_bytes"), Some("2147483648"), "{text}");
        assert_eq!(of("memory_used_bytes"), Some("1073741824"));
        assert_eq!(of("memory_peak_bytes"), Some("1610612736"));
        let by = |reason: &str| labels.replace('}', &format!(",reason=\"{reason}\"}}"));
        let denied =
            |reason: &str| value(&text, &format!("gpuquota_container_memory_denied_total{}", by(reason)));
        assert_eq!((denied("memory_limit"), denied("context")), (Some("5"), Some("0")));
        assert_eq!(of("core_limit_ratio"), Some("0.3"));
        assert_eq!(of("gpu_time_seconds_total"), Some("2.5"));
        assert_eq!(of("throttled_seconds_total"), Some("0.5"));
        assert_eq!(of("launches_total"), Some("9"));
    }
    let processes =
        |name: &str| value(&text, &format!("gpuquota_container_processes{{container=\"{name}\"}}"));
    assert_eq!((processes("4711_main"), processes("0815_side")), (Some("1"), Some("0")));
    assert_eq!(errors(&text), []);
}

/// Pods of a job have ended, and the last who had their regions open is the agent, so it is the one that gives their blocks back.
#[test]
fn a_container_is_found_at_once_after_many_others_have_gone() {
    let (root, one) = (Scratch::new(), Scratch::new());
    sample(&one.join("a.cache"));
    let whole = std::fs::read(one.join("a.cache")).expect("the region");
    let start = |name: &str| {
        std::fs::create_dir(root.join(name)).expect("a directory");
        std::fs::write(root.join(name).join("a.cache"), &whole).expect("a region without holes");
    };
    let many: Vec<String> = (0..120).map(|number| format!("{number}_main")).collect();
    many.iter().for_each(|name| start(name));
    let agent = Agent::of(root.path());
    let shows = |name: &str| agent.metrics().contains(&format!("container=\"{name}\""));
    assert!(shows("119_main"), "they are found");
    many.iter().for_each(|name| std::fs::remove_dir_all(root.join(name)).expect("ours"));
    // The agent sees that they are gone.
    std::thread::sleep(Duration::from_millis(1500));
    start("new_main");
    let begun = std::time::Instant::now();
    while !shows("new_main") {
        assert!(begun.elapsed() < Duration::from_secs(3), "it is not found");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn hostile_files_are_counted_and_harm_nobody() {
    let root = Scratch::new();
    sample(&root.join("good.cache"));
    let outside = Scratch::new();
    sample(&outside.join("secret.cache"));
    let whole = std::fs::read(root.join("good.cache")).expect("the region");

    std::fs::write(root.join("empty.cache"), b"").expect("a file");
    std::fs::write(root.join("half.cache"), &whole[..whole.len() / 2]).expect("a file");
    std::fs::write(root.join("noise.cache"), vec![0xff; whole.len()]).expect("a file");
    File::create(root.join("huge.cache")).and_then(|file| file.set_len(10 << 30)).expect("a sparse file");
    symlink(outside.join("secret.cache"), root.join("link.cache")).expect("a link");
    symlink(outside.path(), root.join("pod_linked")).expect("a link");
    assert!(
        std::process::Command::new("mkfifo").arg(root.join("fifo.cache")).status().expect("mkfifo").success()
    );
    std::fs::create_dir(root.join("pod_two")).expect("a directory");
    sample(&root.join("pod_two/a.cache"));
    sample(&root.join("pod_two/b.cache"));
    std::fs::create_dir(root.join("pod_dir")).expect("a directory");
    std::fs::create_dir(root.join("pod_dir/dir.cache")).expect("a directory");
    // The same name as another container's.
    std::fs::create_dir(root.join("good")).expect("a directory");
    sample(&root.join("good/x.cache"));

    let text = Agent::of(root.path()).metrics();
    assert_eq!(text.matches("gpuquota_container_memory_limit_bytes{").count(), 1, "{text}");
    let expected = [
        ("duplicate", "1"),
        ("not_a_file", "2"),
        ("not_a_region", "2"),
        ("several_regions", "1"),
        ("too_short", "2"),
    ];
    assert_eq!(errors(&text), expected);
}

#[test]
fn lies_in_a_header_cost_neither_memory_nor_time() {
    let root = Scratch::new();
    sample(&root.join("liar.cache"));
    let mut bytes = std::fs::read(root.join("liar.cache")).expect("the region");
    // Lengths, counts and offsets of the records.
    for at in (0x1E_B000 + 24..0x1E_B000 + 88).step_by(4) {
        let old: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
        bytes[at..at + 4].copy_from_slice(&[0xff; 4]);
        std::fs::write(root.join(&format!("liar-{at}.cache")), &bytes).expect("a file");
        bytes[at..at + 4].copy_from_slice(&old);
    }
    let begun = std::time::Instant::now();
    Agent::of(root.path()).metrics();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_region_that_appears_later_is_found() {
    let root = Scratch::new();
    let agent = Agent::of(root.path());
    assert!(!agent.metrics().contains(UUID));
    sample(&root.join("late.cache"));
    std::thread::sleep(Duration::from_millis(1100));
    assert!(agent.metrics().contains("container=\"late\""));
}

#[test]
fn the_other_paths_answer_as_probes_expect() {
    let root = Scratch::new();
    let agent = Agent::of(root.path());
    assert_eq!(agent.get("/healthz"), ("HTTP/1.1 200 OK".into(), "ok\n".into()));
    assert_eq!(agent.get("/readyz"), ("HTTP/1.1 200 OK".into(), "ready\n".into()));
    assert_eq!(agent.get("/else").0, "HTTP/1.1 404 Not Found");
    let post = "POST /metrics HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(agent.ask(post).0, "HTTP/1.1 405 Method Not Allowed");
}

#[test]
fn slow_and_endless_clients_do_not_keep_others_waiting() {
    let root = Scratch::new();
    let agent = Agent::of(root.path());
    let slow: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut stream = agent.connect();
            stream.write_all(b"GET /metrics HTTP/1.1\r\n").expect("half a request");
            stream
        })
        .collect();
    assert_eq!(agent.get("/healthz").0, "HTTP/1.1 200 OK");
    drop(slow);
    let long = format!("GET /healthz HTTP/1.1\r\nHost: agent\r\nX: {}\r\n\r\n", "x".repeat(1 << 16));
    let mut stream = agent.connect();
    // The agent may close before it has taken everything.
    let _ = stream.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "an endless head is refused");
    assert_eq!(agent.get("/healthz").0, "HTTP/1.1 200 OK");
}

#[test]
fn sigterm_ends_it_with_status_0() {
    let root = Scratch::new();
    let mut agent = Agent::of(root.path());
    agent.metrics();
    kill_process(Pid::from_child(&agent.process), Signal::TERM).expect("a signal");
    assert_eq!(agent.process.wait().expect("an end").code(), Some(0));
}

#[test]
fn an_address_that_cannot_be_had_is_an_error() {
    let root = Scratch::new();
    let agent = Agent::of(root.path());
    for address in ["nowhere", "127.0.0.1", "127.0.0.1:99999", agent.address.as_str()] {
        let ended = output(gpuquota().args(["agent", "--listen", address]));
        assert_eq!(ended.status.code(), Some(2), "{address}");
        assert!(stderr(&ended).contains(address), "{address}: {}", stderr(&ended));
    }
}
