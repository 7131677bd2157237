//! gpuquota: run a command under a GPU quota, look at a quota, change it, serve a node's quotas.
//!
//! One file per subcommand; all text for people is here. The rules are elsewhere: values in `quota::limits`, the
//! file in `region`, enforcement in the preloaded library.

mod agent;
mod asked;
mod environment;
mod error;
mod inspect;
mod limit;
mod regions;
mod run;
mod words;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

/// GPU quotas for containers and commands.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    Inspect(inspect::Inspect),
    Limit(limit::Limit),
    Agent(agent::Agent),
}

fn main() -> ExitCode {
    let cli = Cli::command().mut_subcommand("run", |run| run.after_long_help(words::variables()));
    let cli = Cli::from_arg_matches(&cli.get_matches()).unwrap_or_else(|error| error.exit());
    let outcome = match cli.command {
        Command::Run(run) => run.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Limit(limit) => limit.run(),
        Command::Agent(agent) => agent.run(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("gpuquota: {error}");
        error.exit_code()
    })
}
