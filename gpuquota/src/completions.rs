//! `gpuquota completions`: what a shell needs to complete this command line.

use crate::error::Error;
use clap::ValueEnum;
use clap_complete::Generator;
use clap_complete::shells::{Bash, Fish, Zsh};
use std::io::{self, Write};
use std::process::ExitCode;

/// Print completions for a shell.
#[derive(clap::Args)]
pub struct Completions {
    /// The shell that they are for.
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    /// Prints the completions.
    pub fn run(self) -> Result<ExitCode, Error> {
        let mut command = crate::command();
        let name = command.get_name().to_owned();
        command.set_bin_name(name);
        command.build();
        let mut text = Vec::new();
        match self.shell {
            Shell::Bash => Bash.try_generate(&command, &mut text),
            Shell::Zsh => Zsh.try_generate(&command, &mut text),
            Shell::Fish => Fish.try_generate(&command, &mut text),
        }
        .and_then(|()| io::stdout().lock().write_all(&text))
        .or_else(|error| match error.kind() {
            // The reader wanted no more.
            io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error),
        })
        .map_err(Error::system("write"))?;
        Ok(ExitCode::SUCCESS)
    }
}
