//! One connection to an upstream, one request, one answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// An exchange failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection; the request is untouched.
    Connect(Request<Body>, std::io::Error),
    /// The connection ended before a byte of the request was sent; it is untouched.
    Unsent(Request<Body>),
    /// It broke while or after sending.
    Broken(hyper::Error),
}

/// Sends a request on a connection of its own. The answer's body holds the connection; dropping it closes it.
pub(crate) async fn exchange(
    address: &str,
    request: Request<Body>,
    silence: Duration,
) -> Result<Response<Body>, Failure> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failure::Connect(request, error)),
        Err(_) => return Err(Failure::Connect(request, std::io::ErrorKind::TimedOut.into())),
    };
    // Only latency is lost when the system refuses.
    stream.set_nodelay(true).ok();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Broken)?;
    let driver = Driver(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream connection ended early");
        }
    }));
    match sender.try_send_request(request).await {
        Ok(response) => Ok(response.map(|body| Body::new(Answer::new(body, driver, silence)))),
        Err(mut failed) => match failed.take_message() {
            Some(request) => Err(Failure::Unsent(request)),
            None => Err(Failure::Broken(failed.into_error())),
        },
    }
}

/// The task that drives a connection ends with whoever needs it.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An upstream's body; ends with an error when the upstream is silent for too long in the middle of it.
struct Answer {
    body: Incoming,
    silence: Duration,
    timer: Pin<Box<Sleep>>,
    _driver: Driver,
}

impl Answer {
    fn new(body: Incoming, driver: Driver, silence: Duration) -> Self {
        Self { body, silence, timer: Box::pin(sleep(silence)), _driver: driver }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.timer.as_mut().reset(Instant::now() + this.silence);
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        match this.timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(axum::Error::new(Silent)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the upstream fell silent in the middle of its answer")]
struct Silent;

/// A request body that tells whether it was read to its end: who was late, the client or the upstream?
pub(crate) struct Sent {
    body: Body,
    complete: Arc<AtomicBool>,
}

impl Sent {
    /// Wraps a body; the flag turns true when its end was read.
    pub(crate) fn watch(body: Body) -> (Body, Arc<AtomicBool>) {
        let complete = Arc::new(AtomicBool::new(body.is_end_stream()));
        (Body::new(Self { body, complete: complete.clone() }), complete)
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let ended = matches!(polled, Poll::Ready(None)) || self.body.is_end_stream();
        if ended {
            self.complete.store(true, Ordering::Release);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
