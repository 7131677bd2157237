//! `gpuquota why`: why a container's requests are refused and why it is slow, in sentences with figures.
//!
//! [`answers`] has them, for the agent's page too; [`memory`]: why requests are refused; [`time`]: why it is slow.

mod answer;
pub mod answers;
mod memory;
mod time;

use super::messages::{self, NO_CONTAINER, refused};
use super::output;
use super::source::{Source, Where, is_path};
use crate::environment::Environment;
use crate::error::Error;
use crate::regions::{harmless, shown};
use answer::Answer;
use answers::{Told, Wanted};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Say why a container's requests for memory are refused, and why it is slow.
#[derive(clap::Args)]
pub struct Why {
    /// A container, or a region file. Without it: the region that the environment names.
    ///
    /// A container is named as namespace/pod/container, by a part of that, or by a prefix that no other has.
    container: Option<OsString>,

    /// As JSON, one object.
    #[arg(long)]
    json: bool,

    /// How long it is watched for what slows it down, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    over: u64,

    #[command(flatten)]
    place: Where,
}

impl Why {
    /// Answers.
    pub fn run(self) -> Result<ExitCode, Error> {
        let (mut source, wanted) = self.wanted()?;
        let first = source.look()?;
        let wanted = Wanted::Region(wanted.of(&first)?.path.clone());
        let begun = Instant::now();
        sleep(Duration::from_secs(self.over) + Duration::from_millis(100));
        let second = source.look()?;
        let told = answers::told(&wanted, &first, &second, begun.elapsed(), source.shown())?;
        if self.json {
            return output::write(&output::json(&told));
        }
        let Told { container, taken, source, answers, .. } = &told;
        let mut text = format!("{} by {source}, {}\n", harmless(container), harmless(taken));
        for Answer { message, says, next, .. } in answers {
            text.push_str(&format!(
                "\n{} {}\n  {}\n  Next: {}\n",
                message.code,
                message.title,
                harmless(says),
                harmless(next)
            ));
        }
        output::write(&text)
    }

    fn wanted(&self) -> Result<(Source, Wanted), Error> {
        let path = match &self.container {
            Some(name) if !is_path(name) => {
                return Ok((self.place.open()?, Wanted::Name(shown(Path::new(OsStr::new(name))))));
            }
            Some(path) => PathBuf::from(path),
            None => Environment::inherited().region()?.ok_or_else(|| {
                refused(
                    &NO_CONTAINER,
                    "which container? Name it; `gpuquota inspect` lists those of this node",
                )
            })?,
        };
        let path = std::path::absolute(&path).unwrap_or(path);
        crate::regions::read_path(&path)
            .map_err(|why| refused(&messages::REGION, format!("region {}: {why}", shown(&path))))?;
        let root = path.parent().unwrap_or(Path::new("/")).to_owned();
        let place = Where { agent: None, root: vec![root] };
        Ok((place.open()?, Wanted::Region(shown(&path))))
    }
}
