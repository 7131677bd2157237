//! Who may talk to the agent at a time. When all seats are taken, the connection that has said nothing for longest loses
//! its seat; so silent clients, however many, cost nobody a scrape.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::sleep;

struct Taken {
    asked: Arc<AtomicBool>,
    task: AbortHandle,
}

#[derive(Default)]
struct Table {
    next: u64,
    taken: BTreeMap<u64, Taken>,
}

/// All seats.
pub struct Seats {
    room: usize,
    table: Mutex<Table>,
}

/// One seat; it is free again when this value goes.
pub struct Seat {
    seats: Arc<Seats>,
    number: u64,
    asked: Arc<AtomicBool>,
}

impl Seats {
    pub fn new(room: usize) -> Self {
        Self { room, table: Mutex::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a conversation in a seat; who loses its seat for it is the oldest one that has not asked for anything, else the
    /// oldest.
    pub fn take<F: Future<Output = ()> + Send + 'static>(self: Arc<Self>, talk: impl FnOnce(Seat) -> F) {
        let mut table = self.table();
        while table.taken.len() >= self.room {
            let silent = table.taken.iter().find(|(_, taken)| !taken.asked.load(Relaxed));
            let Some(oldest) = silent.or(table.taken.iter().next()).map(|(number, _)| *number) else { break };
            if let Some(taken) = table.taken.remove(&oldest) {
                taken.task.abort();
            }
        }
        let number = table.next;
        table.next += 1;
        let asked = Arc::new(AtomicBool::new(false));
        let seat = Seat { seats: Arc::clone(&self), number, asked: Arc::clone(&asked) };
        // The task may end at once: it waits for the table, and is in it by then.
        let task = tokio::spawn(talk(seat)).abort_handle();
        table.taken.insert(number, Taken { asked, task });
    }

    /// Waits until no seat is taken.
    pub async fn empty(&self) {
        while !self.table().taken.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Seat {
    /// The client has said what it wants.
    pub fn has_asked(&self) {
        self.asked.store(true, Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.table().taken.remove(&self.number);
    }
}
