//! The agent's server: who is answered, how soon, and that no client keeps others waiting.

mod common;

use common::agent::{Agent, asked};
use common::exposition::{check_by_promtool, parse};
use common::{Scratch, UUID, gpuquota, join, sample};
use gpuquota_region::layout::{EVENT_DENIED, EVENTS};
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n";

/// A client has a second to say what it wants: who waits until the time of one is over waits longer than this.
const NO_WAIT: Duration = Duration::from_millis(900);

/// How long a scrape takes.
fn scrape(agent: &Agent) -> Duration {
    let begun = Instant::now();
    agent.metrics();
    begun.elapsed()
}

/// Containers with names that a tenant may give.
fn hostile_names() -> Scratch {
    let root = Scratch::new();
    join(&sample(&root.join("a\"b\\c{}.cache")), &root.join("a\"b\\c{}.cache"));
    sample(&root.join("\u{1b}[31mred\n.cache"));
    sample(&root.join("plain.cache"));
    root
}

#[test]
fn what_is_served_is_as_the_format_wants_it() {
    let root = hostile_names();
    let agent = Agent::with(root.path(), &["--hami-metrics", "--dcgm-metrics", "--node-name", "n1"]);
    let read = parse(&agent.metrics());
    let processes = &read["gpuquota_container_processes"].samples;
    let names: Vec<_> = processes.iter().map(|sample| sample.labels["container"].as_str()).collect();
    assert_eq!(names, ["\\x1b[31mred\\x0a", "a\"b\\x5cc{}", "plain"]);
    assert_eq!(read["hami_vgpu_memory_used_bytes"].samples.len(), 3);
}

#[test]
#[ignore = "needs promtool: .ci/run metrics"]
fn promtool_finds_nothing_in_what_is_served() {
    let root = hostile_names();
    check_by_promtool(&Agent::of(root.path()).metrics());
}

#[test]
fn openmetrics_is_given_to_who_asks_for_it() {
    let root = Scratch::new();
    let agent = Agent::of(root.path());
    let with = |accept: &str| {
        asked(agent.connect(), &format!("GET /metrics HTTP/1.1\r\nHost: agent\r\nAccept: {accept}\r\n\r\n"))
    };
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    let (head, body) = with(prometheus);
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0") && body.ends_with("# EOF\n"),
        "{head}"
    );
    for plain in ["*/*", "text/plain", "application/openmetrics-text;q=0"] {
        let (head, body) = with(plain);
        assert!(head.contains("text/plain; version=0.0.4") && !body.contains("# EOF"), "{plain}: {head}");
    }
}

/// `count` clients that connect, say this and then nothing.
fn silent(agent: &Agent, count: usize, says: &str) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut stream = agent.connect();
            stream.write_all(says.as_bytes()).expect("sent");
            stream
        })
        .collect()
}

#[test]
fn clients_that_say_nothing_or_half_do_not_delay_a_scrape() {
    let root = Scratch::new();
    sample(&root.join("a.cache"));
    for (count, says) in
        [(64, ""), (64, "GET /metr"), (500, ""), (500, "GET /metrics HTTP/1.1\r\nHost: a\r\n")]
    {
        let agent = Agent::of(root.path());
        let clients = silent(&agent, count, says);
        let took = scrape(&agent);
        assert!(took < NO_WAIT, "{count} clients that say {says:?}: {took:?}");
        assert_eq!(agent.get("/livez").1, "ok\n");
        drop(clients);
    }
}

#[test]
fn clients_that_drip_their_head_do_not_delay_a_scrape() {
    let root = Scratch::new();
    let agent = Agent::of(root.path());
    let mut clients = silent(&agent, 500, "GET /metrics HTTP/1.1\r\n");
    for round in 0..15 {
        // Those whose time is over are closed.
        clients.retain_mut(|stream| stream.write_all(b"X: y\r\n").is_ok());
        let took = scrape(&agent);
        assert!(took < NO_WAIT, "round {round}: {took:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let is_closed = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        // Up to its end, or to where nothing comes any more.
        stream
            .read_to_end(&mut Vec::new())
            .map_or_else(|why| why.kind() == ErrorKind::ConnectionReset, |_| true)
    };
    let open = clients.iter_mut().map(is_closed).filter(|closed| !closed).count();
    assert_eq!(open, 0, "their time is never over");
}

#[test]
fn more_clients_than_seats_lose_theirs_to_who_asks() {
    let root = Scratch::new();
    let agent = Agent::with(root.path(), &["--connections", "16"]);
    for says in ["", "GET /metrics HTTP/1.1\r\n"] {
        let clients = silent(&agent, 300, says);
        let took = scrape(&agent);
        assert!(took < NO_WAIT, "{took:?}");
        drop(clients);
    }
    // Streams that nobody reads keep no seat from others either.
    let streams = silent(&agent, 40, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    let took = scrape(&agent);
    assert!(took < NO_WAIT, "{took:?}");
    drop(streams);
}

#[test]
fn clients_that_do_not_read_do_not_delay_a_scrape() {
    let root = Scratch::new();
    // An answer that no buffer holds.
    let name = "x".repeat(240);
    for number in 0..40 {
        sample(&root.join(&format!("{name}{number}.cache")));
    }
    let agent = Agent::with(root.path(), &["--hami-metrics"]);
    // On a busy machine a look may leave some of them for the next one.
    let is_large = (0..20).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        agent.metrics().len() > 600_000
    });
    assert!(is_large);
    let clients = silent(&agent, 64, GET);
    std::thread::sleep(Duration::from_millis(300));
    let took = scrape(&agent);
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop(clients);
}

#[test]
fn who_asks_at_the_same_time_shares_one_look() {
    let root = Scratch::new();
    for number in 0..50 {
        sample(&root.join(&format!("c{number}.cache")));
    }
    let agent = Agent::of(root.path());
    let texts: Vec<String> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..32).map(|_| scope.spawn(|| agent.metrics())).collect();
        asking.into_iter().map(|asking| asking.join().expect("an answer")).collect()
    });
    for text in texts {
        let looks =
            text.lines().find_map(|line| line.strip_prefix("gpuquota_agent_scan_duration_seconds_count "));
        assert!(matches!(looks, Some("1" | "2")), "{looks:?} looks");
    }
}

#[test]
fn bodies_and_other_methods_are_refused() {
    let root = Scratch::new();
    let agent = Agent::of(root.path());
    let big = "GET /metrics HTTP/1.1\r\nHost: agent\r\nContent-Length: 1000000000\r\n\r\n";
    assert_eq!(agent.ask(big).0, "HTTP/1.1 413 Payload Too Large");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(agent.ask(&request).0, "HTTP/1.1 405 Method Not Allowed", "{method}");
    }
    let (status, body) = agent.ask("HEAD /metrics HTTP/1.1\r\nHost: agent\r\n\r\n");
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", ""));
}

/// What `/api/v1...` answers.
fn json(agent: &Agent, path: &str) -> Value {
    let (status, body) = agent.get(path);
    assert_eq!(status, "HTTP/1.1 200 OK", "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

#[test]
fn json_tells_the_same_numbers_as_the_metrics() {
    let root = Scratch::new();
    let region = sample(&root.join("a.cache"));
    join(&region, &root.join("a.cache"));
    let agent = Agent::of(root.path());
    let read = parse(&agent.metrics());
    let of = |name: &str| read[&format!("gpuquota_container_{name}")].samples[0].value;
    let all = json(&agent, "/api/v1");
    let container = &all["containers"][0];
    assert_eq!(container["container"], "a");
    let device = &container["devices"][0];
    for (field, metric) in [
        ("memory_limit", "memory_limit_bytes"),
        ("used", "memory_used_bytes"),
        ("peak", "memory_peak_bytes"),
        ("denied", "memory_denied_total"),
        ("launches", "launches_total"),
    ] {
        assert_eq!(device[field].as_f64(), Some(of(metric)), "{field}");
    }
    assert_eq!(device["gpu_time_ns"].as_f64(), Some(of("gpu_time_seconds_total") * 1e9));
    assert_eq!(device["uuid"], UUID);
    assert_eq!(json(&agent, "/api/v1/containers")["containers"], all["containers"]);
    assert_eq!(json(&agent, "/api/v1/devices")["devices"][0]["memory_allocated"], 2_u64 << 30);
    assert_eq!(json(&agent, "/api/v1/events")["events"], Value::Array(vec![]));
    assert!(json(&agent, "/api/v1/agent")["agent"]["left_out"].is_object());
    assert_eq!(json(&agent, "/version")["version"], env!("CARGO_PKG_VERSION"));
}

/// Writes a refusal into the region.
fn deny(region: &gpuquota_region::Region, number: u64) {
    let ours = region.ours();
    let event = &ours.events[number as usize % EVENTS];
    event.code.store(EVENT_DENIED, Relaxed);
    event.pid.store(7, Relaxed);
    event.device.store(0, Relaxed);
    event.requested.store(1 << 20, Relaxed);
    event.used.store(1 << 30, Relaxed);
    event.limit.store(2 << 30, Relaxed);
    event.time_ns.store(1_700_000_000_000_000_000, Relaxed);
    event.stamp.store(number + 1, Relaxed);
    ours.header.event_next.store(number + 1, Relaxed);
}

/// The next event of a stream: its id, kind and data.
fn next_event(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> (String, String, Value) {
    let (mut id, mut kind, mut data) = (String::new(), String::new(), Value::Null);
    loop {
        let line = lines.next().expect("a line").expect("read");
        if let Some(text) = line.strip_prefix("id: ") {
            id = text.to_owned();
        } else if let Some(text) = line.strip_prefix("event: ") {
            kind = text.to_owned();
        } else if let Some(text) = line.strip_prefix("data: ") {
            data = serde_json::from_str(text).expect("JSON");
        } else if line.is_empty() && !id.is_empty() {
            return (id, kind, data);
        }
    }
}

fn stream(agent: &Agent, header: &str) -> impl Iterator<Item = std::io::Result<String>> + use<> {
    let mut stream = agent.connect();
    write!(stream, "GET /events HTTP/1.1\r\nHost: agent\r\n{header}\r\n").expect("sent");
    BufReader::new(stream).lines()
}

#[test]
fn events_come_as_they_happen_and_a_stream_goes_on_where_it_was() {
    let root = Scratch::new();
    let region = sample(&root.join("a.cache"));
    let agent = Agent::of(root.path());
    deny(&region, 0);
    let mut lines = stream(&agent, "");
    let (first, kind, data) = next_event(&mut lines);
    assert_eq!(kind, "denied");
    assert_eq!((&data["container"], &data["device_uuid"]), (&"a".into(), &UUID.into()));
    assert_eq!((&data["requested"], &data["limit"]), (&(1 << 20).into(), &(2_u64 << 30).into()));
    deny(&region, 1);
    let (second, _, _) = next_event(&mut lines);
    assert_ne!(first, second);
    let mut again = stream(&agent, &format!("Last-Event-ID: {first}\r\n"));
    assert_eq!(next_event(&mut again).0, second);
    // An id of another agent's life: everything that is kept.
    let mut other = stream(&agent, "Last-Event-ID: 17-1\r\n");
    assert_eq!(next_event(&mut other).0, first);
    assert_eq!(json(&agent, "/api/v1/events")["events"].as_array().map(Vec::len), Some(2));
}

#[test]
fn the_page_may_ask_nobody_but_this_agent_and_names_its_files_alone() {
    let root = Scratch::new();
    let agent = Agent::of(root.path());
    let mut page = String::new();
    let script = "text/javascript";
    let files = [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", script),
        ("/ask.js", script),
        ("/show.js", script),
    ];
    for (path, kind) in files {
        let (head, body) = asked(agent.connect(), &format!("GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n"));
        assert!(head.contains(&format!("content-type: {kind}; charset=utf-8")), "{head}");
        for rule in
            ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "trusted-types 'none'"]
        {
            assert!(head.contains(rule), "{path}: {rule} is not in {head}");
        }
        assert!(head.contains("x-content-type-options: nosniff") && !head.contains("unsafe"), "{head}");
        page += &body;
    }
    for outside in
        ["http:", "https:", "innerHTML", "insertAdjacentHTML", "document.write", "eval(", " style="]
    {
        assert!(!page.contains(outside), "{outside} is in the page");
    }
}

#[test]
fn what_the_page_shows_comes_with_each_look() {
    let root = Scratch::new();
    let region = sample(&root.join("a.cache"));
    join(&region, &root.join("a.cache"));
    let agent = Agent::of(root.path());
    deny(&region, 0);
    let mut stream = agent.connect();
    write!(stream, "GET /api/v1/live HTTP/1.1\r\nHost: agent\r\n\r\n").expect("sent");
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let mut pictures =
        lines.filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let (first, second) = (pictures.next().expect("a picture"), pictures.next().expect("a picture"));
    assert_ne!(first["taken"], second["taken"]);
    let (container, event) = (&second["containers"][0], &second["events"][0]);
    assert_eq!((&container["container"], &container["processes"]), (&"a".into(), &1.into()));
    let device = &container["devices"][0];
    assert_eq!((&device["used"], &device["core_limit"]), (&(1_u64 << 30).into(), &30.into()));
    assert_eq!(
        (device["waiting"].as_f64(), &first["containers"][0]["devices"][0]["waiting"]),
        (Some(0.0), &Value::Null)
    );
    assert_eq!((&event["code"], &event["container"]), (&"GQ101".into(), &"a".into()));
    assert!(event["says"].as_str().is_some_and(|says| says.contains("requested=1.00MiB")), "{event}");
}

#[test]
fn why_is_answered_for_a_name_and_for_a_region_and_unknown_ones_are_told() {
    let root = Scratch::new();
    sample(&root.join("a b.cache"));
    sample(&root.join("a c.cache"));
    let agent = Agent::of(root.path());
    let region = format!("/api/v1/why?region={}", root.join("a b.cache").display()).replace(' ', "%20");
    for path in ["/api/v1/why?container=a%20b", &region] {
        let told = json(&agent, path);
        assert_eq!((&told["container"], &told["source"]), (&"a b".into(), &"agent".into()));
        assert_eq!(told["answers"][0]["code"], "GQ305", "{told}");
    }
    for (path, status, words) in [
        ("/api/v1/why", "400 Bad Request", "?container=NAME"),
        (
            "/api/v1/why?container=x",
            "404 Not Found",
            "there is no container \"x\"; there are a b, a c (GQ501)",
        ),
        ("/api/v1/why?container=a", "404 Not Found", "may be a b, a c: name one of them (GQ502)"),
        ("/api/v1/why?region=%2Fx", "404 Not Found", "region /x: it is gone (GQ501)"),
    ] {
        let (told, body) = agent.get(path);
        assert_eq!(told, format!("HTTP/1.1 {status}"), "{path}");
        assert!(body.contains(words) && body.lines().count() == 1, "{body}");
    }
}

#[test]
fn the_last_minutes_are_told_also_of_what_has_ended_since() {
    let root = Scratch::new();
    sample(&root.join("a.cache"));
    let agent = Agent::of(root.path());
    let until = Instant::now() + Duration::from_secs(20);
    let many = |told: &Value| told["times"].as_array().map_or(0, Vec::len);
    while many(&json(&agent, "/api/v1/history")) < 1 {
        assert!(Instant::now() < until, "no look is taken");
        std::thread::sleep(Duration::from_millis(100));
    }
    std::fs::remove_file(root.join("a.cache")).expect("it is there");
    let told = loop {
        let told = json(&agent, "/api/v1/history");
        if many(&told) > 1 {
            break told;
        }
        assert!(Instant::now() < until, "no second look is taken: {told}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let line = &told["containers"][0];
    assert_eq!((&line["container"], &line["memory_limit"]), (&"a".into(), &(2_u64 << 30).into()));
    assert_eq!((&line["used"][0], &line["used"][1]), (&(1_u64 << 30).into(), &Value::Null));
}

#[test]
fn readiness_says_why_not() {
    let root = Scratch::new();
    let later = root.join("later");
    let agent = Agent::of(&later);
    let (status, body) = agent.get("/readyz");
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(body.starts_with(&format!("not ready: {} cannot be read: ", later.display())), "{body}");
    std::fs::create_dir(&later).expect("a directory");
    assert_eq!(agent.get("/readyz").1, "ready\n");
    assert_eq!(agent.get("/livez").1, "ok\n");
}

#[test]
fn a_token_opens_everything_and_probes_need_none() {
    let root = Scratch::new();
    let file = root.join("token");
    std::fs::write(&file, "first-secret\n").expect("a file");
    let agent = Agent::with(root.path(), &["--token-file", file.to_str().expect("text")]);
    let with = |path: &str, header: &str| {
        agent.ask(&format!("GET {path} HTTP/1.1\r\nHost: agent\r\n{header}\r\n")).0
    };
    // The files of the page tell nothing of the node.
    for path in ["/livez", "/healthz", "/readyz", "/", "/page.css", "/page.js", "/ask.js", "/show.js"] {
        assert_eq!(with(path, ""), "HTTP/1.1 200 OK", "{path}");
    }
    let of_page = ["/api/v1/live", "/api/v1/history", "/api/v1/why?container=a", "//", "/page.js/"];
    for path in ["/metrics", "/api/v1", "/events", "/version", "/nothing"].into_iter().chain(of_page) {
        for header in [
            "",
            "Authorization: Bearer first-secre\r\n",
            "Authorization: Basic first-secret\r\n",
            "Authorization: first-secret\r\n",
            "Authorization: Bearer \r\n",
        ] {
            assert_eq!(with(path, header), "HTTP/1.1 401 Unauthorized", "{path} {header}");
        }
    }
    assert_eq!(with("/metrics", "Authorization: Bearer first-secret\r\n"), "HTTP/1.1 200 OK");
    std::fs::write(&file, "second-secret").expect("a file");
    agent.says("token is read again");
    assert_eq!(with("/metrics", "Authorization: Bearer first-secret\r\n"), "HTTP/1.1 401 Unauthorized");
    assert_eq!(with("/metrics", "authorization: bearer second-secret\r\n"), "HTTP/1.1 200 OK");
    // What became wrong takes nothing back.
    std::fs::write(&file, "two words").expect("a file");
    agent.says("the token of before holds");
    assert_eq!(with("/metrics", "Authorization: Bearer second-secret\r\n"), "HTTP/1.1 200 OK");
}

/// Makes a certificate and its key.
fn certificate(folder: &Path, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    std::fs::write(folder.join("certificate.pem"), made.cert.pem()).expect("a file");
    made.cert.der().clone()
}

/// The answer over TLS to who trusts this certificate and wants this name.
fn over_tls(agent: &Agent, trusted: &CertificateDer<'static>, name: &str) -> Result<String, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = agent.connect();
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(|error| error.to_string())?;
    }
    Ok(asked(rustls::StreamOwned::new(tls, stream), GET).1)
}

#[test]
fn tls_serves_and_takes_a_new_certificate_while_it_runs() {
    let root = Scratch::new();
    let files = Scratch::new();
    let first = certificate(files.path(), "first.example");
    let [chain, key] = ["certificate.pem", "key.pem"].map(|name| files.join(name).display().to_string());
    let agent = Agent::with(root.path(), &["--tls-certificate", &chain, "--tls-key", &key]);
    assert!(agent.says("https://").contains("serving"));
    assert!(over_tls(&agent, &first, "first.example").expect("trusted").contains("gpuquota_build_info"));
    // Clients that never shake hands hold up nobody.
    let clients = silent(&agent, 200, "");
    let begun = Instant::now();
    over_tls(&agent, &first, "first.example").expect("trusted");
    assert!(begun.elapsed() < NO_WAIT, "{:?}", begun.elapsed());
    drop(clients);
    let second = certificate(files.path(), "second.example");
    agent.says("certificate is read again");
    assert!(over_tls(&agent, &second, "second.example").expect("trusted").contains("gpuquota_build_info"));
    assert!(over_tls(&agent, &first, "first.example").is_err());
    // Files that do not match are told, and the certificate of before is served.
    let other = Scratch::new();
    certificate(other.path(), "other.example");
    std::fs::copy(other.join("key.pem"), &key).expect("a file");
    agent.says("is not the key of");
    assert!(over_tls(&agent, &second, "second.example").is_ok());
}

#[test]
fn the_socket_answers_root_and_its_own_user_and_goes_with_the_agent() {
    let root = Scratch::new();
    let folder = Scratch::new();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let path = folder.join("agent.sock");
    let token = folder.join("token");
    std::fs::write(&token, "secret").expect("a file");
    let listen = format!("unix:{}", path.display());
    let mut agent =
        Agent::with(root.path(), &["--listen", &listen, "--token-file", token.to_str().expect("text")]);
    agent.says("serving unix:");
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (head, body) = asked(UnixStream::connect(&path).expect("a connection"), GET);
    assert!(head.starts_with("HTTP/1.1 200 OK") && body.contains("gpuquota_build_info"), "{head}");
    if rustix::process::geteuid().is_root() {
        // Whoever could open it all the same is asked who it is.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("a mode");
        let script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()); print(s.recv(99).decode())";
        let asked = |uid: u32| {
            use std::os::unix::process::CommandExt;
            let mut python = Command::new("/usr/bin/python3");
            let output = python.args(["-c", script]).arg(&path).arg(GET).uid(uid).output().expect("python3");
            String::from_utf8(output.stdout).expect("text")
        };
        assert!(asked(0).starts_with("HTTP/1.1 200"), "{}", asked(0));
        assert!(asked(65534).starts_with("HTTP/1.1 403"), "{}", asked(65534));
    }
    // One that was killed leaves its socket, and the next one takes it.
    agent.process.kill().expect("it lives");
    agent.process.wait().expect("it ends");
    assert!(path.exists());
    let mut next = Agent::with(root.path(), &["--listen", &listen]);
    next.says("serving unix:");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&next.process),
        rustix::process::Signal::TERM,
    )
    .expect("a signal");
    assert_eq!(next.process.wait().expect("it ends").code(), Some(0));
    assert!(!path.exists(), "the socket goes with the agent");
}

#[test]
fn several_addresses_are_served_and_ipv6() {
    let root = Scratch::new();
    let agent = Agent::with(root.path(), &["--listen", "[::1]:0", "--listen", "127.0.0.1:0"]);
    let line = agent.says("http://[::1]:");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let answer = asked(TcpStream::connect(address).expect("a connection"), GET);
    assert!(answer.0.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
}

#[test]
fn the_log_is_json_where_that_is_asked_for() {
    let root = Scratch::new();
    let mut command = gpuquota();
    command.args(["agent", "--listen", "127.0.0.1:0", "--root"]).arg(root.path());
    command.env("GPUQUOTA_AGENT_LOG_FORMAT", "json");
    let agent = Agent::start(&mut command);
    let line: Value = serde_json::from_str(&agent.says("serving")).expect("JSON");
    assert_eq!(line["level"], "INFO");
    assert!(line["message"].as_str().is_some_and(|text| text.starts_with("serving http://")), "{line}");
}

#[test]
fn an_agent_whose_log_nobody_reads_goes_on() {
    let root = Scratch::new();
    let file = root.join("token");
    std::fs::write(&file, "first").expect("a file");
    let mut command = gpuquota();
    command
        .args(["agent", "--listen", "127.0.0.1:0", "--root"])
        .arg(root.path())
        .arg("--token-file")
        .arg(&file);
    let mut process = command.stderr(std::process::Stdio::piped()).spawn().expect("the agent starts");
    let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
    let line = lines.next().expect("a line").expect("read");
    let address = line.split("://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    drop(lines);
    // The agent tells it, to nobody.
    std::fs::write(&file, "second").expect("a file");
    let with = |token: &str| {
        let stream = TcpStream::connect(address).expect("a connection");
        asked(stream, &format!("GET /version HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n")).0
    };
    let until = Instant::now() + Duration::from_secs(20);
    while !with("second").starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < until, "the token is not read again");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::write(&file, "third").expect("a file");
    while !with("third").starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < until, "the token is not read again");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(process.try_wait().expect("a child"), None, "it lives");
    process.kill().expect("a child");
    process.wait().expect("a child");
}

#[test]
fn what_has_ended_goes_after_the_grace_and_not_before() {
    let root = Scratch::new();
    let path = root.join("a.cache");
    sample(&path);
    let agent = Agent::with(root.path(), &["--grace", "3s"]);
    let told = |name: &str| {
        let read = parse(&agent.metrics());
        read[&format!("gpuquota_container_{name}")].samples.first().map(|sample| sample.value)
    };
    assert_eq!(
        (told("memory_denied_total"), told("memory_used_bytes")),
        (Some(5.0), Some(f64::from(1 << 30)))
    );
    std::fs::remove_file(&path).expect("it is there");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!((told("memory_denied_total"), told("memory_used_bytes")), (Some(5.0), None));
    // It is started again under the same name: the counter goes on.
    sample(&path);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(told("memory_denied_total"), Some(10.0));
    std::fs::remove_file(&path).expect("it is there");
    std::thread::sleep(Duration::from_millis(4500));
    assert_eq!(told("memory_denied_total"), None);
}
