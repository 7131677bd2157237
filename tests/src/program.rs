//! A running test program: its output, its input, its end. No wait lasts for ever.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than any program takes on a busy machine of two cores; a program that hangs fails its test.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A program that is running, or has ended.
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
    said: Vec<(String, String)>,
    out: String,
    timeout: Duration,
}

impl Program {
    /// Starts a command with pipes to talk through.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|why| panic!("{command:?}: {why}"));
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut stderr = child.stderr.take().expect("stderr is a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)).ok();
        });
        let stderr = std::thread::spawn(move || {
            let mut all = Vec::new();
            stderr.read_to_end(&mut all).ok();
            String::from_utf8_lossy(&all).into_owned()
        });
        let stdin = child.stdin.take();
        Self {
            child,
            stdin,
            lines,
            stderr: Some(stderr),
            said: Vec::new(),
            out: String::new(),
            timeout: TIMEOUT,
        }
    }

    /// Sets how long a wait lasts before it fails the test.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Waits for the program's next line with `key`, and answers its value.
    pub fn wait_for(&mut self, key: &str) -> i64 {
        match self.hear(key) {
            Ok(value) => value,
            Err(Lost::Late(waited)) => panic!("waited {waited:?} for {key}; said so far:\n{}", self.out),
            Err(Lost::Ended(outcome)) => panic!("ended before it said {key}: {outcome}"),
        }
    }

    /// The same of a program that may fail: one with a library that is not ours.
    pub fn hear(&mut self, key: &str) -> Result<i64, Lost> {
        let until = Instant::now() + self.timeout;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.record(&line);
                    if let Some((said, value)) = line.split_once('=')
                        && said == key
                    {
                        return Ok(value.parse().unwrap_or_else(|_| panic!("{line}: not a number")));
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Err(Lost::Late(self.timeout)),
                Err(RecvTimeoutError::Disconnected) => return Err(Lost::Ended(self.reap())),
            }
        }
    }

    /// Writes a line to the program's standard input.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("the pipe is open until finish");
        writeln!(stdin, "{line}").unwrap_or_else(|why| panic!("telling {line}: {why}"));
    }

    /// Tells a line and waits for the answer's `key`.
    pub fn ask(&mut self, line: &str, key: &str) -> i64 {
        self.tell(line);
        self.wait_for(key)
    }

    /// Kills the program by SIGKILL, so that it cannot clean up.
    pub fn kill(mut self) -> Outcome {
        self.child.kill().expect("the program is a child of ours");
        self.reap()
    }

    /// Closes the program's standard input and waits for its end.
    pub fn finish(mut self) -> Outcome {
        self.stdin = None;
        self.reap()
    }

    /// The same of a program that may fail: it has to end by itself, with status 0.
    pub fn try_finish(mut self) -> Result<Outcome, Lost> {
        self.stdin = None;
        let outcome = self.end().ok_or(Lost::Late(self.timeout))?;
        if outcome.status.success() { Ok(outcome) } else { Err(Lost::Ended(outcome)) }
    }

    fn reap(&mut self) -> Outcome {
        self.end().unwrap_or_else(|| {
            self.child.kill().ok();
            panic!("still running after {:?}; said so far:\n{}", self.timeout, self.out)
        })
    }

    /// Waits for the end; `None` if it did not come in time.
    fn end(&mut self) -> Option<Outcome> {
        let until = Instant::now() + self.timeout;
        let status = loop {
            match self.child.try_wait().expect("the program is a child of ours") {
                Some(status) => break status,
                None if Instant::now() > until => return None,
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        // A grandchild may keep the pipe open; the program's own output is there at once.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(500)) {
            self.record(&line);
        }
        let stderr = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        Some(Outcome {
            status,
            said: std::mem::take(&mut self.said),
            out: std::mem::take(&mut self.out),
            stderr,
        })
    }

    fn record(&mut self, line: &str) {
        if let Some((key, value)) = line.split_once('=') {
            self.said.push((key.to_owned(), value.to_owned()));
        }
        self.out.push_str(line);
        self.out.push('\n');
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A test that fails half way must not leave its programs running; on a program that has ended this does nothing.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Why a program did not do what was waited for.
#[derive(Debug)]
pub enum Lost {
    /// It was waited for so long.
    Late(Duration),
    /// It had ended.
    Ended(Outcome),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Late(waited) => write!(f, "took more than {} s", waited.as_secs()),
            Self::Ended(outcome) => match (outcome.status.signal(), outcome.status.code()) {
                (Some(signal), _) => write!(f, "ended by signal {signal}"),
                (None, code) => write!(f, "ended with status {}", code.unwrap_or_default()),
            },
        }
    }
}

/// The end and the output of a program.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    said: Vec<(String, String)>,
    /// All of its standard output.
    pub out: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Outcome {
    /// The program must have ended with status 0.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// The last value that the program printed for `key`.
    #[track_caller]
    pub fn value(&self, key: &str) -> i64 {
        *self.values(key).last().unwrap_or_else(|| panic!("never said {key}: {self}"))
    }

    /// All keys and values, in order.
    pub fn said(&self) -> &[(String, String)] {
        &self.said
    }

    /// The last value for `key`, which need not be a number.
    #[track_caller]
    pub fn text(&self, key: &str) -> &str {
        let last = self.said.iter().rfind(|(said, _)| said == key);
        &last.unwrap_or_else(|| panic!("never said {key}: {self}")).1
    }

    /// Every value for `key`, in order.
    #[track_caller]
    pub fn values(&self, key: &str) -> Vec<i64> {
        let mine = self.said.iter().filter(|(said, _)| said == key);
        mine.map(|(_, value)| value.parse().unwrap_or_else(|_| panic!("{key}={value}: {self}"))).collect()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nstdout:\n{}\nstderr:\n{}", self.status, self.out, self.stderr)
    }
}
