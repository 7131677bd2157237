//! The node's agent.

use super::finding::Finding;
use crate::tools::messages::{AGENT_FINE, NO_AGENT, OTHER_AGENT};
use crate::tools::source::{Source, Where};
use serde_json::Value;

/// Whether it answers, and its version.
pub fn look() -> Vec<Finding> {
    let client = match Where::default().open() {
        Ok(Source::Agent(client)) => client,
        Ok(Source::Own(_)) => return vec![Finding::note(&NO_AGENT, "No agent answers at its usual places.")],
        Err(error) => return vec![Finding::warning(&NO_AGENT, error.to_string())],
    };
    let answer = match client.get("/version") {
        Ok(answer) => serde_json::from_slice::<Value>(&answer).unwrap_or_default(),
        Err(why) => return vec![Finding::warning(&NO_AGENT, format!("{}: {why}.", client.address()))],
    };
    let (own, theirs) = (env!("CARGO_PKG_VERSION"), answer["version"].as_str().unwrap_or("unknown"));
    let says = format!("{} is of version {theirs}", client.address());
    vec![match own == theirs {
        true => Finding::fine(&AGENT_FINE, says + "."),
        false => Finding::warning(&OTHER_AGENT, format!("{says}, this program of {own}.")),
    }]
}
