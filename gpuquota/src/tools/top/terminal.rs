//! The terminal: taken, and given back as it was, however the program ends.

use crossterm::cursor::Show;
use crossterm::{execute, terminal};
use ratatui::DefaultTerminal;
use std::io::{self, IsTerminal};
use std::ops::{Deref, DerefMut};
use std::{mem, panic};

/// Columns and lines of the terminal, or why there is none.
pub fn size() -> Result<(u16, u16), String> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err("input and output have to be a terminal".to_owned());
    }
    match std::env::var("TERM").ok().as_deref() {
        None | Some("" | "dumb" | "unknown") => {
            return Err("the terminal cannot move its cursor (TERM says so)".to_owned());
        }
        Some(_) => {}
    }
    terminal::size().map_err(|error| error.to_string())
}

/// A terminal that is in use.
pub struct Terminal(DefaultTerminal);

impl Terminal {
    /// Takes it. A panic gives it back before it says anything.
    pub fn take() -> io::Result<Self> {
        let taken = ratatui::try_init().map(Self);
        if taken.is_err() {
            // It may have gone half of the way.
            let _ = ratatui::try_restore();
        } else {
            give_back_first();
        }
        taken
    }
}

/// A panic of any thread shows the cursor too, and holds stdout from then on, so that nothing is drawn over its message.
fn give_back_first() {
    let restore = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        mem::forget(io::stdout().lock());
        let _ = execute!(io::stdout(), Show);
        restore(info);
    }));
}

impl Deref for Terminal {
    type Target = DefaultTerminal;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Terminal {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Whether a test wants a panic here; no release asks.
#[cfg(debug_assertions)]
pub fn panics(place: &str) -> bool {
    std::env::var_os("GPUQUOTA_TEST_PANIC").is_some_and(|wanted| wanted == place)
}
