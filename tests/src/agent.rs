//! The node's agent on a port of its own, and its metrics.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Machine, artifact};

/// It takes a free port.
const LISTEN: [&str; 3] = ["agent", "--listen", "127.0.0.1:0"];

/// A running `gpuquota agent`; dropping this value ends it.
pub struct Agent {
    child: Child,
    address: SocketAddr,
}

impl Agent {
    /// Starts an agent for the regions in a folder. It takes a free port and prints it.
    pub fn start(regions: &Path) -> Self {
        Self::of(&[regions])
    }

    /// The same for several folders.
    pub fn of(folders: &[&Path]) -> Self {
        Self::with(folders, &[])
    }

    /// The same with further flags.
    pub fn with(folders: &[&Path], flags: &[&str]) -> Self {
        let mut command = Command::new(artifact("gpuquota"));
        command.args(LISTEN).args(flags);
        Self::begun(command, folders)
    }

    /// The same by another file of the program.
    pub fn by(program: &Path, folders: &[&Path]) -> Self {
        let mut command = Command::new(program);
        command.args(LISTEN);
        Self::begun(command, folders)
    }

    /// An agent that sees a machine's cards too.
    pub fn on(machine: &Machine, folders: &[&Path]) -> Self {
        Self::on_with(machine, folders, &[])
    }

    /// The same with further flags.
    pub fn on_with(machine: &Machine, folders: &[&Path], flags: &[&str]) -> Self {
        let mut command = machine.bare().command(artifact("gpuquota"), &LISTEN);
        command.args(flags);
        Self::begun(command, folders)
    }

    /// An agent at an address of before, for those who come again.
    pub fn at(address: SocketAddr, folders: &[&Path]) -> Self {
        let mut command = Command::new(artifact("gpuquota"));
        command.args(["agent", "--listen", &address.to_string()]);
        Self::begun(command, folders)
    }

    fn begun(mut command: Command, folders: &[&Path]) -> Self {
        folders.iter().for_each(|folder| _ = command.arg("--root").arg(folder));
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the agent starts");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let of_word =
            |word: &str| word.trim_start_matches("http://").trim_end_matches("/metrics").parse().ok();
        let of_line = |line: String| line.split_whitespace().find_map(of_word);
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let address = lines.find_map(of_line).expect("the agent says where it listens");
        // What it says later is read, so that it can say it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGSTOP: the agent exists and does nothing any more.
    pub fn stop(&self) {
        self.signal("-STOP");
    }

    /// Sends SIGCONT: it goes on.
    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    /// Asks it to end, as a service manager does, and waits until it has.
    pub fn end(mut self) {
        self.signal("-TERM");
        let end = self.child.wait().expect("the agent is a child of ours");
        assert!(end.success(), "{end}");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "the agent is a child of ours");
    }

    /// Its answer to `GET /metrics`, headers included.
    pub fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.address).expect("the agent listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout above zero");
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
