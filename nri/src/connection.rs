//! One connection to a runtime, from registration to its end.

use crate::api;
use crate::calls;
use crate::error::{Error, Status, code};
use crate::mux;
use crate::options::Options;
use crate::plugin::Plugin;
use crate::runtime::{Outgoing, Runtime};
use crate::ttrpc::{self, Answer, Buffer, Received, Request, decode};
use prost::Message;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Requests that a plugin works on at a time; more wait in the socket.
const AT_A_TIME: usize = 16;
/// Messages that wait to be sent.
const QUEUE: usize = 64;
/// Bytes of all pods and containers of a runtime together.
const SYNCHRONIZED: usize = 256 << 20;

/// What the parts of a Synchronize request have brought so far.
#[derive(Default)]
struct Parts {
    pods: Vec<api::PodSandbox>,
    containers: Vec<api::Container>,
    bytes: usize,
}

struct Connection<P> {
    plugin: Arc<P>,
    runtime: Runtime,
    outgoing: Outgoing,
    room: Arc<Semaphore>,
    configured: Arc<Notify>,
    parts: Parts,
}

/// Registers the plugin with the runtime at the other end and serves it until the connection ends.
///
/// # Errors
/// Always: why it has ended.
pub async fn serve<P: Plugin>(
    stream: impl AsyncRead + AsyncWrite,
    plugin: Arc<P>,
    options: &Options,
) -> Result<std::convert::Infallible, Error> {
    let (reader, mut writer) = tokio::io::split(Box::pin(stream));
    let (outgoing, mut queue) = mpsc::channel::<(u32, Vec<u8>)>(QUEUE);
    let runtime = Runtime::new(outgoing.clone(), options.patience);
    let configured = Arc::new(Notify::new());
    let mut connection = Connection {
        plugin,
        runtime: runtime.clone(),
        outgoing,
        room: Arc::new(Semaphore::new(AT_A_TIME)),
        configured: Arc::clone(&configured),
        parts: Parts::default(),
    };
    let receive = async {
        let mut reader = BufReader::new(reader);
        let mut buffers: [(u32, Buffer); 2] =
            [(mux::PLUGIN, Buffer::default()), (mux::RUNTIME, Buffer::default())];
        loop {
            let (number, bytes) = mux::read(&mut reader).await?;
            let Some((_, buffer)) = buffers.iter_mut().find(|(known, _)| *known == number) else { continue };
            buffer.push(&bytes);
            while let Some(received) = buffer.next()? {
                connection.take(number, received).await?;
            }
        }
    };
    let send = async {
        while let Some((number, message)) = queue.recv().await {
            mux::write(&mut writer, number, &message).await?;
        }
        Err::<std::convert::Infallible, Error>(Error::Closed)
    };
    let register = async {
        runtime.register(options.name.clone(), options.index).await?;
        if timeout(options.patience, configured.notified()).await.is_err() {
            return Err(Error::Silent("configure the plugin"));
        }
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = receive => ended,
        ended = send => ended,
        ended = register => ended,
    };
    let _ = writer.shutdown().await;
    ended
}

impl<P: Plugin> Connection<P> {
    async fn take(&mut self, number: u32, received: Received) -> Result<(), Error> {
        match received {
            Received::Response(stream, answer) if number == mux::RUNTIME => {
                self.runtime.answered(stream, answer);
            }
            Received::Request(stream, request) if number == mux::PLUGIN => {
                self.request(stream, request).await?
            }
            Received::Nonsense(stream) if number == mux::PLUGIN => {
                let refused = Status::new(code::INVALID_ARGUMENT, "the request is no message");
                self.answer(stream, Err(refused)).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn answer(&self, stream: u32, answer: Answer) -> Result<(), Error> {
        let message = (mux::PLUGIN, ttrpc::response(stream, answer));
        self.outgoing.send(message).await.map_err(|_| Error::Closed)
    }

    async fn request(&mut self, stream: u32, request: Request) -> Result<(), Error> {
        if request.service != calls::SERVICE {
            let message = format!("there is no service {:?}", request.service);
            return self.answer(stream, Err(Status::new(code::UNIMPLEMENTED, message))).await;
        }
        let work: Box<dyn FnOnce(&P) -> Answer + Send> = match request.method.as_str() {
            "Configure" => {
                let (runtime, configured) = (self.runtime.clone(), Arc::clone(&self.configured));
                Box::new(move |plugin| {
                    let request: api::ConfigureRequest = decode(&request.payload)?;
                    plugin.configure(&request, &runtime)?;
                    configured.notify_one();
                    Ok(api::ConfigureResponse { events: plugin.events().bits() }.encode_to_vec())
                })
            }
            "Synchronize" => match self.collect(&request.payload)? {
                Err(status) => return self.answer(stream, Err(status)).await,
                Ok(None) => {
                    let more = api::SynchronizeResponse { update: Vec::new(), more: true };
                    return self.answer(stream, Ok(more.encode_to_vec())).await;
                }
                Ok(Some(Parts { pods, containers, .. })) => Box::new(move |plugin| {
                    let update = plugin.synchronize(pods, containers)?;
                    Ok(api::SynchronizeResponse { update, more: false }.encode_to_vec())
                }),
            },
            _ => Box::new(move |plugin| calls::call(plugin, &request)),
        };
        // Nobody closes it.
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| Error::Closed)?;
        let (plugin, outgoing) = (Arc::clone(&self.plugin), self.outgoing.clone());
        spawn_blocking(move || {
            let answer = work(&plugin);
            drop(room);
            // The runtime may be gone.
            let _ = outgoing.blocking_send((mux::PLUGIN, ttrpc::response(stream, answer)));
        });
        Ok(())
    }

    /// Adds a part of the runtime's pods and containers; all of them, if it was the last.
    fn collect(&mut self, payload: &[u8]) -> Result<Result<Option<Parts>, Status>, Error> {
        let request: api::SynchronizeRequest = match decode(payload) {
            Ok(request) => request,
            Err(status) => return Ok(Err(status)),
        };
        self.parts.bytes += payload.len();
        if self.parts.bytes > SYNCHRONIZED {
            return Err(Error::Protocol("more pods and containers than a node can have".to_owned()));
        }
        self.parts.pods.extend(request.pods);
        self.parts.containers.extend(request.containers);
        Ok(Ok((!request.more).then(|| std::mem::take(&mut self.parts))))
    }
}
