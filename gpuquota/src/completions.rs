//! `gpuquota completions`: what a shell needs to complete this command line, and the names of containers that it offers.

use crate::error::Error;
use crate::tools::source::Where;
use crate::tools::{name, output};
use clap::ValueEnum;
use clap_complete::Generator;
use clap_complete::shells::{Bash, Fish, Zsh};
use std::process::ExitCode;

/// Print completions for a shell.
#[derive(clap::Args)]
pub struct Completions {
    /// The shell that they are for.
    #[arg(required_unless_present = "names")]
    shell: Option<Shell>,

    /// Print the names of the containers of this node instead, one a line, as the completions offer them.
    #[arg(long, conflicts_with = "shell")]
    names: bool,

    #[command(flatten)]
    place: Where,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// What asks for the names; whatever is wrong is no concern of a command line that is being typed.
const ASK: &str = "gpuquota completions --names 2>/dev/null";

impl Completions {
    /// Prints the completions.
    pub fn run(self) -> Result<ExitCode, Error> {
        let Some(shell) = self.shell else {
            let names = name::all(&self.place.open()?.look()?);
            return output::write(&names.iter().map(|name| format!("{name}\n")).collect::<String>());
        };
        let mut command = crate::command();
        let name = command.get_name().to_owned();
        command.set_bin_name(name);
        command.build();
        let mut text = Vec::new();
        match shell {
            Shell::Bash => Bash.try_generate(&command, &mut text),
            Shell::Zsh => Zsh.try_generate(&command, &mut text),
            Shell::Fish => Fish.try_generate(&command, &mut text),
        }
        .map_err(Error::system("write"))?;
        let text = String::from_utf8_lossy(&text);
        let named: Vec<&str> = command
            .get_subcommands()
            .filter(|command| takes_a_name(command))
            .map(clap::Command::get_name)
            .collect();
        output::write(&match shell {
            Shell::Bash => bash(&text, &named),
            Shell::Zsh => zsh(&text),
            Shell::Fish => fish(&text, &named),
        })
    }
}

fn takes_a_name(command: &clap::Command) -> bool {
    command.get_positionals().any(|argument| argument.get_id() == "container")
}

/// The generated function, and one that adds the names to what it offers.
fn bash(text: &str, named: &[&str]) -> String {
    let more = r#"
_gpuquota_with_names() {
    _gpuquota "$@"
    local word="${COMP_WORDS[COMP_CWORD]}"
    case "${COMP_WORDS[1]}" in
        COMMANDS)
            if [[ ${COMP_CWORD} -ge 2 && "${word}" != -* && "$3" != --* ]]; then
                COMPREPLY+=( $(compgen -W "$(ASK)" -- "${word}") )
            fi
            ;;
    esac
}
complete -F _gpuquota_with_names -o bashdefault -o default gpuquota
"#;
    text.to_owned() + &more.replace("COMMANDS", &named.join("|")).replace("ASK", ASK)
}

/// The generated function offers files for the argument; here it offers names too.
fn zsh(text: &str) -> String {
    let function = r#"#compdef gpuquota

_gpuquota_names() {
    local -a names
    names=("${(@f)$(ASK)}")
    compadd -a names
    _files
}
"#;
    let mut changed = String::new();
    for line in text.lines() {
        let is_name = line.starts_with("'::container -- ") || line.starts_with("':container -- ");
        changed.push_str(&if is_name {
            line.replace(":_default'", ":_gpuquota_names'")
        } else {
            line.to_owned()
        });
        changed.push('\n');
    }
    changed.replacen("#compdef gpuquota\n", &function.replace("ASK", ASK), 1)
}

fn fish(text: &str, named: &[&str]) -> String {
    let of = |command: &&str| {
        format!("complete -c gpuquota -n \"__fish_seen_subcommand_from {command}\" -a \"({ASK})\"\n")
    };
    text.to_owned() + &named.iter().map(of).collect::<String>()
}
