//! The agent's settings: flags, variables and the file; and what is wrong is told in one line that names the place.

mod common;

use common::agent::Agent;
use common::{Scratch, gpuquota, output, stderr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The one line with which the agent refuses, and status 2.
fn refused(command: &mut Command) -> String {
    let ended = output(command);
    let text = stderr(&ended);
    assert_eq!(ended.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let line = text.trim_end().strip_prefix("gpuquota: ").unwrap_or_else(|| panic!("{text}"));
    line.to_owned()
}

fn agent() -> Command {
    let mut command = gpuquota();
    command.arg("agent");
    command
}

#[test]
fn the_file_and_variables_set_what_flags_set() {
    let root = Scratch::new();
    let file = root.join("agent.toml");
    let text = format!(
        "# Where to look.\nroot = [{:?}]\nlisten = \"127.0.0.1:0\"\nhami-metrics = true\nnode-name = \"from-file\"\n",
        root.path()
    );
    std::fs::write(&file, text).expect("a file");
    common::sample(&root.join("a.cache"));
    // One at a time: there may be one agent for a place.
    let told = |command: &mut Command| Agent::start(command).metrics();
    let from_file = told(agent().arg("--config").arg(&file));
    assert!(from_file.contains("hami_vgpu_memory_used_bytes{container=\"a\""));
    assert!(from_file.contains("node=\"from-file\""));
    let set = |mut command: Command| {
        command.env("GPUQUOTA_AGENT_CONFIG", &file).env("GPUQUOTA_AGENT_NODE_NAME", "from-variable");
        command
    };
    assert!(told(&mut set(agent())).contains("node=\"from-variable\""));
    assert!(told(set(agent()).args(["--node-name", "from-flag"])).contains("node=\"from-flag\""));
    let mut without = agent();
    let without = without.arg("--config").arg(&file).env("GPUQUOTA_AGENT_HAMI_METRICS", "false");
    assert!(!told(without).contains("hami_"));
}

#[test]
fn a_variable_that_is_no_setting_is_told() {
    let root = Scratch::new();
    let mut command = agent();
    command.args(["--listen", "127.0.0.1:0", "--root"]).arg(root.path());
    command.env("GPUQUOTA_AGENT_SERVICE_HOST", "10.0.0.1").env("GPUQUOTA_AGENT_LOG_LEVE", "warn");
    let ended = output(
        Command::new("timeout")
            .arg("2")
            .arg(command.get_program())
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))),
    );
    let text = stderr(&ended);
    assert!(text.contains("GPUQUOTA_AGENT_LOG_LEVE, did you mean GPUQUOTA_AGENT_LOG_LEVEL?"), "{text}");
    assert!(!text.contains("SERVICE_HOST"), "{text}");
}

#[test]
fn a_key_that_is_no_setting_is_refused_with_the_nearest_one() {
    let root = Scratch::new();
    let file = root.join("agent.toml");
    std::fs::write(&file, "tls-certficate = \"/x\"\n").expect("a file");
    let line = refused(agent().arg("--config").arg(&file));
    assert_eq!(
        line,
        format!("{}: tls-certficate is no setting; did you mean tls-certificate?", file.display())
    );
}

#[test]
fn a_wrong_value_names_itself_and_its_place() {
    let root = Scratch::new();
    let file = root.join("agent.toml");
    std::fs::write(&file, "grace = \"soon\"\n").expect("a file");
    let line = refused(agent().arg("--config").arg(&file));
    assert_eq!(line, format!("{}: grace: \"soon\" is no time such as 90s or 5m", file.display()));
    let line = refused(agent().env("GPUQUOTA_AGENT_CONNECTIONS", "many"));
    assert_eq!(line, "GPUQUOTA_AGENT_CONNECTIONS: \"many\" is no whole number from 8 to 65536");
    let line = refused(agent().args(["--log-level", "loud"]));
    assert_eq!(line, "--log-level: \"loud\" is none of error, warn, info, debug and trace");
    std::fs::write(&file, "grace = \"1s\"\ngrace = \"2s\"\n").expect("a file");
    let line = refused(agent().arg("--config").arg(&file));
    assert!(line.starts_with(&format!("{}: line 2: ", file.display())), "{line}");
}

#[test]
fn files_that_are_not_there_or_not_open_to_us_are_named() {
    let root = Scratch::new();
    let missing = root.join("missing");
    let named = missing.display().to_string();
    for flag in ["--config", "--token-file"] {
        let line = refused(agent().arg(flag).arg(&missing));
        assert!(line.contains(&named) && line.contains("No such file"), "{line}");
    }
    let line = refused(agent().arg("--tls-certificate").arg(&missing).arg("--tls-key").arg(&missing));
    assert!(line.starts_with(&format!("tls-certificate {named}: No such file")), "{line}");
    // As a user who may read nothing of it.
    let closed = root.join("closed");
    std::fs::write(&closed, "x").expect("a file");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).expect("a mode");
    let folder = root.join("folder");
    std::fs::create_dir(&folder).expect("a directory");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o000)).expect("a mode");
    for (flag, path) in [("--config", &closed), ("--token-file", &closed), ("--root", &folder)] {
        let mut command = agent();
        command.arg(flag).arg(path).args(["--listen", "127.0.0.1:0"]);
        if rustix::process::geteuid().is_root() {
            command.uid(65534);
        }
        let line = refused(&mut command);
        assert!(line.contains(&*path.to_string_lossy()) && line.contains("Permission denied"), "{line}");
    }
}

#[test]
fn tls_files_that_do_not_match_are_told() {
    let root = Scratch::new();
    let made = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        std::fs::write(root.join(&format!("{name}.pem")), made.cert.pem()).expect("a file");
        std::fs::write(root.join(&format!("{name}.key")), made.signing_key.serialize_pem()).expect("a file");
    };
    made("a");
    made("b");
    let of = |certificate: &str, key: &str| {
        refused(
            agent().arg("--tls-certificate").arg(root.join(certificate)).arg("--tls-key").arg(root.join(key)),
        )
    };
    let [a, b] = ["a.pem", "b.key"].map(|name| root.join(name).display().to_string());
    assert_eq!(of("a.pem", "b.key"), format!("tls-key {b} is not the key of tls-certificate {a}"));
    assert_eq!(of("a.pem", "a.pem"), format!("tls-key {a}: there is no private key in it"));
    std::fs::write(root.join("noise"), "noise").expect("a file");
    assert!(of("noise", "a.key").ends_with("noise: there is no certificate in it"));
    let line = refused(agent().arg("--tls-key").arg(root.join("a.key")));
    assert_eq!(line, "tls-key is set and tls-certificate is not: TLS needs both");
}

fn listen(value: &str) -> String {
    refused(agent().args(["--listen", value]))
}

#[test]
fn an_address_that_cannot_be_had_is_told() {
    let root = Scratch::new();
    let first = Agent::of(root.path());
    let line = listen(&first.address);
    assert!(
        line.starts_with(&format!("cannot listen on {}: Address already in use", first.address)),
        "{line}"
    );
    assert!(listen("192.0.2.1:9394").starts_with("cannot listen on 192.0.2.1:9394: Cannot assign"));
    assert_eq!(listen("9394"), "--listen: \"9394\" is neither an ADDRESS:PORT nor unix:/PATH");
    assert_eq!(listen("unix:relative"), "--listen: \"unix:relative\" is no absolute path of a socket");
}

#[test]
fn a_socket_that_is_none_or_taken_is_told_and_left_alone() {
    let root = Scratch::new();
    let of = |path: &Path| format!("unix:{}", path.display());
    let file = root.join("file");
    std::fs::write(&file, "precious").expect("a file");
    assert_eq!(
        listen(&of(&file)),
        format!("cannot listen on {}: something that is no socket is there", of(&file))
    );
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "precious");
    let taken = root.join("taken");
    let _listener = UnixListener::bind(&taken).expect("a socket");
    assert!(listen(&of(&taken)).ends_with("address in use"), "{}", listen(&of(&taken)));
    assert!(taken.exists());
    assert!(listen(&of(&root.join("no/folder"))).contains("No such file"));
    let long = format!("unix:/{}", "x".repeat(200));
    assert!(listen(&long).contains("longer than the 107 bytes"));
}
