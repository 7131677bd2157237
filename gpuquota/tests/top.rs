//! `gpuquota top` in a real terminal: what it shows, that it follows the terminal's size, and that it gives it back.

mod common;

use common::agent::Agent;
use common::{Scratch, gpuquota, join, output, sample, stderr};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A terminal with a program in it.
struct Screen {
    child: Child,
    keys: File,
    /// The program's side, to ask for its settings.
    line: OwnedFd,
    before: Termios,
    parser: Arc<Mutex<vt100::Parser>>,
    /// Everything that was written.
    raw: Arc<Mutex<Vec<u8>>>,
}

fn size(columns: u16, lines: u16) -> Winsize {
    Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn some(length: u16) -> NonZero<u16> {
    NonZero::new(length).expect("a terminal has some")
}

impl Screen {
    fn start(command: &mut Command, columns: u16, lines: u16) -> Self {
        let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&main).and_then(|()| unlockpt(&main)).expect("its other side");
        let name = ptsname(&main, Vec::new()).expect("its name");
        let line = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side");
        tcsetwinsize(&line, size(columns, lines)).expect("its size");
        let before = tcgetattr(&line).expect("its settings");
        let side = || Stdio::from(line.try_clone().expect("a descriptor"));
        // The program has it as its own terminal, so that it is told of its size.
        let mut inside = Command::new("setsid");
        inside.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside.env("TERM", "xterm-256color");
        let child = inside.stdin(side()).stdout(side()).stderr(side()).spawn().expect("it starts");
        let parser = Arc::new(Mutex::new(vt100::Parser::new(some(lines), some(columns), 0)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let mut reading = File::from(main.try_clone().expect("a descriptor"));
        let (seen, all) = (Arc::clone(&parser), Arc::clone(&raw));
        std::thread::spawn(move || {
            let mut room = [0; 4096];
            while let Ok(read @ 1..) = reading.read(&mut room) {
                seen.lock().expect("no panic").process(&room[..read]);
                all.lock().expect("no panic").extend_from_slice(&room[..read]);
            }
        });
        Self { child, keys: File::from(main), line, before, parser, raw }
    }

    fn text(&self) -> String {
        self.parser.lock().expect("no panic").screen().contents()
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    fn until(&self, what: &str, is_right: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let text = self.text();
            if is_right(&text) {
                return text;
            }
            assert!(Instant::now() < until, "{what} was not shown:\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn shows(&self, words: &[&str]) -> String {
        self.until(&format!("{words:?}"), |text| words.iter().all(|word| text.contains(word)))
    }

    fn type_in(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a terminal");
    }

    fn resize(&self, columns: u16, lines: u16) {
        self.parser.lock().expect("no panic").screen_mut().set_size(some(lines), some(columns));
        tcsetwinsize(&self.line, size(columns, lines)).expect("its size");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it lives");
    }

    fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The terminal is as it was: its settings, the first screen, and a cursor.
    #[track_caller]
    fn is_given_back(&self) {
        let now = tcgetattr(&self.line).expect("its settings");
        assert_eq!(format!("{:?}", now.local_modes), format!("{:?}", self.before.local_modes));
        assert_eq!(format!("{:?}", now.input_modes), format!("{:?}", self.before.input_modes));
        assert_eq!(format!("{:?}", now.output_modes), format!("{:?}", self.before.output_modes));
        self.until("the first screen", |_| {
            let parser = self.parser.lock().expect("no panic");
            !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
        });
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn top(home: &Scratch) -> Command {
    let mut command = gpuquota();
    command.args(["top", "--root"]).arg(home.path());
    command
}

/// Three containers, of which one has this process.
fn node() -> Scratch {
    let home = Scratch::new();
    for name in ["serve", "train", "web"] {
        let path = home.join(&format!("{name}.cache"));
        let region = sample(&path);
        if name == "train" {
            join(&region, &path);
        }
    }
    home
}

#[test]
fn containers_and_processes_are_shown_in_small_and_in_large() {
    let home = node();
    for (columns, lines) in [(80, 24), (200, 50)] {
        let mut screen = Screen::start(&mut top(&home), columns, lines);
        let pid = std::process::id().to_string();
        let text =
            screen.shows(&["serve", "train", "web", "1.0G/2.0G", "/30%", "DENIED", &pid, "256M", "q quit"]);
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(columns)), "{text}");
        let line = text.lines().find(|line| line.contains("serve")).expect("its line");
        assert!(line.contains("█") && line.contains("░") && line.trim_end().ends_with('5'), "{line}");
        screen.type_in("q");
        assert!(screen.ended().success());
        screen.is_given_back();
    }
}

#[test]
fn it_follows_the_size_of_the_terminal_also_below_the_least() {
    let home = node();
    let mut screen = Screen::start(&mut top(&home), 80, 24);
    screen.shows(&["serve", "q quit"]);
    screen.resize(200, 50);
    screen.until("the last line at 50", |text| {
        text.lines().nth(49).is_some_and(|line| line.contains("q quit"))
    });
    screen.resize(30, 5);
    screen.shows(&["too small", "60x10"]);
    screen.resize(1, 1);
    std::thread::sleep(Duration::from_millis(300));
    screen.resize(100, 30);
    screen.until("the last line at 30", |text| {
        text.lines().nth(29).is_some_and(|line| line.contains("q quit"))
    });
    screen.type_in("q");
    assert!(screen.ended().success());
    screen.is_given_back();
}

#[test]
fn a_key_that_comes_with_a_new_size_is_not_lost() {
    let home = node();
    let mut screen = Screen::start(&mut top(&home), 80, 24);
    for turn in 0..20 {
        screen.shows(&["q quit"]);
        screen.resize(if turn % 2 == 0 { 100 } else { 80 }, 24);
        screen.type_in("?");
        screen.shows(&["Any key goes back"]);
        screen.type_in("x");
    }
    screen.type_in("q");
    assert!(screen.ended().success());
}

#[test]
fn keys_sort_filter_and_help() {
    let home = node();
    let mut screen = Screen::start(&mut top(&home), 80, 24);
    screen.shows(&["serve", "train", "web"]);
    screen.type_in("/tra\r");
    screen.until("train alone", |text| {
        text.contains("filter tra") && text.contains("train") && !text.contains("serve")
    });
    screen.type_in("\x1b");
    screen.shows(&["serve"]);
    screen.type_in("d");
    screen.shows(&["sort: denials"]);
    screen.type_in("?");
    screen.shows(&["filter by name", "Any key goes back"]);
    screen.type_in("x");
    screen.shows(&["serve"]);
    screen.type_in("p");
    screen.until("no process", |text| text.contains("train") && !text.contains("256M"));
    screen.type_in("\x03");
    assert!(screen.ended().success());
    screen.is_given_back();
}

#[test]
fn a_signal_ends_it_and_the_terminal_is_as_it_was() {
    let home = node();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut screen = Screen::start(&mut top(&home), 80, 24);
        screen.shows(&["serve"]);
        screen.signal(signal);
        assert!(screen.ended().success(), "{signal:?}");
        screen.is_given_back();
    }
}

#[test]
fn a_panic_is_told_on_a_terminal_that_is_as_it_was() {
    let home = node();
    for place in ["draw", "look"] {
        let mut screen = Screen::start(top(&home).env("GPUQUOTA_TEST_PANIC", place), 100, 24);
        assert!(!screen.ended().success(), "{place}");
        screen.is_given_back();
        screen.shows(&["panicked at", "as the test wants it"]);
    }
}

#[test]
fn an_agent_that_is_killed_is_told_and_the_figures_stay() {
    let home = node();
    let agent = Agent::of(home.path());
    let mut command = gpuquota();
    command.args(["top", "--agent", &agent.address]);
    let mut screen = Screen::start(&mut command, 160, 24);
    screen.shows(&["serve", &agent.address]);
    drop(agent);
    screen.shows(&["OLD FIGURES", "GQ503", "serve"]);
    screen.type_in("q");
    assert!(screen.ended().success());
    screen.is_given_back();
}

#[test]
fn without_colours_there_are_none() {
    let home = node();
    let coloured = |screen: &Screen| {
        let raw = String::from_utf8_lossy(&screen.raw.lock().expect("no panic")).into_owned();
        ["\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[38;5;"].iter().any(|code| raw.contains(code))
    };
    let region = sample(&home.join("hot.cache"));
    for (value, has) in [("", true), ("1", false)] {
        let mut screen = Screen::start(top(&home).env("NO_COLOR", value), 80, 24);
        screen.shows(&["serve", "hot"]);
        region.ours().devices[0].denied.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2500));
        screen.type_in("q");
        screen.ended();
        assert_eq!(coloured(&screen), has, "NO_COLOR={value}");
    }
}

#[test]
fn a_tenants_name_never_reaches_the_terminal_raw() {
    let home = Scratch::new();
    sample(&home.join("a\x1b[2Jb\x07.cache"));
    let mut screen = Screen::start(&mut top(&home), 80, 24);
    screen.shows(&["a\\x1b[2J"]);
    screen.type_in("q");
    assert!(screen.ended().success());
    assert!(!screen.raw.lock().expect("no panic").contains(&7));
}

#[test]
fn no_terminal_or_one_that_is_too_small_is_refused_in_one_line() {
    let home = node();
    let piped = output(&mut top(&home));
    let said = stderr(&piped);
    assert_eq!((piped.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("have to be a terminal (GQ506)"), "{said}");
    for (term, columns, lines, word) in [("dumb", 80, 24, "TERM"), ("xterm", 40, 8, "40x8")] {
        let mut inner = Command::new("env");
        inner.arg(format!("TERM={term}")).arg(env!("CARGO_BIN_EXE_gpuquota")).args(["top", "--root"]);
        inner.arg(home.path());
        let mut screen = Screen::start(&mut inner, columns, lines);
        assert_eq!(screen.ended().code(), Some(2));
        screen.until("why", |text| text.replace('\n', "").contains(word));
        screen.is_given_back();
    }
}
