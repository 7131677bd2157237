//! `gpuquota top`: devices, pods, containers and processes, live in a terminal.
//!
//! - [`feed`]: the figures, from a thread of its own; [`history`]: what they were before; [`rows`]: what is listed;
//! - [`view`]: what the user has chosen; [`draw`]: how it looks; [`terminal`]: the terminal, which is always given back.

mod draw;
mod feed;
mod history;
mod rows;
mod terminal;
mod view;

use super::messages::{TERMINAL, refused};
use super::source::Where;
use crate::error::Error;
use crossterm::event::{self, Event};
use draw::{LEAST, Picture};
use feed::Feed;
use history::History;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use terminal::Terminal;
use view::View;

/// How long a key may wait.
const TICK: Duration = Duration::from_millis(100);

/// Watch devices, pods, containers and processes live.
///
/// Keys: q quits, arrows move, s sorts (n, m, g, w, d by name, memory, GPU time, waits, denials), / filters, t is the tree,
/// p shows processes, ? helps.
#[derive(clap::Args)]
pub struct Top {
    /// How often the node is looked at, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    interval: u64,

    #[command(flatten)]
    place: Where,
}

impl Top {
    /// Shows them until the user or a signal ends it.
    pub fn run(self) -> Result<ExitCode, Error> {
        let (columns, lines) = terminal::size().map_err(|why| refused(&TERMINAL, why))?;
        if columns < LEAST.0 || lines < LEAST.1 {
            let why = format!("the terminal has {columns}x{lines}, and {}x{} is the least", LEAST.0, LEAST.1);
            return Err(refused(&TERMINAL, why));
        }
        // What is wrong at the start is told on a terminal that is as it was.
        let mut source = self.place.open()?;
        let first = source.look()?;
        let is_over = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&is_over))
                .map_err(Error::system("listen for signals"))?;
        }
        let shown = source.shown();
        let feed = Feed::start(source, Duration::from_secs(self.interval))
            .map_err(Error::system("start a thread"))?;
        let mut terminal = Terminal::take().map_err(Error::system("use the terminal"))?;
        let mut picture = Picture::new(shown, first);
        let mut history = History::default();
        history.take(&picture.node);
        let mut view = View::default();
        while !is_over.load(Relaxed) && !view.is_over {
            #[cfg(debug_assertions)]
            assert!(!terminal::panics("draw"), "as the test wants it");
            if let Some(told) = feed.latest() {
                match told {
                    Ok(node) => {
                        history.take(&node);
                        picture.node = node;
                        picture.trouble = None;
                    }
                    Err(why) => picture.trouble = Some(why),
                }
            }
            let drawn = terminal.draw(|frame| draw::draw(frame, &picture, &history, &mut view));
            drawn.map_err(Error::system("write to the terminal"))?;
            // A terminal that is gone gives an error: there is nobody left to show anything to.
            match event::poll(TICK) {
                Ok(false) => {}
                Ok(true) => match event::read() {
                    Ok(Event::Key(key)) => view.key(key),
                    Ok(_) => {}
                    Err(_) => break,
                },
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
