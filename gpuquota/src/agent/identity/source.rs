//! The sources of names, each in a thread of its own: one that is slow, or never answers, keeps nobody else waiting.

use super::facts::{Fact, Facts, MOST};
use serde::Serialize;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What knows names.
pub trait Source: Send {
    /// What it is called in metrics.
    fn name(&self) -> &'static str;
    /// All that it knows; `None` if that is what it said the last time. It takes bounded time, or its thread is lost.
    fn facts(&mut self) -> io::Result<Option<Vec<Fact>>>;
    /// How often it is asked without need.
    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// The least time between two questions to one source, also where names are missing.
const LEAST: Duration = Duration::from_millis(500);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How a source does.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// The source.
    pub source: &'static str,
    /// What went wrong the last time.
    pub error: Option<String>,
    /// How often something went wrong.
    pub errors: u64,
    /// How many facts it has given.
    pub facts: usize,
}

struct State {
    /// By source, in order of trust.
    said: Vec<(Health, Vec<Fact>)>,
    /// Counts what was asked for and not known.
    wanted: u64,
    /// Which sources have answered, or failed, once.
    answered: Vec<bool>,
    facts: Arc<Facts>,
}

/// All sources together.
pub struct Board {
    state: Mutex<State>,
    missing: Condvar,
    answer: Condvar,
}

impl Board {
    /// Starts a thread for each source; they end with the program.
    pub fn start(sources: Vec<Box<dyn Source>>) -> io::Result<Arc<Self>> {
        let said = sources
            .iter()
            .map(|source| (Health { source: source.name(), error: None, errors: 0, facts: 0 }, Vec::new()));
        let state = State {
            said: said.collect(),
            wanted: 0,
            answered: vec![false; sources.len()],
            facts: Arc::default(),
        };
        let board =
            Arc::new(Self { state: Mutex::new(state), missing: Condvar::new(), answer: Condvar::new() });
        for (at, source) in sources.into_iter().enumerate() {
            let board = Arc::clone(&board);
            thread::Builder::new().name(source.name().to_owned()).spawn(move || board.follow(at, source))?;
        }
        Ok(board)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known now. Waits for no source.
    pub fn facts(&self) -> Arc<Facts> {
        Arc::clone(&self.state().facts)
    }

    /// Somebody misses a name.
    pub fn want(&self) {
        let mut state = self.state();
        state.wanted = state.wanted.wrapping_add(1);
        self.missing.notify_all();
    }

    /// Waits until every source has answered once, so long at most.
    pub fn settle(&self, longest: Duration) {
        let waiting = |state: &mut State| state.answered.contains(&false);
        let _ = self.answer.wait_timeout_while(self.state(), longest, waiting);
    }

    /// How the sources do.
    pub fn health(&self) -> Vec<Health> {
        self.state().said.iter().map(|(health, _)| health.clone()).collect()
    }

    fn follow(&self, at: usize, mut source: Box<dyn Source>) {
        let mut failures = 0u32;
        loop {
            let asked = Instant::now();
            let wanted = self.state().wanted;
            let answer = source.facts();
            failures = if answer.is_ok() { 0 } else { failures.saturating_add(1) };
            self.publish(at, answer);
            let pause = match failures {
                0 => source.period(),
                some => (source.period() * 2u32.saturating_pow(some)).min(LONGEST_PAUSE),
            };
            thread::sleep(LEAST);
            self.wait(asked + pause, wanted, failures == 0);
        }
    }

    /// Until then, or until somebody misses a name.
    fn wait(&self, until: Instant, wanted: u64, for_names: bool) {
        let mut state = self.state();
        while !(for_names && state.wanted != wanted) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.missing.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn publish(&self, at: usize, answer: io::Result<Option<Vec<Fact>>>) {
        let mut state = self.state();
        if let Some(answered) = state.answered.get_mut(at) {
            *answered = true;
        }
        self.answer.notify_all();
        let Some((health, said)) = state.said.get_mut(at) else { return };
        health.error = answer.as_ref().err().map(io::Error::to_string);
        health.errors = health.errors.saturating_add(u64::from(answer.is_err()));
        let Ok(Some(mut facts)) = answer else { return };
        facts.truncate(MOST);
        health.facts = facts.len();
        if *said != facts {
            *said = facts;
            state.facts = Arc::new(Facts::of(state.said.iter().map(|(_, facts)| facts.as_slice())));
        }
    }
}
