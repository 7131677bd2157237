//! The runtime as a plugin calls it.

use crate::api;
use crate::error::{Error, Status, code};
use crate::mux;
use crate::ttrpc::{self, Answer, Request, decode};
use prost::Message;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// The service that a runtime is.
const SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// Messages that are to be sent, by the number of their connection.
pub type Outgoing = mpsc::Sender<(u32, Vec<u8>)>;
type Waiting = HashMap<u32, oneshot::Sender<Answer>>;

/// The runtime, for calls of the plugin.
#[derive(Clone, Debug)]
pub struct Runtime {
    outgoing: Outgoing,
    waiting: Arc<Mutex<Waiting>>,
    next: Arc<AtomicU32>,
    patience: Duration,
}

impl Runtime {
    pub(crate) fn new(outgoing: Outgoing, patience: Duration) -> Self {
        // Calls of a client have odd numbers.
        Self { outgoing, waiting: Arc::default(), next: Arc::new(AtomicU32::new(1)), patience }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the plugin.
    pub(crate) async fn register(&self, name: String, index: u8) -> Result<(), Error> {
        let request = api::RegisterPluginRequest {
            plugin_name: name,
            plugin_idx: format!("{index:02}"),
            nri_version: String::new(),
        };
        self.call("RegisterPlugin", request.encode_to_vec()).await.map(drop)
    }

    /// An answer has come.
    pub(crate) fn answered(&self, stream: u32, answer: Answer) {
        if let Some(waiting) = self.waiting().remove(&stream) {
            // Who asked may have lost patience.
            let _ = waiting.send(answer);
        }
    }

    /// Asks for changes of containers; those that failed are the answer.
    ///
    /// # Errors
    /// The runtime refused, is gone, or did not answer in time.
    pub async fn update_containers(
        &self,
        request: &api::UpdateContainersRequest,
    ) -> Result<Vec<api::ContainerUpdate>, Error> {
        let answer = self.call("UpdateContainers", request.encode_to_vec()).await?;
        let answer: api::UpdateContainersResponse = decode(&answer).map_err(Error::Refused)?;
        Ok(answer.failed)
    }

    async fn call(&self, method: &str, payload: Vec<u8>) -> Result<Vec<u8>, Error> {
        let stream = self.next.fetch_add(2, Relaxed);
        let timeout_nano = i64::try_from(self.patience.as_nanos()).unwrap_or(0);
        let request =
            Request { service: SERVICE.to_owned(), method: method.to_owned(), payload, timeout_nano };
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(stream, sender);
        let sent = self.outgoing.send((mux::RUNTIME, ttrpc::request(stream, &request))).await;
        let answered = match sent {
            Ok(()) => timeout(self.patience, answer).await,
            Err(_) => Ok(Ok(Err(Status::new(code::UNKNOWN, "the connection has ended")))),
        };
        self.waiting().remove(&stream);
        match answered {
            Ok(Ok(answer)) => answer.map_err(Error::Refused),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Silent("answer")),
        }
    }
}
