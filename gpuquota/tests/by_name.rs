//! Containers by their names: for `inspect`, `limit`, `ps` and the completions, from an agent and without one.

mod common;

use common::agent::Agent;
use common::{Scratch, gpuquota, output, sample, stderr, stdout};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory with the regions of three containers.
fn node(home: &Scratch) -> PathBuf {
    let root = home.join("regions");
    fs::create_dir(&root).expect("a directory");
    for name in ["train", "training", "serve"] {
        sample(&root.join(format!("{name}.cache")));
    }
    root
}

fn with_root(root: &Path, arguments: &[&str]) -> Output {
    output(gpuquota().args(arguments).arg("--root").arg(root))
}

fn refused(told: &Output, words: &[&str]) {
    let said = stderr(told);
    assert_eq!((told.status.code(), stdout(told).as_str()), (Some(2), ""), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} are not in {said}");
}

#[test]
fn inspect_takes_a_name_or_a_prefix_that_no_other_has() {
    let home = Scratch::new();
    let root = node(&home);
    for (name, file) in [("train", "train"), ("traini", "training"), ("s", "serve")] {
        let told = with_root(&root, &["inspect", name, "--json"]);
        let json: Value =
            serde_json::from_str(&stdout(&told)).unwrap_or_else(|_| panic!("{}", stderr(&told)));
        let path = root.join(format!("{file}.cache"));
        assert_eq!(json["region"], path.to_string_lossy().as_ref(), "{name}");
    }
}

#[test]
fn a_name_that_may_mean_several_lists_them_and_one_that_means_none_lists_all() {
    let home = Scratch::new();
    let root = node(&home);
    for command in ["inspect", "limit"] {
        let more: &[&str] = if command == "limit" { &["--memory", "1GiB"] } else { &[] };
        let ask = |name: &str| with_root(&root, &[&[command, name], more].concat());
        refused(&ask("tr"), &["\"tr\"", "train, training", "name one of them"]);
        refused(&ask("web"), &["no container \"web\"", "serve, train, training"]);
    }
    let empty = home.join("empty");
    fs::create_dir(&empty).expect("a directory");
    refused(&with_root(&empty, &["inspect", "web"]), &["no container of this node has a quota"]);
}

#[test]
fn limit_changes_the_limits_of_the_named_container_alone_and_takes_them_back() {
    let home = Scratch::new();
    let root = node(&home);
    let limit = |name: &str| -> Value {
        let told = with_root(&root, &["inspect", name, "--json"]);
        let json: Value = serde_json::from_str(&stdout(&told)).expect("JSON");
        json["devices"][0]["memory_limit"].clone()
    };
    let before = limit("serve");
    let set = with_root(&root, &["limit", "serve", "--memory", "5GiB"]);
    assert!(set.status.success(), "{}", stderr(&set));
    assert_eq!((limit("serve"), limit("train")), (Value::from(5_u64 << 30), before));
    let reset = with_root(&root, &["limit", "serve", "--reset"]);
    assert!(reset.status.success(), "{}", stderr(&reset));
    assert_ne!(limit("serve"), Value::from(5_u64 << 30));
}

#[test]
fn an_agent_that_is_named_tells_the_names() {
    let home = Scratch::new();
    let root = node(&home);
    let socket = home.join("agent.sock");
    let listen = format!("unix:{}", socket.display());
    let agent = Agent::with(&root, &["--listen", &listen]);
    for address in [agent.address.clone(), format!("http://{}", agent.address), listen] {
        let told = output(gpuquota().args(["inspect", "traini", "--json", "--agent", &address]));
        assert!(stdout(&told).contains("training.cache"), "{address}: {}", stderr(&told));
        let by_variable = output(gpuquota().env("GPUQUOTA_AGENT", &address).args(["completions", "--names"]));
        assert_eq!(stdout(&by_variable), "serve\ntrain\ntraining\n", "{}", stderr(&by_variable));
    }
}

#[test]
fn an_agent_that_is_gone_or_is_none_is_told_in_one_line() {
    let home = Scratch::new();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let ask = |address: &str| output(gpuquota().args(["inspect", "web", "--agent", address]));
    refused(&ask(&nobody.to_string()), &[&nobody.to_string(), "no agent answers there"]);
    let socket = home.join("gone.sock");
    refused(&ask(&format!("unix:{}", socket.display())), &["gone.sock", "no agent answers there"]);
    for wrong in ["node-1", "unix:gone.sock", "https://node-1:9394"] {
        refused(&ask(wrong), &["--agent", wrong]);
    }
    refused(
        &output(gpuquota().env("GPUQUOTA_AGENT", "web").args(["inspect", "a"])),
        &["GPUQUOTA_AGENT \"web\""],
    );
}

/// A server that gives one answer to everything.
fn answering(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn an_agent_that_is_older_or_wants_a_token_or_is_something_else_is_told_in_one_line() {
    for (answer, word) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "may be older than this program"),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", "token"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is it older than this?"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "broke off"),
        ("SSH-2.0-OpenSSH\r\n", "does not answer as an agent"),
        ("", "does not answer as an agent"),
    ] {
        let address = answering(answer);
        let told = output(gpuquota().args(["inspect", "web", "--agent", &address]));
        refused(&told, &[&address, word]);
    }
}

#[test]
fn bash_completes_the_names_of_containers() {
    let home = Scratch::new();
    let root = node(&home);
    let agent = Agent::of(&root);
    let script = stdout(&output(gpuquota().args(["completions", "bash"])));
    let program = Path::new(env!("CARGO_BIN_EXE_gpuquota")).parent().expect("its directory").to_owned();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").expect("a path"));
    let offered = |words: [&str; 3]| {
        let [program, command, last] = words;
        let ask = format!(
            "{script}\nCOMP_WORDS=({program} {command} '{last}'); COMP_CWORD=2; _gpuquota_with_names {program} \
             '{last}' {command}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &ask]).env("PATH", &path).env("GPUQUOTA_AGENT", &agent.address);
        stdout(&output(&mut bash))
    };
    for command in ["inspect", "limit"] {
        let names = offered(["gpuquota", command, "tr"]);
        assert_eq!(names.lines().collect::<Vec<_>>(), ["train", "training"], "{command}");
        assert!(!offered(["gpuquota", command, "--"]).contains("train"));
    }
    assert!(!offered(["gpuquota", "run", "tr"]).contains("train"));
}

#[test]
fn zsh_and_fish_ask_for_the_names_where_one_is_wanted() {
    let zsh = stdout(&output(gpuquota().args(["completions", "zsh"])));
    let fish = stdout(&output(gpuquota().args(["completions", "fish"])));
    for command in ["inspect", "limit"] {
        assert!(fish.contains(&format!(
            "__fish_seen_subcommand_from {command}\" -a \"(gpuquota completions --names"
        )));
    }
    assert_eq!(zsh.matches(":_gpuquota_names'").count(), fish.matches("completions --names 2").count());
    for (shell, flag, text) in [("zsh", "-n", zsh), ("fish", "--no-execute", fish)] {
        let home = Scratch::new();
        let file = home.join("script");
        fs::write(&file, text).expect("a file");
        match Command::new(shell).arg(flag).arg(&file).output() {
            Ok(parsed) => assert!(parsed.status.success(), "{shell}: {}", stderr(&parsed)),
            Err(why) => println!("{shell} is not here, its script was not parsed: {why}"),
        }
    }
}
