//! A server of gRPC on a socket: which method answers is the service's.

use futures_util::Stream;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::UnixListener;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// A request as it comes.
pub type Call = hyper::Request<Incoming>;
/// An answer as it goes.
pub type Answer = hyper::Response<Body>;

/// Which method answers.
pub trait Service: Send + Sync + 'static {
    /// Answers a call, by its path.
    fn answer(&self, call: Call) -> impl Future<Output = Answer> + Send;
}

/// Serves until it is dropped. Each connection has a task of its own, so one that is slow holds up no other.
pub async fn serve<S: Service>(listener: &UnixListener, service: Arc<S>) -> Infallible {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptors are left: some come back.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        while tasks.try_join_next().is_some() {}
        let service = Arc::clone(&service);
        let answer = service_fn(move |call| {
            let service = Arc::clone(&service);
            async move { Ok::<_, Infallible>(service.answer(call).await) }
        });
        tasks.spawn(async move {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // A peer that breaks off has nothing to be told.
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// Answers a method that has one message each way.
pub async fn unary<Q, A, F>(call: Call, answer: impl Fn(Q) -> F + Send) -> Answer
where
    Q: Message + Default + Send + Sync + 'static,
    A: Message + Send + Sync + 'static,
    F: Future<Output = Result<A, Status>> + Send,
{
    let service = tower::service_fn(move |request: Request<Q>| {
        let answered = answer(request.into_inner());
        async move { answered.await.map(Response::new) }
    });
    Grpc::new(ProstCodec::<A, Q>::default()).unary(service, call).await
}

/// Answers a method with a stream.
pub async fn stream<Q, A, S>(call: Call, answer: impl Fn(Q) -> S + Send) -> Answer
where
    Q: Message + Default + Send + Sync + 'static,
    A: Message + Send + Sync + 'static,
    S: Stream<Item = Result<A, Status>> + Send + 'static,
{
    let service = tower::service_fn(move |request: Request<Q>| {
        let answers = answer(request.into_inner());
        async move { Ok::<_, Status>(Response::new(answers)) }
    });
    Grpc::new(ProstCodec::<A, Q>::default()).server_streaming(service, call).await
}

/// Answers that there is no such method.
pub fn unknown(call: &Call) -> Answer {
    Status::unimplemented(format!("there is no method {}", call.uri().path())).into_http()
}
