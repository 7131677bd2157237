//! A plugin's connection for as long as the plugin lives, whatever becomes of the runtime.

use crate::connection::serve;
use crate::error::Error;
use crate::options::Options;
use crate::plugin::Plugin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

/// A connection that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(10);

async fn once<P: Plugin>(plugin: &Arc<P>, options: &Options) -> Error {
    let stream = match timeout(options.patience, UnixStream::connect(&options.socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Error::System(error),
        Err(_) => return Error::Silent("take the connection"),
    };
    match serve(stream, Arc::clone(plugin), options).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Connects the plugin, and again whenever the connection ends. It ends when it is dropped.
pub async fn keep<P: Plugin>(plugin: Arc<P>, options: &Options) {
    let (first, longest) = options.pauses;
    let mut pause = first;
    loop {
        let begun = Instant::now();
        let error = once(&plugin, options).await;
        plugin.disconnected(&error);
        if begun.elapsed() >= GOOD {
            pause = first;
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
