//! A running `gpuquota agent` and those who ask it.

use super::gpuquota;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub struct Agent {
    pub process: Child,
    pub address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    /// For the regions of one directory.
    pub fn of(root: &Path) -> Self {
        Self::with(root, &[] as &[&str])
    }

    /// The same with further flags.
    pub fn with(root: &Path, flags: &[impl AsRef<OsStr>]) -> Self {
        let mut command = gpuquota();
        command.args(["agent", "--listen", "127.0.0.1:0", "--root"]).arg(root).args(flags);
        Self::start(&mut command)
    }

    /// Waits until it says where it serves.
    pub fn start(command: &mut Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().expect("the agent starts");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let address = lines.by_ref().find_map(|line| {
            said.push(line.clone());
            line.split("://").nth(1).and_then(|rest| rest.split('/').next()).map(str::to_owned)
        });
        let address = address.unwrap_or_else(|| panic!("no address: {said:?}"));
        let log = Arc::new(Mutex::new(said));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || lines.for_each(|line| kept.lock().expect("a log").push(line)));
        Self { process, address, log }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream
    }

    /// The status line and the body of the answer to `GET path`.
    pub fn get(&self, path: &str) -> (String, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n"))
    }

    pub fn ask(&self, request: &str) -> (String, String) {
        let (head, body) = asked(self.connect(), request);
        (head.lines().next().unwrap_or("").to_owned(), body)
    }

    pub fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, "HTTP/1.1 200 OK");
        body
    }

    /// Waits for a line of the log with these words.
    pub fn says(&self, words: &str) -> String {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let log = self.log.lock().expect("a log").clone();
            if let Some(line) = log.iter().find(|line| line.contains(words)) {
                return line.clone();
            }
            assert!(Instant::now() < until, "{words} is not in {log:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Head and body of the answer.
pub fn asked(mut stream: impl Read + Write, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    // Who ends TLS without a word has ended all the same.
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned())
}
