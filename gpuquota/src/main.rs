//! gpuquota: run a command under a GPU quota, look at a quota, change it, serve a node's quotas.
//!
//! One file per subcommand; all text for people is here. The rules are elsewhere: values in `quota::limits`, the
//! file in `region`, enforcement in the preloaded library.

mod agent;
mod asked;
mod cdi;
mod changes;
mod completions;
mod enforce;
mod environment;
mod error;
mod given;
mod inspect;
mod install;
mod kubelet;
mod library;
mod limit;
mod limits_file;
mod man;
mod manual;
mod ps;
mod regions;
mod run;
mod slice;
mod tools;
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
    Ps(ps::Ps),
    Top(tools::top::Top),
    Why(tools::why::Why),
    Doctor(tools::doctor::Doctor),
    Events(tools::events::Events),
    Snapshot(tools::snapshot::Snapshot),
    Messages(tools::messages::Messages),
    Agent(agent::Agent),
    Install(install::Install),
    Uninstall(install::Uninstall),
    Status(install::Status),
    Cdi(cdi::Cdi),
    DevicePlugin(kubelet::device_plugin::DevicePlugin),
    Dra(kubelet::dra::Dra),
    Enforce(enforce::Enforce),
    Completions(completions::Completions),
    Man(man::Man),
}

/// The whole command line. Parsing, completions and manual pages are all of this one.
fn command() -> clap::Command {
    manual::with_examples(Cli::command())
}

fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| name == regions::SETTLE) {
        return if regions::settle() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    let outcome = match cli.command {
        Command::Run(run) => run.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Limit(limit) => limit.run(),
        Command::Ps(ps) => ps.run(),
        Command::Top(top) => top.run(),
        Command::Why(why) => why.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Events(events) => events.run(),
        Command::Snapshot(snapshot) => snapshot.run(),
        Command::Messages(messages) => messages.run(),
        Command::Agent(agent) => agent.run(),
        Command::Install(install) => install.run(),
        Command::Uninstall(uninstall) => uninstall.run(),
        Command::Status(status) => status.run(),
        Command::Cdi(cdi) => cdi.run(),
        Command::DevicePlugin(plugin) => plugin.run(),
        Command::Dra(dra) => dra.run(),
        Command::Enforce(enforce) => enforce.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    };
    outcome.unwrap_or_else(|error| {
        // Names in it may be a tenant's.
        eprintln!("gpuquota: {}", regions::harmless(&error.to_string()));
        error.exit_code()
    })
}
