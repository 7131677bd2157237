//! A real Chromium without a window, driven by WebDriver over plain HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Scratch;

/// Nothing that it would do by itself, and nothing that asks anybody.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];
/// How WebDriver calls the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// How long something may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// One window of it.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: Scratch,
}

impl Browser {
    /// Starts it; or why there is none.
    pub fn start() -> Result<Self, String> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        let missing =
            "Debian's packages chromium and chromium-driver are not here: scripts/prerequisites page";
        let mut driver = command.spawn().map_err(|_| missing.to_owned())?;
        let lines = BufReader::new(driver.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let of_line = |line: String| line.split("on port ").nth(1)?.trim_end_matches('.').parse().ok();
        let port =
            lines.filter_map(of_line).find(|port: &u16| *port != 0).ok_or("chromedriver says no port")?;
        let profile = Scratch::new();
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        let folder = format!("--user-data-dir={}", browser._profile.path().display());
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([folder.as_str()]).collect();
        let options = json!({ "args": arguments });
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let begun = browser.ask("POST", "/session", json!({ "capabilities": { "alwaysMatch": wanted } }));
        let id = begun.map_err(|why| format!("chromium does not start: {why}"))?["sessionId"].clone();
        browser.session = id.as_str().ok_or("no session")?.to_owned();
        browser.size(1280, 900);
        Ok(browser)
    }

    /// The value of the answer, or the error that it tells.
    fn ask(&self, method: &str, path: &str, body: Value) -> Result<Value, String> {
        let told = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).map_err(told)?;
        stream.set_read_timeout(Some(PATIENCE * 2)).map_err(told)?;
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).map_err(told)?;
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        let mut line = String::new();
        while answer.read_line(&mut line).map_err(told)? > 2 {
            let lower = line.to_lowercase();
            if let Some(bytes) = lower.strip_prefix("content-length:") {
                length = bytes.trim().parse().map_err(|_| lower.clone())?;
            }
            line.clear();
        }
        let mut text = vec![0; length];
        answer.read_exact(&mut text).map_err(told)?;
        let value: Value = serde_json::from_slice(&text).map_err(|why| why.to_string())?;
        let value = value["value"].clone();
        match value["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", value["message"].as_str().unwrap_or(""))),
            None => Ok(value),
        }
    }

    #[track_caller]
    fn tell(&self, method: &str, command: &str, body: Value) -> Value {
        let path = format!("/session/{}{command}", self.session);
        self.ask(method, &path, body).unwrap_or_else(|why| panic!("{command}: {why}"))
    }

    /// Goes to an address.
    pub fn open(&self, address: &str) {
        self.tell("POST", "/url", json!({ "url": address }));
    }

    /// How large the window is.
    pub fn size(&self, width: u32, height: u32) {
        self.tell("POST", "/window/rect", json!({ "width": width, "height": height }));
    }

    /// What a function with this body answers.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.tell("POST", "/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Waits until a function with this body answers what is true, and answers it.
    #[track_caller]
    pub fn until(&self, script: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let value = self.run(script);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            assert!(Instant::now() < until, "never true: {script}\n{}", self.text("body"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the text of an element, as a reader sees it, has all these words.
    #[track_caller]
    pub fn shows(&self, selector: &str, words: &[&str]) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = self.text(selector);
            if words.iter().all(|word| text.contains(word)) {
                return text;
            }
            assert!(Instant::now() < until, "{selector} has not all of {words:?}:\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The text of an element as a reader sees it; empty where there is none.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let text = self.run(&format!("return document.querySelector({})?.innerText ?? ''", json!(selector)));
        text.as_str().unwrap_or("").to_owned()
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        let found = self.tell("POST", "/element", json!({ "using": "css selector", "value": selector }));
        found[ELEMENT].as_str().expect("an element's id").to_owned()
    }

    /// Clicks where a hand would: what is covered or hidden cannot be clicked.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.tell("POST", &format!("/element/{}/click", self.element(selector)), json!({}));
    }

    /// Types into an element.
    #[track_caller]
    pub fn type_in(&self, selector: &str, text: &str) {
        self.tell("POST", &format!("/element/{}/value", self.element(selector)), json!({ "text": text }));
    }

    /// Presses keys wherever the focus is.
    pub fn press(&self, keys: &str) {
        let both = |key: char| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        };
        let actions: Vec<Value> = keys.chars().flat_map(both).collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.tell("POST", "/actions", json!({ "actions": [keyboard] }));
    }

    /// Role and name of an element, as a screen reader is told them.
    #[track_caller]
    pub fn spoken(&self, selector: &str) -> (String, String) {
        let element = self.element(selector);
        let of = |what: &str| {
            let value = self.tell("GET", &format!("/element/{element}/{what}"), Value::Null);
            value.as_str().unwrap_or("").to_owned()
        };
        (of("computedrole"), of("computedlabel"))
    }

    /// What its reader likes: `light` or `dark`.
    pub fn prefers(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        let params = json!({ "features": [feature] });
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": params });
        self.tell("POST", "/goog/cdp/execute", command);
    }

    /// What the page has complained about since it was asked last.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.tell("POST", "/se/log", json!({ "type": "browser" }));
        let lines = log.as_array().into_iter().flatten();
        lines.map(|line| line["message"].as_str().unwrap_or("").to_owned()).collect()
    }

    /// Writes a picture of the window.
    pub fn picture(&self, path: &Path) {
        let told = self.tell("GET", "/screenshot", Value::Null);
        let file = std::fs::File::create(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let mut decoder = Command::new("base64");
        let mut decoder = decoder.arg("-d").stdin(Stdio::piped()).stdout(file).spawn().expect("base64");
        let text = told.as_str().expect("a picture");
        decoder.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
        assert!(decoder.wait().is_ok_and(|status| status.success()));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser.
        let _ = self.ask("DELETE", &format!("/session/{}", self.session), Value::Null);
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
