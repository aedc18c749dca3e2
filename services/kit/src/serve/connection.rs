//! One connection: when it may wait, when it is late, how it ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::ServiceExt;

use super::Limits;

/// How far the whole server's drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Serving.
    Open,
    /// Answers close their connection; idle ones wait for one more request.
    Draining,
    /// Idle connections are closed; what is being answered goes on.
    Closing,
    /// Everything ends.
    Cut,
}

/// What the connection is doing, and since when its client takes nothing of an answer.
#[derive(Clone, Copy, Debug)]
struct Activity {
    doing: Doing,
    stalled: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Doing {
    /// Nothing arrived yet, or a header is arriving, since then.
    Reading(Instant),
    /// A request is being answered.
    Answering,
    /// The last answer is complete since then.
    Idle(Instant),
}

/// Shared by the socket, the service and the task of one connection; all three run on that one task.
type Shared = Arc<Mutex<Activity>>;

/// Answers one connection to its end.
pub(super) async fn run<S>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    mut stages: watch::Receiver<Stage>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let doing = Doing::Reading(Instant::now());
    let activity: Shared = Arc::new(Mutex::new(Activity { doing, stalled: None }));
    let socket = TokioIo::new(Watched { stream, activity: activity.clone() });
    let service = {
        let (activity, stages) = (activity.clone(), stages.clone());
        service_fn(move |mut request: Request<Incoming>| {
            activity.lock().doing = Doing::Answering;
            request.extensions_mut().insert(ConnectInfo(peer));
            let (router, activity, stages) = (router.clone(), activity.clone(), stages.clone());
            async move {
                let Ok(mut response) = router.oneshot(request).await;
                if *stages.borrow() >= Stage::Draining {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response.map(|body| Answer { body, activity }))
            }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Ours below: hyper's would also close connections that idle between two requests, after the same short
        // time, and lose the request that is already on its way.
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes)
        .max_buf_size((limits.header_bytes * 2).max(64 << 10))
        .serve_connection(socket, service);
    let mut connection = pin!(connection);
    let mut timer = pin!(sleep_until(Instant::now() + limits.header_time));
    let mut closing = false;
    loop {
        let step = poll_fn(|cx| {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Step::Ended(ended));
            }
            overdue(*activity.lock(), limits, timer.as_mut(), cx).map(|()| Step::Overdue)
        });
        tokio::select! {
            biased;
            step = step => match step {
                Step::Ended(Ok(())) => return,
                Step::Ended(Err(error)) => {
                    tracing::debug!(%peer, %error, "a connection ended early");
                    return;
                }
                Step::Overdue => {
                    tracing::debug!(%peer, "closing a connection that was silent for too long");
                    return;
                }
            },
            changed = stages.changed() => {
                let stage = if changed.is_ok() { *stages.borrow_and_update() } else { Stage::Cut };
                if stage == Stage::Cut {
                    return;
                }
                if stage == Stage::Closing && !closing {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

enum Step {
    Ended(hyper::Result<()>),
    Overdue,
}

/// Ready when the connection has waited longer than what it is doing allows. Called after every poll of the
/// connection, so the timer always follows the present activity.
fn overdue(activity: Activity, limits: Limits, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    let deadline = match (activity.stalled, activity.doing) {
        (Some(since), _) => since + limits.stall,
        (None, Doing::Reading(since)) => since + limits.header_time,
        (None, Doing::Idle(since)) => since + limits.idle,
        (None, Doing::Answering) => return Poll::Pending,
    };
    if timer.deadline() != deadline {
        timer.as_mut().reset(deadline);
    }
    timer.poll(cx)
}

/// The socket; notes the first byte of a request after a pause, and a client that takes no more bytes.
struct Watched<S> {
    stream: S,
    activity: Shared,
}

impl<S> Watched<S> {
    fn written(&self, polled: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        let mut activity = self.activity.lock();
        if polled.is_pending() {
            activity.stalled.get_or_insert_with(Instant::now);
        } else {
            activity.stalled = None;
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            let mut activity = self.activity.lock();
            if let Doing::Idle(_) = activity.doing {
                activity.doing = Doing::Reading(Instant::now());
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A response body; its end (or its loss) makes the connection idle.
struct Answer {
    body: Body,
    activity: Shared,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
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
        self.activity.lock().doing = Doing::Idle(Instant::now());
    }
}
