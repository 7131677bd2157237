//! A stub of the API server: it keeps objects in memory, and every write that came.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// What it keeps.
#[derive(Default)]
struct Kept {
    /// Objects by their path.
    objects: BTreeMap<String, Value>,
    events: Vec<Value>,
    versions: Vec<&'static str>,
    /// Whether it knows capacity that several claims share.
    drops_sharing: bool,
    is_down: bool,
    written: u64,
}

/// A running one.
pub struct ApiServer {
    kept: Arc<Mutex<Kept>>,
    address: String,
}

fn answer(kept: &mut Kept, method: &str, target: &str, body: &str) -> (u16, Value) {
    const MISSING: (u16, Value) = (404, Value::Null);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if kept.is_down {
        return (503, json!({ "message": "it is down" }));
    }
    if path == "/apis/resource.k8s.io" {
        let of = |version: &&str| json!({ "version": version });
        return match kept.versions.is_empty() {
            true => MISSING,
            false => (200, json!({ "versions": kept.versions.iter().map(of).collect::<Vec<_>>() })),
        };
    }
    let object: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    match method {
        "GET" if path.ends_with("/resourceslices") => {
            assert!(query.contains("fieldSelector=spec.nodeName%3Dnode-1"), "{query}");
            let items = kept.objects.iter().filter(|(at, _)| at.starts_with(path));
            (200, json!({ "items": items.map(|(_, slice)| slice).collect::<Vec<_>>() }))
        }
        "GET" => kept.objects.get(path).map_or(MISSING, |object| (200, object.clone())),
        "POST" if path.ends_with("/events") => {
            kept.events.push(object.clone());
            (201, object)
        }
        "POST" | "PUT" => {
            kept.written += 1;
            let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
            let at = if method == "POST" { format!("{path}/{name}") } else { path.to_owned() };
            match (method, kept.objects.get(&at)) {
                ("POST", Some(_)) => return (409, json!({ "message": "it is there" })),
                ("PUT", None) => return MISSING,
                ("PUT", Some(known))
                    if known["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] =>
                {
                    return (409, json!({ "message": "it has changed" }));
                }
                _ => {}
            }
            let mut object = object;
            object["metadata"]["resourceVersion"] = json!(kept.written.to_string());
            object["metadata"]["uid"] = json!(format!("uid-{name}"));
            for device in object["spec"]["devices"].as_array_mut().into_iter().flatten() {
                if kept.drops_sharing {
                    device.as_object_mut().expect("a device").remove("allowMultipleAllocations");
                }
                for taint in device.get_mut("taints").and_then(Value::as_array_mut).into_iter().flatten() {
                    taint["timeAdded"] = json!("2026-11-27T00:00:00Z");
                }
            }
            kept.objects.insert(at, object.clone());
            (200, object)
        }
        "DELETE" => kept.objects.remove(path).map_or(MISSING, |object| (200, object)),
        other => panic!("{other} {target}"),
    }
}

fn serve(stream: TcpStream, kept: &Mutex<Kept>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (mut length, mut is_known) = (0, false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().expect("a length"),
            "authorization" => is_known = value.trim() == "Bearer secret",
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let text = String::from_utf8(body).expect("JSON is text");
    let (status, object) = match is_known {
        true => answer(&mut kept.lock().expect("no panic"), method, target, &text),
        false => (401, json!({ "message": "who is that?" })),
    };
    let object = object.to_string();
    let head =
        format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", object.len());
    reader.into_inner().write_all((head + &object).as_bytes())
}

impl ApiServer {
    /// One that has these versions of resource.k8s.io.
    pub fn new(versions: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let kept = Arc::new(Mutex::new(Kept { versions: versions.to_vec(), ..Kept::default() }));
        let shared = Arc::clone(&kept);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = serve(stream, &shared);
            }
        });
        let server = Self { kept, address };
        server
            .put("/api/v1/nodes/node-1", json!({ "metadata": { "name": "node-1", "uid": "uid-of-node-1" } }));
        server
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Has an object.
    pub fn put(&self, path: &str, object: Value) {
        self.kept.lock().expect("no panic").objects.insert(path.to_owned(), object);
    }

    /// Has it no more.
    pub fn remove(&self, path: &str) {
        self.kept.lock().expect("no panic").objects.remove(path);
    }

    /// Answers nothing but 503 from now on, or answers again.
    pub fn set_down(&self, is_down: bool) {
        self.kept.lock().expect("no panic").is_down = is_down;
    }

    /// Drops the fields of consumable capacity, as a server whose feature gate is off.
    pub fn drop_sharing(&self) {
        self.kept.lock().expect("no panic").drops_sharing = true;
    }

    /// The slices.
    pub fn slices(&self) -> Vec<Value> {
        let kept = self.kept.lock().expect("no panic");
        let of = kept.objects.iter().filter(|(path, _)| path.contains("/resourceslices/"));
        of.map(|(_, slice)| slice.clone()).collect()
    }

    /// How many objects were written.
    pub fn written(&self) -> u64 {
        self.kept.lock().expect("no panic").written
    }

    /// Everything that was written of these kinds, as it came.
    pub fn objects(&self) -> Vec<Value> {
        let events = self.kept.lock().expect("no panic").events.clone();
        self.slices().into_iter().chain(events).collect()
    }

    /// The messages of the events, with the claim that each is of.
    pub fn events(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kept = self.kept.lock().expect("no panic");
        kept.events
            .iter()
            .map(|event| (text(&event["involvedObject"]["name"]), text(&event["message"])))
            .collect()
    }
}
