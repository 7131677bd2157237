//! What the help and the manual pages say beyond the options: examples, variables, files and exit statuses.

#[cfg(test)]
mod documents;
pub mod knobs;

use crate::agent::config as agent_config;
use crate::tools::source;
use gpuquota_quota::limits::KNOBS;
use std::fmt::Write;

/// What an example does, and its command line.
type Example = (&'static str, &'static str);

/// One line of a list in a manual page.
pub struct Entry {
    /// What is explained.
    pub name: String,
    /// What it means.
    pub means: String,
}

/// Examples of every command, the program's own first. A test parses each of them.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "gpuquota",
        &[
            (
                "Run a program with 2 GiB of device memory and 30% of GPU time",
                "gpuquota run --memory 2GiB --cores 30% -- python3 train.py",
            ),
            ("See what all containers of this node use", "gpuquota inspect"),
        ],
    ),
    (
        "run",
        &[
            (
                "Run a program with 2 GiB of device memory and 30% of GPU time",
                "gpuquota run --memory 2GiB --cores 30% -- python3 train.py",
            ),
            (
                "Let two programs share one quota, each started by a command like this",
                "gpuquota run --region /run/gpuquota/team.cache --memory 8GiB -- python3 serve.py",
            ),
            (
                "Give each device a limit of its own",
                "gpuquota run --memory 0=2GiB --memory 1=4GiB -- ./program",
            ),
            (
                "Count what a limit would refuse, and refuse nothing",
                "gpuquota run --mode observe --memory 2GiB -- ./program",
            ),
        ],
    ),
    (
        "inspect",
        &[
            ("Show all regions of this node", "gpuquota inspect"),
            ("Show one container", "gpuquota inspect team/web-0/main"),
            ("Show the last refusals, and which processes held the memory", "gpuquota inspect --events"),
            ("Give one region to a program", "gpuquota inspect --json /run/gpuquota/team.cache"),
        ],
    ),
    (
        "limit",
        &[
            (
                "Set other limits while programs run",
                "gpuquota limit /run/gpuquota/team.cache --memory 4GiB --cores 50%",
            ),
            (
                "Guarantee 20% beside other containers, and allow 50% where they leave it",
                "gpuquota limit /run/gpuquota/team.cache --cores 50% --cores-request 20%",
            ),
            ("Set another limit of one container", "gpuquota limit web-0/main --memory 6GiB"),
            (
                "Let the limits hold again that the processes brought",
                "gpuquota limit /run/gpuquota/team.cache --reset",
            ),
        ],
    ),
    (
        "ps",
        &[
            ("Show who is at the devices, and which processes no quota counts", "gpuquota ps"),
            ("Give that to a program", "gpuquota ps --json"),
        ],
    ),
    (
        "top",
        &[
            ("Watch this node", "gpuquota top"),
            ("Watch it by its agent", "gpuquota top --agent 127.0.0.1:9394"),
        ],
    ),
    (
        "why",
        &[
            ("Tell why a container's requests are refused, and why it is slow", "gpuquota why web-0/main"),
            ("Give the answer to a program", "gpuquota why web-0/main --json"),
        ],
    ),
    (
        "doctor",
        &[
            ("Find out whether the quota is on here", "gpuquota doctor"),
            ("Find out whether a command would be held", "gpuquota doctor -- python3 train.py"),
            ("Run it, and see what it asks the driver for", "gpuquota doctor --trace -- python3 train.py"),
            (
                "Look at a running process and at the files of its container",
                "gpuquota doctor --pid 4711 --system /proc/4711/root",
            ),
        ],
    ),
    (
        "events",
        &[
            ("Show what has happened on this node, and what happens from now on", "gpuquota events --follow"),
            ("Show it of one container", "gpuquota events web-0/main"),
        ],
    ),
    (
        "snapshot",
        &[
            ("Keep the state of this node for a report", "gpuquota snapshot --json > node.json"),
            ("Open the containers in a spreadsheet", "gpuquota snapshot --csv > node.csv"),
            ("Draw the last ten minutes for a report", "gpuquota snapshot --svg > node.svg"),
        ],
    ),
    (
        "messages",
        &[("Explain one message", "gpuquota messages GQ302"), ("Print all messages", "gpuquota messages")],
    ),
    (
        "agent",
        &[
            ("Serve the regions of this node as metrics", "gpuquota agent --listen 127.0.0.1:9394"),
            ("Look for regions in one directory only", "gpuquota agent --root /run/gpuquota"),
            (
                "Serve all addresses by TLS to who knows the token, and the tools of this node by a socket",
                "gpuquota agent --listen [::]:9394 --listen unix:/run/gpuquota/agent.sock --tls-certificate tls.crt --tls-key tls.key --token-file token",
            ),
            (
                "Serve HAMi's metrics too, with settings from a file",
                "gpuquota agent --config agent.toml --hami-metrics",
            ),
        ],
    ),
    (
        "install",
        &[
            (
                "Put the library, and this program, where programs of this machine find them",
                "gpuquota install",
            ),
            ("Take the place of HAMi's library on this node", "gpuquota install --engine hami"),
            (
                "Put it into the unpacked image of an engine",
                "gpuquota install --engine volcano --root /tmp/image --engine-dir /k8s-vgpu/lib/nvidia",
            ),
            ("Install a systemd unit of the agent too", "gpuquota install --service"),
        ],
    ),
    (
        "uninstall",
        &[
            ("Put back what was there before", "gpuquota uninstall"),
            ("Give HAMi its own library back", "gpuquota uninstall --engine hami"),
        ],
    ),
    (
        "status",
        &[
            ("Show what is installed, and which version running programs have", "gpuquota status"),
            ("Give that to a program", "gpuquota status --json"),
        ],
    ),
    (
        "cdi",
        &[
            (
                "Make a slice that any container can have: podman run --device nvidia.com/gpu=0 --device gpuquota.dev/gpu=2GiB-30",
                "gpuquota cdi generate --slice 2GiB-30",
            ),
            (
                "Make one of a single GPU of several",
                "gpuquota cdi generate --gpu GPU-513dc0da-2330-4000-8000-000000000000=8GiB-50",
            ),
            ("Check the specification and the files that it names", "gpuquota cdi validate"),
        ],
    ),
    (
        "device-plugin",
        &[
            ("Offer memory in units of 1 GiB, and percents of time", "gpuquota device-plugin"),
            (
                "Offer HAMi's names, and fill the emptiest card first",
                "gpuquota device-plugin --hami-names --hami-memory-factor 10 --placement spread",
            ),
        ],
    ),
    (
        "dra",
        &[
            ("Offer memory and time of each card to the scheduler", "gpuquota dra --node-name node-1"),
            (
                "Leave the first card whole, and give 8 GiB to a claim that asks for no memory",
                "gpuquota dra --whole gpu-0 --default-memory 8GiB",
            ),
            (
                "Ask an API server by kubectl proxy, without a pod",
                "gpuquota dra --api http://127.0.0.1:8001 --node-name node-1",
            ),
        ],
    ),
    (
        "enforce",
        &[
            ("Give each user of this machine 4 GiB and 10% of GPU time", "gpuquota enforce --each 4GiB-10"),
            (
                "Give one more, a group less, and one no limit",
                "gpuquota enforce --each 4GiB-10 --user ann=16GiB-50 --group students=2GiB-5 --exempt bob",
            ),
            (
                "Limit all that a service of systemd starts",
                "gpuquota enforce --cgroup /system.slice/jupyterhub.service=20GiB-60",
            ),
            ("Take it all back", "gpuquota enforce --undo"),
        ],
    ),
    (
        "completions",
        &[
            (
                "Complete this command line in bash, for every user",
                "gpuquota completions bash > /usr/share/bash-completion/completions/gpuquota",
            ),
            (
                "Complete it in fish, for one user",
                "gpuquota completions fish > ~/.config/fish/completions/gpuquota.fish",
            ),
        ],
    ),
    ("man", &[("Install the manual pages", "gpuquota man /usr/local/share/man/man1")]),
];

/// The examples of a command.
pub fn examples(command: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(name, _)| *name == command).map_or(&[], |(_, examples)| examples)
}

/// The command line, with examples behind the long help of every command.
pub fn with_examples(program: clap::Command) -> clap::Command {
    let own = after_help(program.get_name());
    let program = program.after_long_help(own);
    program.mut_subcommands(|command| {
        let mut text = after_help(command.get_name());
        if command.get_name() == "run" {
            text.push_str("\nVariables that the library reads, in order of rank:\n");
            for knob in knobs() {
                let _infallible = write!(text, "  {}\n      {}\n", knob.name, knob.means);
            }
        }
        command.after_long_help(text)
    })
}

fn after_help(command: &str) -> String {
    let mut text = String::from("Examples:\n");
    for (does, example) in examples(command) {
        let _infallible = write!(text, "  {does}:\n      {example}\n");
    }
    text
}

fn entry(name: impl Into<String>, means: impl Into<String>) -> Entry {
    Entry { name: name.into(), means: means.into() }
}

/// The variables that set limits, in order of rank.
fn knobs() -> impl Iterator<Item = Entry> {
    KNOBS.iter().map(|knob| {
        let index = if knob.indexed { "[_<device>]" } else { "" };
        let means = format!("{}. {}. Default: {}.", knob.about, knob.values, knob.default);
        entry(format!("{}{index}", knob.name), means)
    })
}

/// The variables that a command, or what it starts, reads.
pub fn variables(command: &str) -> Vec<Entry> {
    let region = || {
        entry(
            "GPUQUOTA_REGION",
            "The region file where none is named. HAMi's variables name it too: gpuquota-run(1).",
        )
    };
    let agent = || {
        let means = "The node's agent, as --agent names it; none: read regions and NVML instead.";
        entry(source::VARIABLE, means)
    };
    if command == "top" {
        let colours = entry("NO_COLOR", "If it is set and not empty, there are no colours.");
        let term = entry("TERM", "The terminal. One that cannot move its cursor (dumb) is refused.");
        return vec![agent(), colours, term];
    }
    match command {
        "run" => {
            let library = entry(
                "GPUQUOTA_LIBRARY",
                "The library to preload. Default: it is looked for beside this program.",
            );
            knobs().chain([library]).collect()
        }
        "inspect" | "limit" | "why" => vec![region(), agent()],
        "ps" | "completions" | "doctor" | "events" | "snapshot" => vec![agent()],
        "agent" => {
            let config = std::iter::once("config");
            let names = config.chain(agent_config::KEYS.iter().map(|key| key.name));
            names.map(|name| entry(agent_config::variable(name), format!("The same as --{name}."))).collect()
        }
        _ => Vec::new(),
    }
}

/// The files that a command, or what it starts, reads or makes.
pub fn files(command: &str) -> Vec<Entry> {
    let limits = || {
        entry(
            "/etc/gpuquota/limits",
            "Limits of the container, one `key = value` a line. They outrank the environment and gpuquota-limit(1).",
        )
    };
    let regions = || {
        entry(
            "/run/gpuquota, $XDG_RUNTIME_DIR/gpuquota, /tmp/gpuquota-<uid>",
            "Regions that gpuquota-run(1) makes, in the first of these directories that the user may write to.",
        )
    };
    let others = || {
        entry(
            "/usr/local/vgpu, /tmp/vgpu/containers, /tmp/cudevshr.cache",
            "Regions of containers that HAMi, Volcano or KAI started, and of programs that were told none.",
        )
    };
    let record = || {
        entry(
            "/var/lib/gpuquota",
            "What was installed where, and the files that were there before, by their SHA-256.",
        )
    };
    match command {
        "install" | "uninstall" | "status" => vec![record()],
        "device-plugin" => vec![
            entry("/var/lib/kubelet/device-plugins", "The kubelet's socket, and one of each resource."),
            entry(
                "/var/lib/kubelet/pod-resources/kubelet.sock",
                "What the kubelet has given to which container.",
            ),
            entry("/run/gpuquota", "Regions and limits files of containers."),
        ],
        "dra" => vec![
            entry("/var/lib/kubelet/plugins/gpuquota.dev", "The socket for claims, and what is prepared."),
            entry("/var/lib/kubelet/plugins_registry", "The socket by which the kubelet finds the driver."),
            entry("/var/run/cdi", "A CDI specification of each claim that is prepared."),
            entry("/run/gpuquota", "Regions and limits files of claims."),
        ],
        "cdi" => vec![
            entry("/etc/cdi/gpuquota.json", "The specification."),
            entry("/var/lib/gpuquota/cdi", "The files that containers mount."),
        ],
        "enforce" => vec![
            entry("/etc/gpuquota/limits.d", "Limits by user, cgroup and group, and those of everybody else."),
            entry("/etc/ld.so.preload", "Names the library for every program."),
            entry("/run/gpuquota, /run/gpuquota/others", "The regions."),
        ],
        "run" => vec![limits(), regions()],
        "limit" => vec![limits()],
        "inspect" => vec![regions(), others()],
        "agent" => vec![
            regions(),
            others(),
            entry(
                agent_config::DEFAULT_FILE,
                "Settings of the agent (TOML): the names of its options without dashes before them. Variables and options outrank it.",
            ),
        ],
        _ => Vec::new(),
    }
}

/// The exit statuses of a command.
pub fn statuses(command: &str) -> Vec<Entry> {
    let own = [
        ("0", "Done."),
        ("1", "The system refused something; one line says what."),
        ("2", "Wrong usage, or something that is not there."),
    ];
    let run = [
        ("1", "The system refused something before the command was started; one line says what."),
        ("2", "A limit cannot be understood, or the library is not found."),
        ("126", "The command cannot be started."),
        ("127", "The command does not exist."),
        (
            "else",
            "The command's own. A command that a signal ended is repeated: this program ends by that signal.",
        ),
    ];
    let doctor = [
        ("0", "Nothing is worse than a note."),
        ("1", "The system refused something; one line says what."),
        ("2", "Wrong usage."),
        ("3", "The worst finding is a warning."),
        ("4", "The worst finding is an error."),
    ];
    let statuses: &[(&str, &str)] = match command {
        "run" => &run,
        "doctor" => &doctor,
        _ => &own,
    };
    statuses.iter().map(|(status, means)| entry(*status, *means)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_examples_and_each_is_a_command_line_that_parses() {
        let program = crate::command();
        let names = program.get_subcommands().map(clap::Command::get_name).chain([program.get_name()]);
        for name in names {
            assert!(!examples(name).is_empty(), "{name} has no example");
            for (_, example) in examples(name) {
                // The shell takes what stands behind `>`.
                let words = example.split_whitespace().take_while(|word| *word != ">");
                let parsed = crate::command().try_get_matches_from(words);
                let told = parsed.map(|matches| matches.subcommand_name().map(str::to_owned));
                match told {
                    Ok(Some(told)) => assert!(name == "gpuquota" || told == name, "{example}"),
                    Ok(None) => panic!("{example} names no command"),
                    Err(error) => panic!("{example}: {error}"),
                }
            }
        }
    }
}
