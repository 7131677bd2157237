//! Every message that a user can meet: its code, what it means and what to do next. `docs/messages.md` is made of it.
//!
//! A code never changes its meaning and is never given again, because people search for it.

mod doctor;
mod events;
mod message;
mod refusals;
mod why;

pub use doctor::*;
pub use events::of as of_event;
pub use message::Message;
pub use refusals::{AGENT, AMBIGUOUS, NO_CONTAINER, NOT_UNDERSTOOD, REGION, TERMINAL, refused};
pub use why::*;

use crate::error::Error;
use crate::tools::output;
use gpuquota_quota::limits::{Reason, Severity};
use std::fmt::Write;
use std::process::ExitCode;

/// The parts of the catalogue, and what stands over each.
fn parts() -> [(&'static str, &'static str, Vec<&'static Message>); 4] {
    [
        (
            "Events",
            "What has happened in containers and on cards: `gpuquota events`, `gpuquota inspect --events`, the agent's stream and its log.",
            events::ALL.iter().collect(),
        ),
        ("Answers", "What `gpuquota why` answers.", why::ALL.to_vec()),
        (
            "Findings",
            "What `gpuquota doctor` finds. The same code may be an error in one place and a warning in another; the finding says which.",
            doctor::ALL.to_vec(),
        ),
        ("Refusals", "Why a tool did not do what was asked. The exit status is 2.", refusals::ALL.to_vec()),
    ]
}

/// Explain a message by its code, or print them all.
#[derive(clap::Args)]
pub struct Messages {
    /// The message's code, such as GQ101. Without it: all of them, as docs/messages.md has them.
    code: Option<String>,

    /// As JSON, one object a line.
    #[arg(long)]
    json: bool,
}

impl Messages {
    /// Prints them.
    pub fn run(self) -> Result<ExitCode, Error> {
        let all = || parts().into_iter().flat_map(|(_, _, messages)| messages);
        let Some(code) = &self.code else {
            let told = if self.json { all().map(as_json).collect() } else { page() };
            return output::write(&told);
        };
        let found = all().find(|message| message.code.eq_ignore_ascii_case(code));
        let message = found.ok_or_else(|| {
            Error::Asked(format!("there is no message {code:?}; `gpuquota messages` prints them all"))
        })?;
        let Message { code, title, means, next } = message;
        let people = format!("{code}: {title}\n{means}\nNext: {next}\n");
        output::write(&if self.json { as_json(message) } else { people })
    }
}

fn as_json(message: &Message) -> String {
    let Message { code, title, means, next } = message;
    output::json(&serde_json::json!({ "code": code, "title": title, "means": means, "next": next }))
}

/// The page `docs/messages.md`.
fn page() -> String {
    let mut page = String::from(
        "# Messages\n\nEvery message with a code: what it means and what to do. A code keeps its meaning for ever. \
         `gpuquota messages` prints this page, and `gpuquota messages CODE` one of them.\n",
    );
    for (heading, about, messages) in parts() {
        let _infallible = write!(page, "\n## {heading}\n\n{about}\n");
        for Message { code, title, means, next } in messages {
            let _infallible = write!(page, "\n### {code}: {title}\n\n{means}\n\nNext: {next}\n");
        }
    }
    page.push_str(
        "\n## Limits that cannot be understood\n\nThe library says on stderr which variable or line of the limits file it is, and one of these reasons \
         ([limits.md](limits.md)); so do `gpuquota run` and `gpuquota limit`. After an error there is no GPU for the container, unless \
         `GPUQUOTA_ON_ERROR=open`; after a warning the value is taken as said.\n\n",
    );
    for reason in Reason::ALL {
        let severity = match reason.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let _infallible = writeln!(page, "- {severity}: {}", reason.words());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_stands_for_one_message_with_a_next_step() {
        let mut codes = BTreeSet::new();
        for message in parts().iter().flat_map(|(_, _, messages)| messages) {
            let Message { code, title, means, next } = message;
            let number = code.strip_prefix("GQ").expect(code);
            assert!(number.len() == 3 && number.parse::<u16>().is_ok(), "{code}");
            assert!(codes.insert(code), "{code} stands for two messages");
            assert!(!title.is_empty() && means.ends_with('.') && next.ends_with('.'), "{code}");
        }
        assert!(codes.len() > 30);
    }

    #[test]
    fn the_page_in_the_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/messages.md");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == page(), "write it anew: gpuquota messages > docs/messages.md");
    }
}
