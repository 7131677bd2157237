//! Files that a tenant makes where the agent and the tools look, and what they may not do to them.

mod common;

use common::agent::Agent;
use common::{Scratch, UUID, errors, gpuquota, join, output, sample, stderr, stdout, value};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

fn containers(text: &str) -> Vec<&str> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("gpuquota_container_memory_limit_bytes{container=\""));
    lines.filter_map(|line| line.split_once('"').map(|(name, _)| name)).collect()
}

/// A device node whose driver says when it is opened: `/dev/full` and the like say nothing, so strace does.
fn opened_by(command: &mut Command, log: &Path) -> String {
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-qq", "-y", "-e", "trace=open,openat,openat2", "-o"])
        .arg(log)
        .arg(command.get_program());
    traced.args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => traced.env(name, value),
            None => traced.env_remove(name),
        };
    }
    let ended = output(&mut traced);
    assert!(ended.status.code().is_some(), "{}", stderr(&ended));
    fs::read_to_string(log).expect("what strace wrote")
}

/// Whether a name was opened other than as a place. A call that another thread interrupts has a second line without its flags.
fn is_opened(log: &str, name: &str) -> bool {
    let calls = log.lines().filter(|line| !line.contains(" resumed>"));
    calls.into_iter().any(|line| line.contains(name) && !line.contains("O_PATH") && !line.contains("= -1"))
}

#[test]
fn device_nodes_and_fifos_are_looked_at_and_not_opened() {
    let root = Scratch::new();
    let node = root.join("node.cache");
    let made = Command::new("mknod").arg(&node).args(["c", "1", "3"]).status();
    assert!(made.is_ok_and(|status| status.success()), "this test makes a device node, as root");
    assert!(
        Command::new("mkfifo").arg(root.join("fifo.cache")).status().is_ok_and(|status| status.success())
    );
    let log = root.join("log");
    for name in ["node.cache", "fifo.cache"] {
        for words in [vec!["inspect"], vec!["inspect", "--json"], vec!["limit", "--memory", "1GiB"]] {
            let log = opened_by(gpuquota().args(words).arg(root.join(name)), &log);
            assert!(log.contains(name), "{log}");
            assert!(!is_opened(&log, name), "{log}");
        }
    }
    let agent = gpuquota();
    let mut command = Command::new("timeout");
    command
        .arg("3")
        .arg(agent.get_program())
        .args(["agent", "--listen", "127.0.0.1:0", "--root"])
        .arg(root.path());
    let log = opened_by(&mut command, &log);
    for name in ["node.cache", "fifo.cache"] {
        assert!(log.contains(name) && !is_opened(&log, name), "{log}");
    }
}

#[test]
fn an_empty_or_foreign_file_hides_no_container() {
    let root = Scratch::new();
    let home = root.join("pod_main");
    fs::create_dir(&home).expect("a directory");
    join(&sample(&home.join("m.cache")), &home.join("m.cache"));
    fs::write(home.join("a.cache"), b"").expect("a file");
    fs::write(home.join("b.cache"), vec![0xff; 5 << 20]).expect("a file");
    sample(&home.join("z.cache"));
    let agent = Agent::of(root.path());
    assert_eq!(containers(&agent.metrics()), ["pod_main"]);
    // A second one that lives does not take its place.
    join(&sample(&home.join("c.cache")), &home.join("c.cache"));
    thread::sleep(Duration::from_millis(1200));
    let text = agent.metrics();
    assert_eq!(containers(&text), ["pod_main"]);
    let processes = value(&text, "gpuquota_container_processes{container=\"pod_main\"}");
    assert_eq!(processes, Some("1"), "{text}");
    assert!(errors(&text).contains(&("several_regions", "1")), "{:?}", errors(&text));
}

#[test]
fn a_bad_file_is_counted_once_and_again_when_it_changes() {
    let root = Scratch::new();
    fs::write(root.join("empty.cache"), b"").expect("a file");
    let agent = Agent::of(root.path());
    for _ in 0..3 {
        assert_eq!(errors(&agent.metrics()), [("too_short", "1")]);
        thread::sleep(Duration::from_millis(1100));
    }
    fs::write(root.join("empty.cache"), vec![1; 5 << 20]).expect("a file");
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(errors(&agent.metrics()), [("not_a_region", "1"), ("too_short", "1")]);
}

#[test]
fn an_empty_file_that_becomes_a_region_is_found() {
    let root = Scratch::new();
    let path = root.join("late.cache");
    fs::write(&path, b"").expect("a file");
    let agent = Agent::of(root.path());
    assert!(containers(&agent.metrics()).is_empty());
    sample(&path);
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(containers(&agent.metrics()), ["late"]);
}

#[test]
fn what_cannot_be_searched_is_told() {
    let root = Scratch::new();
    let missing = root.join("not-there-yet");
    let agent = Agent::of(&missing);
    let (status, why) = agent.get("/readyz");
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(why.contains("not-there-yet"), "{why}");
    assert_eq!(errors(&agent.metrics()).len(), 1, "{:?}", errors(&agent.metrics()));
    fs::create_dir(&missing).expect("a directory");
    sample(&missing.join("a.cache"));
    let until = Instant::now() + Duration::from_secs(10);
    while agent.get("/readyz").0 != "HTTP/1.1 200 OK" {
        assert!(Instant::now() < until, "{:?}", agent.get("/readyz"));
        thread::sleep(Duration::from_millis(500));
    }
    // An answer is given again for a second.
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(containers(&agent.metrics()), ["a"]);
}

#[test]
fn names_reach_no_terminal_as_they_are_and_stay_different() {
    let root = Scratch::new();
    for name in ["a\u{1}.cache", "a\u{2}.cache", "a\\x01.cache", "\u{1b}[2J\u{202e}.cache"] {
        sample(&root.join(name));
    }
    let agent = Agent::of(root.path());
    let text = agent.metrics();
    let mut names = containers(&text);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
    let path = root.join("\u{1b}[2J\u{202e}.cache");
    let told = output(gpuquota().arg("inspect").arg(&path));
    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
    let missing = output(gpuquota().arg("inspect").arg(root.join("\u{1b}[2J-is-not-there")));
    let refused = output(gpuquota().args(["limit", "--memory", "7=1GiB"]).arg(&path));
    for text in [stdout(&told), stderr(&missing), stderr(&refused)] {
        assert!(
            text.contains("\\x1b[2J") && !text.contains('\u{1b}') && !text.contains('\u{202e}'),
            "{text:?}"
        );
    }
}

#[test]
fn counters_near_the_end_of_a_word_neither_wrap_nor_abort() {
    use std::sync::atomic::Ordering::Relaxed;
    let root = Scratch::new();
    let path = root.join("high.cache");
    let region = sample(&path);
    let slot = join(&region, &path);
    let device = &region.ours().devices[0];
    let words = [
        &device.gpu_time_ns,
        &device.waited_ns,
        &device.launches,
        &device.denied,
        &device.peak,
        &device.used,
    ];
    words.into_iter().chain(&device.wait_times).for_each(|word| word.store(u64::MAX, Relaxed));
    device.core_limit.store(u32::MAX, Relaxed);
    region.ours().header.fallbacks.store(u64::MAX, Relaxed);
    region.ours().header.leases[0].policy.store(u32::MAX, Relaxed);
    region.ours().header.leases[0].held_ns.store(u64::MAX, Relaxed);
    region.ours().journals[slot].iter().for_each(|journal| journal.held.store(u64::MAX, Relaxed));
    region.ours().slots[slot].journal_device.iter().for_each(|device| device.store(1, Relaxed));
    let text = Agent::of(root.path()).metrics();
    let buckets =
        text.lines().filter(|line| line.starts_with("gpuquota_container_launch_wait_seconds_bucket"));
    let counts: Vec<u64> = buckets.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    assert!(counts.len() == 8 && counts.is_sorted(), "{counts:?}");
    assert_eq!(counts.last(), Some(&u64::MAX));
    let told = output(gpuquota().arg("inspect").arg(&path));
    assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
}

#[test]
fn one_user_cannot_fill_the_node() {
    let root = Scratch::new();
    sample(&root.join("a_root.cache"));
    for index in 0..100 {
        let path = root.join(&format!("b{index}.cache"));
        fs::copy(root.join("a_root.cache"), &path).expect("a copy");
        std::os::unix::fs::chown(&path, Some(65534), None).expect("as root");
    }
    sample(&root.join("z_root.cache"));
    let text = Agent::of(root.path()).metrics();
    let found = containers(&text);
    assert!(found.contains(&"a_root") && found.contains(&"z_root"), "{found:?}");
    assert_eq!(found.len(), 66);
    assert_eq!(errors(&text), [("too_many", "36")]);
}

#[test]
fn the_second_agent_of_a_place_says_so_and_ends() {
    let root = Scratch::new();
    let first = Agent::of(root.path());
    let mut second = gpuquota();
    second.args(["agent", "--listen", "127.0.0.1:0", "--root"]).arg(root.path());
    let ended = output(&mut second);
    assert_eq!(ended.status.code(), Some(2), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("another agent serves"), "{}", stderr(&ended));
    assert_eq!(first.get("/healthz").0, "HTTP/1.1 200 OK");
    drop(first);
    assert_eq!(Agent::of(root.path()).get("/healthz").0, "HTTP/1.1 200 OK");
    // Nobody else can hold it.
    let mode = fs::metadata(root.join(".gpuquota-agent")).expect("its file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn whoever_makes_the_agents_file_first_does_not_keep_it_away() {
    let root = Scratch::new();
    let path = root.join(".gpuquota-agent");
    let theirs = File::create(&path).expect("a file");
    std::os::unix::fs::chown(&path, Some(65534), None).expect("as root");
    rustix::fs::flock(&theirs, rustix::fs::FlockOperation::LockExclusive).expect("a lock");
    assert_eq!(Agent::of(root.path()).get("/healthz").0, "HTTP/1.1 200 OK");
    assert!(theirs.as_raw_fd() >= 0);
}

/// Descriptors and memory (KiB) of a process.
fn size(pid: u32) -> (usize, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let rss =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    (fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count(), rss.expect("a size"))
}

#[test]
fn containers_that_come_and_go_leave_nothing_in_the_agent() {
    let root = Scratch::new();
    let outside = Scratch::new();
    sample(&outside.join("a.cache"));
    let agent = Agent::of(root.path());
    let round = |number: usize| {
        for index in 0..200 {
            let home = root.join(&format!("pod{number}_{index}"));
            fs::create_dir(&home).expect("a directory");
            fs::hard_link(outside.join("a.cache"), home.join("a.cache")).expect("a link");
        }
        thread::sleep(Duration::from_millis(700));
        for index in 0..200 {
            fs::remove_dir_all(root.join(&format!("pod{number}_{index}"))).expect("removed");
        }
        thread::sleep(Duration::from_millis(700));
        agent.metrics();
        size(agent.process.id())
    };
    let (files, memory) = round(0);
    let (later_files, later_memory) = (1..6).map(round).next_back().expect("rounds");
    assert!(later_files <= files + 2, "{files}, then {later_files} descriptors");
    assert!(later_memory <= memory + 2048, "{memory}, then {later_memory} KiB");
}

/// A file lease of a tenant's makes whoever opens the file wait.
#[test]
fn a_lease_on_a_file_does_not_hold_up_a_search() {
    let root = Scratch::new();
    sample(&root.join("b.cache"));
    fs::copy(root.join("b.cache"), root.join("a.cache")).expect("a copy");
    let script = "import fcntl,os,signal,sys,time\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\n\
                  f=os.open(sys.argv[1],os.O_RDWR)\nfcntl.fcntl(f,1024,fcntl.F_WRLCK)\nprint(1,flush=True)\ntime.sleep(60)";
    let mut holder = Command::new("python3");
    let mut holder = holder
        .args(["-c", script])
        .arg(root.join("a.cache"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut line = String::new();
    let out = holder.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
    assert_eq!(line, "1\n", "it has the lease");
    let begun = Instant::now();
    let text = Agent::of(root.path()).metrics();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(containers(&text).contains(&"b"), "{text}");
    assert!(text.contains(UUID));
    holder.kill().expect("it ends");
    holder.wait().expect("it ended");
}

/// Heads that are nearly right, each with some bytes changed, left out, doubled or put in.
fn heads() -> impl Iterator<Item = Vec<u8>> {
    const RIGHT: [&str; 6] = [
        "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text; version=1.0.0; q=0.5, */*\r\n\r\n",
        "HEAD /api/v1/containers?a=%00 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n",
        "POST /version HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "GET http://a/livez HTTP/1.0\r\nConnection: keep-alive, upgrade\r\nUpgrade: h2c\r\n\r\n",
        "GET /readyz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut any = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    (0..1200).map(move |round| {
        let mut head = RIGHT[round % RIGHT.len()].as_bytes().to_vec();
        for _ in 0..=any(4) {
            let at = any(head.len());
            match if head.is_empty() { 0 } else { any(5) } {
                0 => head.insert(at, any(256) as u8),
                1 => _ = head.remove(at),
                2 => head[at] = [b'\r', b'\n', b' ', b':', b'%', 0, 0xFF, b','][any(8)],
                3 => head.truncate(at.max(1)),
                _ => {
                    let part = head[at..(at + any(64)).min(head.len())].to_vec();
                    head.splice(at..at, std::iter::repeat_n(part, 1 + any(600)).flatten());
                }
            }
        }
        head
    })
}

#[test]
fn whatever_head_a_client_sends_it_is_answered_by_the_rules_or_not_at_all() {
    let root = Scratch::new();
    sample(&root.join("a.cache"));
    let agent = Agent::of(root.path());
    for head in heads() {
        let mut stream = TcpStream::connect(&agent.address).expect("a connection");
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let _ = stream.write_all(&head).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let timed_out = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "no end of {:?}", String::from_utf8_lossy(&head));
        let line = String::from_utf8_lossy(answer.get(..12).unwrap_or(&answer)).into_owned();
        let known = ["200", "400", "404", "405", "408", "413", "414", "431", "503", "505"];
        let is_right = line.is_empty()
            || known
                .iter()
                .any(|status| line == format!("HTTP/1.1 {status}") || line == format!("HTTP/1.0 {status}"));
        assert!(is_right, "{line:?} to {:?}", String::from_utf8_lossy(&head));
    }
    assert!(agent.metrics().contains("gpuquota_container_memory_limit_bytes{container=\"a\""));
}
