//! How a process comes to its machine: by a state file, and gives back what its dead held.
//!
//! # Safety
//! Hands out one state per process as `&'static State`, from a pointer that is never freed.
#![allow(unsafe_code)]

use std::path::Path;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::state::{OpenError, STATE_ENV, State};

impl State {
    /// Opens the state file at `path`, takes a process slot and gives back what the dead held.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path) -> Result<State, OpenError> {
        let state = State::enter(path)?;
        state.reap_on_arrival();
        Ok(state)
    }
}

/// Opens the machine that `CUDA_SIM_STATE` names and takes a process slot, once per process; a forked child
/// that asks gets a slot of its own.
///
/// # Errors
/// [`OpenError`], with text for people.
pub fn open_from_env() -> Result<&'static State, OpenError> {
    static OPENED: AtomicPtr<State> = AtomicPtr::new(std::ptr::null_mut());
    static OPENING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    // SAFETY: a non-null pointer was leaked from a Box below and is never freed.
    let opened = || unsafe { OPENED.load(Acquire).as_ref() }.filter(|state| !state.is_forked());
    if let Some(state) = opened() {
        return Ok(state);
    }
    // Another thread of the parent may have held this lock at fork: a child must not wait for it forever.
    let _guard = OPENING.try_lock();
    if let Some(state) = opened() {
        return Ok(state);
    }
    let path = std::env::var_os(STATE_ENV).ok_or(OpenError::NotSimulated)?;
    let state: &'static State = Box::leak(Box::new(State::open(Path::new(&path))?));
    OPENED.store((state as *const State).cast_mut(), Release);
    Ok(state)
}
