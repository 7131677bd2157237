//! Events by their names in JSON.

use super::message::{Message, message};

/// Their messages. A test holds them against the kinds of events that there are.
pub static ALL: [Message; 18] = [
    message(
        "GQ101",
        "denied",
        "A request for GPU memory was refused, because it would have gone beyond the container's memory limit. The program got CUDA_ERROR_OUT_OF_MEMORY.",
        "Ask `gpuquota why CONTAINER` who held the memory. Raise the limit with `gpuquota limit CONTAINER --memory SIZE`, or let the program ask for less.",
    ),
    message(
        "GQ102",
        "holder",
        "A process that held much memory when the refusal just before was given, and what most of it was.",
        "End that process, or let it give memory back.",
    ),
    message(
        "GQ103",
        "killed",
        "A process of lower priority was ended to make room for one of higher priority.",
        "Nothing, if that was meant. GPUQUOTA_OOM_KILL allows it and the task's priority decides whom it hits.",
    ),
    message(
        "GQ104",
        "bad_limits",
        "The limits that a process brought could not be understood. Unless GPUQUOTA_ON_ERROR=open, it has no GPU.",
        "Run `gpuquota doctor` where the process runs: it names the variable or the line, and the reason.",
    ),
    message("GQ105", "reaped", "The memory of dead processes was given back to the container.", "Nothing."),
    message(
        "GQ106",
        "started_anew",
        "The region file was of another boot or version, or damaged, and nobody used it: it was made anew.",
        "Nothing.",
    ),
    message(
        "GQ107",
        "limit_differs",
        "A process asked for another limit than the one that holds for its container.",
        "Give all processes of a container the same limits, or set them with `gpuquota limit`.",
    ),
    message(
        "GQ108",
        "limit_changed",
        "A process brought a limit that changed the one in force: of several, the strictest holds.",
        "Nothing, if that was meant; `gpuquota inspect CONTAINER` shows where each limit comes from.",
    ),
    message(
        "GQ109",
        "name_restored",
        "The region file was removed or replaced while processes held it. It is back at its path, or, if nameless, will be after the next start.",
        "Find out what removes files there; the limits held all the time.",
    ),
    message(
        "GQ110",
        "two_regions",
        "Processes of one container hold two region files of the same path, so there are two caps.",
        "End the processes of one of them.",
    ),
    message(
        "GQ111",
        "shared",
        "A process shares the default region with another user or container, and one limit holds for both together.",
        "Set GPUQUOTA_REGION to a path of its own for each.",
    ),
    message(
        "GQ112",
        "contents_lost",
        "The region file was truncated or overwritten while processes held it. They have put back what they hold.",
        "Find out what writes there. Limits that `gpuquota limit` had set have to be set again.",
    ),
    message(
        "GQ199",
        "unknown",
        "An event that a later version of gpuquota has written.",
        "Use a tool of that version.",
    ),
    message(
        "GQ201",
        "unprotected",
        "A process of a container with limits uses a card without being counted, so no limit holds it.",
        "Run `gpuquota doctor -- COMMAND` in the container. `gpuquota agent --unprotected freeze` or `kill` stops such processes.",
    ),
    message(
        "GQ202",
        "difference",
        "The card's figure of a container's memory and that of its books have been apart by more than the driver rounds.",
        "Look for GQ201: most often a process is not counted. If there is none, report it with `gpuquota snapshot --json`.",
    ),
    message("GQ203", "agreement", "Card and books agree again after GQ202.", "Nothing."),
    message(
        "GQ204",
        "lost",
        "A card does not answer any more.",
        "Look for an Xid in the kernel's log; reset the card or restart the node. Programs on it have to be started again.",
    ),
    message(
        "GQ205",
        "xid",
        "The driver has told an error of a card by NVIDIA's number.",
        "Look the number up in NVIDIA's list of Xid errors: 31, 43 and 45 are most often the program's own fault, 48, 63, 64, 74, 79 and 94 to 95 the card's.",
    ),
];

/// The message of an event.
pub fn of(name: &str) -> &'static Message {
    static LATER: &Message = &ALL[12];
    ALL.iter().find(|message| message.title == name).unwrap_or(LATER)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variants of an enumeration in a source file, as JSON names them.
    fn variants(source: &str) -> Vec<String> {
        let body = source.split("pub enum EventKind {").nth(1).and_then(|rest| rest.split("\n}").next());
        let lines = body.expect("the kinds").lines().filter_map(|line| line.strip_prefix("    "));
        let starts = |line: &&str| line.starts_with(|first: char| first.is_ascii_uppercase());
        let name = |line: &str| {
            let word: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
            let snake = word.char_indices().map(|(at, letter)| {
                let gap = if at > 0 && letter.is_ascii_uppercase() { "_" } else { "" };
                format!("{gap}{}", letter.to_ascii_lowercase())
            });
            snake.collect::<String>()
        };
        lines.filter(starts).map(name).collect()
    }

    #[test]
    fn every_kind_of_event_has_its_message() {
        let kinds = [
            variants(include_str!("../../regions/events.rs")),
            variants(include_str!("../../agent/card/events.rs")),
        ]
        .concat();
        let told: Vec<_> = ALL.iter().map(|message| message.title.to_owned()).collect();
        assert_eq!(kinds.iter().filter(|kind| !told.contains(kind)).collect::<Vec<_>>(), [""; 0]);
        assert_eq!(told.iter().filter(|name| !kinds.contains(name)).collect::<Vec<_>>(), [""; 0]);
        assert_eq!((of("xid").code, of("of later").code), ("GQ205", "GQ199"));
    }
}
