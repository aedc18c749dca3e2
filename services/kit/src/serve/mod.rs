//! The serve loop: accepts connections, answers them, drains them.
//!
//! Why our own and not `axum::serve`: that one installs no timer, so a client that sends its header byte by byte
//! holds a connection for ever, it has no connection cap, and its graceful shutdown has no end. And a drain must not
//! lose a request to the race between our close of an idle connection and the client's next request on it.
//!
//! Drain, from the request to stop on: no new connections; every answer says `Connection: close`; an idle connection
//! stays open for one more request until the drain time is over, then it is closed; what is still being answered has
//! the same time once more, then it is cut off.

mod connection;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::shutdown::Shutdown;
use connection::Stage;

/// Limits of the serve loop.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Longest time from the first byte of a request (or the connect) to the end of its header.
    pub header_time: Duration,
    /// Longest header with its request line, in bytes; more is answered 431.
    pub header_bytes: usize,
    /// How long an idle connection is kept; longer than clients keep theirs, so that they close first.
    pub idle: Duration,
    /// How long a client may take no byte of an answer that waits for it.
    pub stall: Duration,
    /// How long idle connections are kept for one more request once draining; in flight requests get it once more.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            header_time: Duration::from_secs(10),
            header_bytes: 32 << 10,
            idle: Duration::from_secs(120),
            stall: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}

/// The serve loop ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket broke.
    #[error("cannot accept connections on {address}")]
    Accept {
        /// The listening address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}

/// Answers connections until `shutdown`, then drains; returns when no connection is open or every deadline passed.
/// `shared` means that other processes accept from the same socket.
///
/// # Errors
/// [`ServeError`] when the listening socket is unusable.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    shared: bool,
    limits: Limits,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let (stage, stages) = watch::channel(Stage::Open);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut backoff = Backoff::default();
    loop {
        let slot = tokio::select! {
            biased;
            () = shutdown.draining() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            biased;
            () = shutdown.draining() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff.reset();
                start(stream, peer, slot, &router, limits, &stages);
            }
            Err(error) => backoff.wait(address, error).await?,
        }
    }
    if shared {
        drop(listener);
    } else {
        // Connections that the kernel accepted for us would be reset when the socket closes: answer them too.
        for (stream, peer) in queued(listener) {
            let Ok(slot) = slots.clone().try_acquire_owned() else { break };
            start(stream, peer, slot, &router, limits, &stages);
        }
    }
    stage.send_replace(Stage::Draining);
    drain(&slots, limits, &stage, &shutdown).await;
    Ok(())
}

/// The connections that wait in the queue of a socket, which closes with this.
fn queued(listener: TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    // Asked past the event loop, which may not have been told of them yet.
    let socket = listener.into_std().ok();
    std::iter::from_fn(move || {
        let (stream, peer) = socket.as_ref()?.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some((TcpStream::from_std(stream).ok()?, peer))
    })
}

fn start(
    stream: TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
    router: &Router,
    limits: Limits,
    stages: &watch::Receiver<Stage>,
) {
    // Answers are small; waiting to fill a packet only adds latency. Failing to say so is no reason to refuse.
    stream.set_nodelay(true).ok();
    let connection = connection::run(stream, peer, router.clone(), limits, stages.clone());
    tokio::spawn(async move {
        connection.await;
        drop(slot);
    });
}

async fn drain(slots: &Semaphore, limits: Limits, stage: &watch::Sender<Stage>, shutdown: &Shutdown) {
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    // Holding every slot means that no connection is open.
    let finished = async {
        drop(slots.acquire_many(all).await);
    };
    let staged = async {
        tokio::time::sleep(limits.drain).await;
        stage.send_replace(Stage::Closing);
        tokio::time::sleep(limits.drain).await;
        let open = limits.connections - slots.available_permits();
        tracing::warn!(open, "the drain time is over: cutting off what is still being answered");
    };
    tokio::select! {
        biased;
        () = finished => {}
        () = shutdown.aborted() => {}
        () = staged => {}
    }
    stage.send_replace(Stage::Cut);
}

/// Waits between failed accepts: out of descriptors or memory, the loop must neither spin nor give up.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn reset(&mut self) {
        self.failures = 0;
    }

    async fn wait(&mut self, address: SocketAddr, error: io::Error) -> Result<(), ServeError> {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput};
        match error.kind() {
            // The peer went away while it was waiting.
            ConnectionAborted | ConnectionRefused | ConnectionReset => return Ok(()),
            InvalidInput => return Err(ServeError::Accept { address, source: error }),
            _ => {}
        }
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(%error, %address, "cannot accept a connection, trying again");
        let wait = Duration::from_millis(50).saturating_mul(1 << self.failures.min(4));
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
