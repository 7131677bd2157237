//! The node as an agent would tell it, for tools where none runs.

use super::card::{self, Card, View};
use super::history::History;
use super::identity::{Naming, Sources};
use super::looker::Looker;
use super::snapshot::Snapshot;
use super::who::Who;
use crate::error::Error;
use crate::regions::{Index, Places};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

/// How long what has ended is told; and of how many devices of containers anything is told.
const GRACE: Duration = Duration::from_secs(60);
const DEVICES: usize = 4096;

/// Looks at the node, as often as it is asked.
pub struct Look {
    index: Index,
    naming: Arc<Naming>,
    card: Option<Card>,
    looker: Looker,
    view: View,
}

impl Look {
    pub fn new(sources: &Sources, places: Places) -> Result<Self, Error> {
        let naming = Arc::new(Naming::start(sources)?);
        naming.settle();
        let looker = Looker::new(Who::without_watch(Arc::clone(&naming)), GRACE, DEVICES);
        Ok(Self { index: Index::new(places), naming, card: None, looker, view: View::default() })
    }

    /// The node now.
    pub fn now(&mut self) -> Snapshot {
        if self.card.is_none() {
            self.card = Card::open().ok();
        }
        self.view = match &self.card {
            Some(card) => card::see(card, &self.view.devices, &self.naming, self.index.regions()),
            None => View::default(),
        };
        self.looker.look_with(&self.index, Arc::new(self.view.clone()))
    }

    /// So many looks, so far apart, as an agent would tell its last minutes.
    pub fn watch(&mut self, looks: u32, apart: Duration) -> serde_json::Result<String> {
        let history = Mutex::new(History::default());
        for look in 0..looks {
            if look != 0 {
                sleep(apart);
            }
            self.now();
            self.looker.glance(&self.index, &history);
        }
        let history = history.into_inner().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_string(&history.told())
    }
}
