//! Where the tools get the figures of the node: from its agent, else by looking themselves.

use super::ask::{Address, Client};
use super::messages::{AGENT, NOT_UNDERSTOOD, refused};
use super::name;
use super::node::Node;
use crate::agent::Look;
use crate::agent::identity::Sources;
use crate::error::Error;
use crate::regions::{self, Places};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The agent's socket, as its page has it, and its port.
const SOCKET: &str = "/run/gpuquota/agent.sock";
const PORT: &str = "127.0.0.1:9394";
/// Looks, a second apart, where no agent has kept the last minutes.
const LOOKS: u32 = 7;
/// The variable that names another.
pub const VARIABLE: &str = "GPUQUOTA_AGENT";

/// Where to look.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Where {
    /// The node's agent: unix:/PATH or HOST:PORT; none: read regions and NVML instead. Default: the variable
    /// GPUQUOTA_AGENT, else whichever of unix:/run/gpuquota/agent.sock and 127.0.0.1:9394 answers.
    #[arg(long, value_name = "ADDRESS")]
    pub agent: Option<String>,

    /// Ask no agent, and look for regions in this directory instead of the known places. May be given several times.
    #[arg(long, value_name = "DIR", conflicts_with = "agent")]
    pub root: Vec<PathBuf>,
}

/// Who tells it.
pub enum Source {
    /// The agent.
    Agent(Client),
    /// Regions and NVML.
    Own(Box<Look>),
}

impl Where {
    /// Opens a source for looking.
    pub fn open(&self) -> Result<Source, Error> {
        self.agent_or_own(self.agent()?)
    }

    /// Opens a source for what is written by: an agent only if it was named, since anybody can take a port where none runs.
    pub fn open_for_writing(&self) -> Result<Source, Error> {
        self.agent_or_own(self.named()?)
    }

    /// The agent that was named, or that answers.
    pub fn agent(&self) -> Result<Option<Client>, Error> {
        if let Some(client) = self.named()? {
            return Ok(Some(client));
        }
        if self.may_ask() {
            let known = [Address::Unix(SOCKET.into()), Address::Tcp(PORT.to_owned())];
            for address in known {
                let client = client(address)?;
                // An agent that wants a token, or somebody else on its port, is as good as none.
                if client.get("/version").is_ok() {
                    return Ok(Some(client));
                }
            }
        }
        Ok(None)
    }

    fn agent_or_own(&self, agent: Option<Client>) -> Result<Source, Error> {
        match agent {
            Some(client) => Ok(Source::Agent(client)),
            None => Ok(Source::Own(Box::new(Look::new(&Sources::default(), self.places())?))),
        }
    }

    /// Where regions are looked for.
    pub fn places(&self) -> Places {
        if self.root.is_empty() { Places::of_node() } else { Places::only(&self.root) }
    }

    fn may_ask(&self) -> bool {
        self.root.is_empty() && self.said().is_none()
    }

    /// What was said of the agent, and where.
    fn said(&self) -> Option<(&'static str, String)> {
        let of_flag = self.agent.clone().map(|value| ("--agent", value));
        of_flag.or_else(|| {
            let value =
                std::env::var(VARIABLE).ok().filter(|value| !value.is_empty() && self.root.is_empty());
            value.map(|value| (VARIABLE, value))
        })
    }

    fn named(&self) -> Result<Option<Client>, Error> {
        match self.said() {
            Some((_, value)) if value == "none" => Ok(None),
            Some((from, value)) => {
                let address: Address = value
                    .parse()
                    .map_err(|why| refused(&NOT_UNDERSTOOD, format!("{from} {value:?}: {why}")))?;
                client(address).map(Some)
            }
            None => Ok(None),
        }
    }
}

fn client(address: Address) -> Result<Client, Error> {
    Client::new(address).map_err(Error::system("start"))
}

/// What is wrong with an agent.
pub fn silent(client: &Client, why: &dyn std::fmt::Display) -> Error {
    refused(&AGENT, format!("agent {}: {why}", client.address()))
}

impl Source {
    /// The node now.
    pub fn look(&mut self) -> Result<Node, Error> {
        let told = self.raw()?;
        Node::parse(told.as_bytes()).map_err(|why| match self {
            Self::Agent(client) => {
                silent(client, &format!("its answer is not understood; is it older than this? {why}"))
            }
            Self::Own(_) => Error::Asked(why),
        })
    }

    /// The node now as JSON, with all that this agent tells.
    pub fn raw(&mut self) -> Result<String, Error> {
        match self {
            Self::Agent(client) => got(client, "/api/v1"),
            Self::Own(look) => {
                serde_json::to_string(&look.now()).map_err(|error| Error::Asked(error.to_string()))
            }
        }
    }

    /// The last minutes as JSON; where no agent has kept them, some seconds from now on.
    pub fn history(&mut self) -> Result<String, Error> {
        match self {
            Self::Agent(client) => got(client, "/api/v1/history"),
            Self::Own(look) => {
                let told = look.watch(LOOKS, Duration::from_secs(1));
                told.map_err(|error| Error::Asked(error.to_string()))
            }
        }
    }

    /// Where the figures come from, for people.
    pub fn shown(&self) -> String {
        match self {
            Self::Agent(client) => client.address().to_string(),
            Self::Own(_) => "regions and NVML".to_owned(),
        }
    }
}

fn got(client: &Client, path: &str) -> Result<String, Error> {
    let answer = client.get(path).map_err(|why| silent(client, &why))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether somebody has written a path and no name.
pub fn is_path(text: &OsStr) -> bool {
    let path = Path::new(text);
    path.is_absolute() || path.starts_with(".") || path.starts_with("..") || path.is_file()
}

/// The region that is meant by a path, or by a container's name.
pub fn region(text: &OsStr, open: impl FnOnce() -> Result<Source, Error>) -> Result<PathBuf, Error> {
    if is_path(text) {
        return Ok(text.into());
    }
    let node = open()?.look()?;
    let named = regions::shown(Path::new(text));
    name::find(&node, &named).map(|container| container.path.clone().into())
}
