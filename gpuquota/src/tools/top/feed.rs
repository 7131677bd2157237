//! Looks at the node in a thread of its own: an agent that does not answer holds up no key.

use crate::tools::node::Node;
use crate::tools::source::Source;
use std::io;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

/// What the node is like, as it comes.
pub struct Feed(Receiver<Result<Node, String>>);

impl Feed {
    pub fn start(mut source: Source, every: Duration) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(1);
        let watch = move || {
            loop {
                thread::sleep(every);
                #[cfg(debug_assertions)]
                assert!(!super::terminal::panics("look"), "as the test wants it");
                if sender.send(source.look().map_err(|error| error.to_string())).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("look".to_owned()).spawn(watch)?;
        Ok(Self(receiver))
    }

    /// The newest look that has come since the last time.
    pub fn latest(&self) -> Option<Result<Node, String>> {
        self.0.try_iter().last()
    }
}
