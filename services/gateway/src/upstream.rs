//! One request to an upstream, one answer, and the connection between.

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
use tokio::time::{Instant, Sleep, sleep};

use crate::kept::{Connection, Kept};

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

/// Where one exchange goes.
pub(crate) struct Upstream<'a> {
    /// `HOST:PORT`.
    pub(crate) address: &'a str,
    /// How long it may be silent in the middle of its answer.
    pub(crate) silence: Duration,
    /// Connections that others left.
    pub(crate) kept: &'a Kept,
}

/// Sends a request: on a connection that is kept, where `reuse` allows it, else on a new one. The answer's body holds
/// the connection; read to its end it is kept, dropped before it is closed.
pub(crate) async fn exchange(
    upstream: &Upstream<'_>,
    mut request: Request<Body>,
    reuse: bool,
) -> Result<Response<Body>, Failure> {
    while reuse && let Some(mut connection) = upstream.kept.take(upstream.address).await {
        match connection.sender.try_send_request(request).await {
            Ok(response) => return Ok(held(upstream, response, connection)),
            Err(mut failed) => match failed.take_message() {
                Some(untouched) => request = untouched,
                None => return Err(Failure::Broken(failed.into_error())),
            },
        }
    }
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(upstream.address)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failure::Connect(request, error)),
        Err(_) => return Err(Failure::Connect(request, std::io::ErrorKind::TimedOut.into())),
    };
    // Only latency is lost when the system refuses.
    stream.set_nodelay(true).ok();
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Broken)?;
    let driver = tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "an upstream connection ended early");
        }
    });
    let mut connection = Connection::new(sender, driver);
    match connection.sender.try_send_request(request).await {
        Ok(response) => Ok(held(upstream, response, connection)),
        Err(mut failed) => match failed.take_message() {
            Some(request) => Err(Failure::Unsent(request)),
            None => Err(Failure::Broken(failed.into_error())),
        },
    }
}

fn held(upstream: &Upstream<'_>, response: Response<Incoming>, connection: Connection) -> Response<Body> {
    response.map(|body| {
        Body::new(Answer {
            body,
            ended: false,
            silence: upstream.silence,
            timer: None,
            connection: Some(connection),
            address: upstream.address.to_owned(),
            kept: upstream.kept.clone(),
        })
    })
}

/// An upstream's body; ends with an error when the upstream is silent for too long in the middle of it.
struct Answer {
    body: Incoming,
    ended: bool,
    silence: Duration,
    /// Made when the body first has to be waited for: most come with their head.
    timer: Option<Pin<Box<Sleep>>>,
    connection: Option<Connection>,
    address: String,
    kept: Kept,
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
            this.ended = frame.is_none();
            if let Some(timer) = &mut this.timer {
                timer.as_mut().reset(Instant::now() + this.silence);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(this.silence)));
        match timer.as_mut().poll(cx) {
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

impl Drop for Answer {
    fn drop(&mut self) {
        if (self.ended || self.body.is_end_stream())
            && let Some(connection) = self.connection.take()
        {
            self.kept.keep(&self.address, connection);
        }
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
