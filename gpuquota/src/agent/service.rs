//! What the agent asks of the system it runs in: descriptors, and to be told of to the service manager.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use std::thread;
use std::time::Duration;

/// Lets this process open as many files as it may at most: each region is one.
pub fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Tells the service manager, if there is one, that the agent serves; then, as often as it wants, that `lives` says so still.
pub fn ready(lives: impl Fn() -> bool + Send + 'static) {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let every = (within / 3).max(Duration::from_millis(1));
    let _ = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        loop {
            if lives() {
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
            thread::sleep(every);
        }
    });
}

/// Tells it that the agent was asked to end.
pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}
