//! Why a tool did not do what was asked.

use super::message::{Message, message};
use crate::error::Error;

pub static NO_CONTAINER: Message = message(
    "GQ501",
    "no such container",
    "No container of this node is called so, or none has a quota.",
    "`gpuquota completions --names` lists those that there are.",
);
pub static AMBIGUOUS: Message = message(
    "GQ502",
    "ambiguous name",
    "The name may mean several containers.",
    "Write more of the name; the line lists the candidates.",
);
pub static AGENT: Message = message(
    "GQ503",
    "no answer of the agent",
    "The agent that was named does not answer, or not to this user, or it is older than the tool.",
    "Look whether it runs (`gpuquota agent`) and where it listens; `--agent none` reads regions and NVML instead.",
);
pub static NOT_UNDERSTOOD: Message = message(
    "GQ504",
    "not understood",
    "An address or a word of the command line cannot be understood.",
    "The line says what is wanted.",
);
pub static REGION: Message = message(
    "GQ505",
    "region not readable",
    "The file is not there, is no region, is of another version, or this user may not read it.",
    "The line says which. Regions belong to the user that made them: try as root.",
);
pub static TERMINAL: Message = message(
    "GQ506",
    "no terminal",
    "`gpuquota top` needs a terminal that is large enough.",
    "Make it larger, or use `gpuquota snapshot`, which needs none.",
);

/// All of them.
pub static ALL: [&Message; 6] = [&NO_CONTAINER, &AMBIGUOUS, &AGENT, &NOT_UNDERSTOOD, &REGION, &TERMINAL];

/// The error that says so, with its code.
pub fn refused(message: &'static Message, why: impl std::fmt::Display) -> Error {
    Error::Asked(format!("{why} ({})", message.code))
}
