//! `gpuquota man`: one manual page for the program and one for each command, as packages ship them.

use crate::error::Error;
use crate::manual::{self, Entry};
use clap_mangen::roff::{Roff, bold, roman};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Write the manual pages into a directory.
#[derive(clap::Args)]
pub struct Man {
    /// The directory; it is made if it is not there.
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath, required_unless_present = "knobs")]
    directory: Option<PathBuf>,

    /// Print every variable of every engine and what it means, as docs/knobs.md has it, and end.
    #[arg(long)]
    knobs: bool,
}

impl Man {
    /// Writes the pages.
    pub fn run(self) -> Result<ExitCode, Error> {
        if self.knobs {
            print!("{}", manual::knobs::page());
        }
        if let Some(directory) = &self.directory {
            let doing = format!("write manual pages into {}", directory.display());
            fs::create_dir_all(directory).and_then(|()| write(directory)).map_err(Error::system(doing))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write(directory: &Path) -> io::Result<()> {
    // The command that clap adds for `gpuquota help run` says what the pages say.
    let mut program = crate::command().disable_help_subcommand(true);
    program.build();
    let titles: Vec<String> = std::iter::once(&program).chain(program.get_subcommands()).map(title).collect();
    for command in std::iter::once(&program).chain(program.get_subcommands()) {
        let text = page(command, &titles)?;
        fs::write(directory.join(format!("{}.1", title(command))), text)?;
    }
    Ok(())
}

/// `gpuquota` or `gpuquota-run`.
fn title(command: &clap::Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// The day that the pages are of: a release's own, so that two builds of it are alike, else today.
fn date() -> String {
    let seconds = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let time = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let text = humantime::format_rfc3339_seconds(time.unwrap_or_else(SystemTime::now)).to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}

fn page(command: &clap::Command, titles: &[String]) -> io::Result<Vec<u8>> {
    let source = format!("gpuquota {}", env!("CARGO_PKG_VERSION"));
    let page = clap_mangen::Man::new(command.clone()).date(date()).source(source).manual("GPU quotas");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::default();
    let name = command.get_name();
    section(&mut rest, "ENVIRONMENT", &manual::variables(name));
    section(&mut rest, "FILES", &manual::files(name));
    section(&mut rest, "EXIT STATUS", &manual::statuses(name));
    rest.control("SH", ["EXAMPLES"]);
    for (does, example) in manual::examples(name) {
        rest.control("PP", []);
        rest.text([roman(format!("{does}:"))]);
        rest.control("PP", []);
        rest.control("RS", ["4"]);
        rest.text([bold(*example)]);
        rest.control("RE", []);
    }
    rest.control("SH", ["SEE ALSO"]);
    let others: Vec<String> =
        titles.iter().filter(|other| **other != title(command)).map(|other| format!("{other}(1)")).collect();
    rest.text([roman(others.join(", "))]);
    rest.to_writer(&mut text)?;
    Ok(text)
}

/// Names with what they mean; no section where there are none.
fn section(page: &mut Roff, heading: &str, entries: &[Entry]) {
    if entries.is_empty() {
        return;
    }
    page.control("SH", [heading]);
    for entry in entries {
        page.control("TP", []);
        page.text([bold(entry.name.as_str())]);
        page.text([roman(entry.means.as_str())]);
    }
}
