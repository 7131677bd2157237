//! Every setting: its name, what it means and how its value is read.

use crate::agent::card::Policy;
use crate::agent::identity::Sources;
use crate::agent::nri;
use crate::error::Error;
use clap::ValueEnum;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use tracing::Level;

/// Where the agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the agent is told to do.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: Vec<Listen>,
    pub roots: Vec<PathBuf>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
    pub hami_metrics: bool,
    pub dcgm_metrics: bool,
    pub node_name: String,
    pub grace: Duration,
    pub max_devices: usize,
    pub connections: usize,
    pub sources: Sources,
    /// What to do about processes past the limits of their containers.
    pub unprotected: Policy,
    /// Whether containers only take turns, also where they would do more beside each other.
    pub turns: bool,
    /// Quotas for containers as the runtime makes them.
    pub nri: nri::Settings,
    pub log_level: Level,
    pub log_format: LogFormat,
    /// Variables that look like the agent's and are none, each with a guess.
    pub unknown_variables: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 9394)))],
            roots: Vec::new(),
            tls_certificate: None,
            tls_key: None,
            token_file: None,
            hami_metrics: false,
            dcgm_metrics: false,
            node_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            grace: Duration::from_secs(300),
            max_devices: 4096,
            connections: 1024,
            sources: Sources::default(),
            unprotected: Policy::default(),
            turns: false,
            nri: nri::Settings::default(),
            log_level: Level::INFO,
            log_format: LogFormat::Text,
            unknown_variables: Vec::new(),
        }
    }
}

impl Settings {
    /// What only several settings together tell.
    pub fn check(&self) -> Result<(), Error> {
        let alone = match (&self.tls_certificate, &self.tls_key) {
            (Some(_), None) => ("tls-certificate", "tls-key"),
            (None, Some(_)) => ("tls-key", "tls-certificate"),
            _ => return Ok(()),
        };
        Err(Error::Asked(format!("{} is set and {} is not: TLS needs both", alone.0, alone.1)))
    }
}

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Its name as a flag and in the file.
    pub name: &'static str,
    /// What its value is; `None` for a switch.
    pub value: Option<&'static str>,
    /// What its flag means without a value, where it may stand so.
    pub alone: Option<&'static str>,
    /// Whether it may be given several times.
    pub many: bool,
    /// What it means.
    pub help: &'static str,
    /// Takes one value.
    pub take: fn(&mut Settings, &OsStr) -> Result<(), String>,
    /// Drops the values of a list.
    pub clear: fn(&mut Settings),
}

const fn key(
    name: &'static str,
    value: Option<&'static str>,
    help: &'static str,
    take: fn(&mut Settings, &OsStr) -> Result<(), String>,
) -> Key {
    Key { name, value, alone: None, many: false, help, take, clear: |_| () }
}

/// All of them.
pub const KEYS: [Key; 26] = [
    Key {
        many: true,
        clear: |settings| settings.listen.clear(),
        ..key(
            "listen",
            Some("ADDRESS:PORT|unix:/PATH"),
            "Where to listen. May be given several times [default: 127.0.0.1:9394]",
            |settings, value| {
                settings.listen.push(listen(value)?);
                Ok(())
            },
        )
    },
    Key {
        many: true,
        clear: |settings| settings.roots.clear(),
        ..key(
            "root",
            Some("DIR"),
            "Look for regions in this directory instead of the known places. May be given several times",
            |settings, value| {
                settings.roots.push(path(value)?);
                Ok(())
            },
        )
    },
    key(
        "tls-certificate",
        Some("FILE"),
        "Serve TLS with this certificate chain (PEM), read again when it changes",
        |settings, value| set(&mut settings.tls_certificate, path(value).map(Some)),
    ),
    key("tls-key", Some("FILE"), "The private key of the certificate (PEM)", |settings, value| {
        set(&mut settings.tls_key, path(value).map(Some))
    }),
    key(
        "token-file",
        Some("FILE"),
        "Answer only requests that bring the bearer token in this file; probes and the unix socket need none",
        |settings, value| set(&mut settings.token_file, path(value).map(Some)),
    ),
    key(
        "hami-metrics",
        None,
        "Serve HAMi's metrics too, under its new and its older names",
        |settings, value| set(&mut settings.hami_metrics, truth(value)),
    ),
    key("dcgm-metrics", None, "Serve a subset of dcgm-exporter's metrics too", |settings, value| {
        set(&mut settings.dcgm_metrics, truth(value))
    }),
    key(
        "turns",
        None,
        "Give containers turns only, also where they would do more if they launched beside each other",
        |settings, value| set(&mut settings.turns, truth(value)),
    ),
    key(
        "node-name",
        Some("NAME"),
        "The node's name in HAMi's and dcgm-exporter's metrics [default: the host's name]",
        |settings, value| set(&mut settings.node_name, text(value).map(str::to_owned)),
    ),
    key(
        "grace",
        Some("TIME"),
        "How long the counters of what has ended are served [default: 5m]",
        |settings, value| {
            set(
                &mut settings.grace,
                text(value).and_then(|text| {
                    humantime::parse_duration(text)
                        .map_err(|_| format!("{text:?} is no time such as 90s or 5m"))
                }),
            )
        },
    ),
    key(
        "max-devices",
        Some("N"),
        "Of at most so many devices of containers series are served; the others are counted [default: 4096]",
        |settings, value| set(&mut settings.max_devices, number(value, 1, 1 << 20)),
    ),
    key(
        "connections",
        Some("N"),
        "Connections at a time; when there are more, the oldest one without a request goes [default: 1024]",
        |settings, value| set(&mut settings.connections, number(value, 8, 1 << 16)),
    ),
    key(
        "unprotected",
        Some("POLICY"),
        "What to do about a process that uses a card past the limits of its container: report, freeze or kill [default: report]",
        |settings, value| {
            let policy = |text: &str| Policy::from_str(text, false);
            let none = |text: &str| format!("{text:?} is none of report, freeze and kill");
            set(&mut settings.unprotected, text(value).and_then(|text| policy(text).map_err(|_| none(text))))
        },
    ),
    Key {
        alone: Some("true"),
        ..key(
            "nri",
            Some("SOCKET"),
            "Give containers their quotas as the runtime makes them, by NRI [without SOCKET: /var/run/nri/nri.sock]",
            |settings, value| set(&mut settings.nri.socket, text(value).and_then(nri::Settings::socket)),
        )
    },
    key(
        "nri-library",
        Some("FILE"),
        "The library on the node that containers get by NRI [default: /usr/local/lib/gpuquota/libgpuquota.so]",
        |settings, value| set(&mut settings.nri.library, absolute(value).map(Some)),
    ),
    key(
        "nri-unprotected",
        Some("ACTION"),
        "What to do about containers that ask for a quota and were started without it: report or stop [default: report]",
        |settings, value| {
            let policy = |text: &str| nri::Policy::from_str(text, false);
            let wrong = |text: &str| format!("{text:?} is neither report nor stop");
            set(
                &mut settings.nri.unprotected,
                text(value).and_then(|text| policy(text).map_err(|_| wrong(text))),
            )
        },
    ),
    key(
        "cri",
        Some("SOCKET"),
        "The container runtime's CRI socket, asked for names [default: those of containerd, k3s and CRI-O]",
        |settings, value| set(&mut settings.sources.cri, path(value).map(Some)),
    ),
    key(
        "kubelet-pod-resources",
        Some("SOCKET"),
        "The kubelet's PodResources socket, asked for names [default: /var/lib/kubelet/pod-resources/kubelet.sock]",
        |settings, value| set(&mut settings.sources.kubelet_pod_resources, path(value).map(Some)),
    ),
    key(
        "docker",
        Some("SOCKET"),
        "Docker's socket, asked for names [default: /run/docker.sock]",
        |settings, value| set(&mut settings.sources.docker, path(value).map(Some)),
    ),
    key(
        "podman",
        Some("SOCKET"),
        "Podman's socket, asked for names [default: /run/podman/podman.sock]",
        |settings, value| set(&mut settings.sources.podman, path(value).map(Some)),
    ),
    key(
        "container-storage",
        Some("DIR"),
        "Where Podman and CRI-O keep their containers [default: /var/lib/containers/storage]",
        |settings, value| set(&mut settings.sources.container_storage, path(value)),
    ),
    key(
        "pod-logs",
        Some("DIR"),
        "The kubelet's directory of the logs of pods [default: /var/log/pods]",
        |settings, value| set(&mut settings.sources.pod_logs, path(value)),
    ),
    key(
        "container-logs",
        Some("DIR"),
        "The kubelet's directory of links to the logs of containers [default: /var/log/containers]",
        |settings, value| set(&mut settings.sources.container_logs, path(value)),
    ),
    key(
        "proc",
        Some("DIR"),
        "Where the kernel tells in which cgroup a process is [default: /proc]",
        |settings, value| set(&mut settings.sources.proc, path(value)),
    ),
    key(
        "log-level",
        Some("LEVEL"),
        "What to log: error, warn, info, debug or trace [default: info]",
        |settings, value| {
            set(
                &mut settings.log_level,
                text(value).and_then(|text| {
                    Level::from_str(text)
                        .map_err(|_| format!("{text:?} is none of error, warn, info, debug and trace"))
                }),
            )
        },
    ),
    key("log-format", Some("FORMAT"), "How to log: text or json [default: text]", |settings, value| {
        set(
            &mut settings.log_format,
            text(value).and_then(|text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                other => Err(format!("{other:?} is neither text nor json")),
            }),
        )
    }),
];

fn set<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

fn text(value: &OsStr) -> Result<&str, String> {
    match value.to_str() {
        Some("") => Err("it is empty".to_owned()),
        Some(text) => Ok(text),
        None => Err(format!("{value:?} is no text")),
    }
}

fn path(value: &OsStr) -> Result<PathBuf, String> {
    if value.is_empty() { Err("it is empty".to_owned()) } else { Ok(value.into()) }
}

/// A path that the loader takes as one.
fn absolute(value: &OsStr) -> Result<PathBuf, String> {
    use std::os::unix::ffi::OsStrExt;
    let splits = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b':' | b'#');
    match value.as_bytes() {
        [b'/', ..] if !value.as_bytes().iter().any(splits) => Ok(value.into()),
        _ => Err(format!("{value:?} is no absolute path without blanks and colons")),
    }
}

fn truth(value: &OsStr) -> Result<bool, String> {
    let text = text(value)?;
    text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
}

fn number(value: &OsStr, least: usize, most: usize) -> Result<usize, String> {
    let text = text(value)?;
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{text:?} is no whole number from {least} to {most}"))
}

fn listen(value: &OsStr) -> Result<Listen, String> {
    use std::os::unix::ffi::OsStrExt;
    /// Bytes of a socket's path, without the NUL.
    const LONGEST: usize = 107;
    if let Some(path) = value.as_bytes().strip_prefix(b"unix:") {
        return match path {
            [b'/', ..] if path.len() <= LONGEST => Ok(Listen::Unix(OsStr::from_bytes(path).into())),
            [b'/', ..] => {
                Err(format!("{value:?} is longer than the {LONGEST} bytes that a socket's path may have"))
            }
            _ => Err(format!("{value:?} is no absolute path of a socket")),
        };
    }
    let text = text(value)?;
    let address = text.parse().map(Listen::Tcp);
    address.map_err(|_| format!("{text:?} is neither an ADDRESS:PORT nor unix:/PATH"))
}

/// Sets what one place says of a setting; the values of a place that ranks lower are gone.
pub fn take(settings: &mut Settings, key: &Key, values: &[OsString], place: &str) -> Result<(), Error> {
    if key.many {
        (key.clear)(settings);
    }
    for value in values {
        (key.take)(settings, value).map_err(|why| Error::Asked(format!("{place}: {why}")))?;
    }
    Ok(())
}

/// The setting whose name is most like this one, if any is like it.
pub fn nearest(name: &str) -> Option<&'static str> {
    let names = KEYS.iter().map(|key| key.name);
    let alike = names.map(|known| (strsim::jaro_winkler(name, known), known));
    alike.filter(|(alike, _)| *alike > 0.7).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, known)| known)
}
