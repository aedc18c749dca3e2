//! The relay's control socket, both ends.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mlctl_core::local_protocol::line;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::table::Table;
use super::{RELAY_PROTOCOL, RelayRequest, RelayResponse, last};
use crate::record::PassedSocket;
use crate::{AgentError, disk};

/// For one question to the relay; it answers from memory.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// The longest message either way: a table with all replicas of a machine is far below.
const MESSAGE_BYTES: usize = 4 << 20;
/// What is read of it at once.
const READ_BYTES: usize = 16 << 10;
/// Between two tries to reach a relay that is just starting.
const RETRY: Duration = Duration::from_millis(20);
/// Between two tries to take a port that somebody has, or to hand over its socket.
const PORT_PAUSE: Duration = Duration::from_millis(250);

/// Takes questions until SIGTERM.
pub(super) async fn serve(socket: &Path, kept: &Path) -> Result<(), AgentError> {
    let table = Arc::new(Table::default());
    // Before anybody can ask for another one: what is kept is older.
    table.set(last::read(kept)).await;
    disk::remove(socket)?;
    let listener = UnixListener::bind(socket).map_err(AgentError::file("listen on", socket))?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(AgentError::process("watch the signals of", "the relay"))?;
    let kept: Arc<Path> = kept.into();
    let mut again = interval(PORT_PAUSE);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = terminate.recv() => return disk::remove(socket),
            _ = again.tick() => table.retry().await,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(converse(stream, Arc::clone(&table), Arc::clone(&kept)));
                }
                // Out of descriptors, most likely: some will be given back.
                Err(_) => sleep(RETRY).await,
            },
        }
    }
}

async fn converse(mut stream: UnixStream, table: Arc<Table>, kept: Arc<Path>) {
    // One question a connection: no answer's descriptor can be taken for another's.
    let Ok((question, socket)) = receive(&stream).await else { return };
    let answer = match serde_json::from_str(&question) {
        Ok(RelayRequest::Attend) => {
            let Ok(answer) = line::encode(&RelayResponse::Hello { protocol: RELAY_PROTOCOL }) else { return };
            if stream.write_all(&answer).await.is_ok() {
                // Until the other side goes: nothing more is asked here.
                let _ = stream.read(&mut [0]).await;
            }
            return;
        }
        Ok(RelayRequest::Table { fronts }) => {
            // A full disk costs what the next relay knows, not this one.
            let _ = last::keep(&kept, &fronts);
            RelayResponse::Table { failed: table.set(fronts).await }
        }
        Ok(RelayRequest::Open) => RelayResponse::Open { open: table.open() },
        Ok(RelayRequest::Hand { service, port }) => match table.passed_socket(&service, port) {
            Ok(socket) => {
                let _ = send(&stream, &RelayResponse::Handed, &socket).await;
                return;
            }
            Err(reason) => RelayResponse::Refused { reason },
        },
        Ok(RelayRequest::Take { service, port }) => match table.take(service, port, socket).await {
            Ok(()) => RelayResponse::Handed,
            Err(reason) => RelayResponse::Refused { reason },
        },
        Err(error) => RelayResponse::Refused { reason: format!("not a request: {error}") },
    };
    // The asker may have gone; the table is set all the same.
    let Ok(answer) = line::encode(&answer) else { return };
    let _ = stream.write_all(&answer).await;
}

/// Sends a short message with a descriptor beside it.
async fn send<T: Serialize>(stream: &UnixStream, message: &T, socket: &OwnedFd) -> io::Result<()> {
    let text = line::encode(message)?;
    stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptors = [socket.as_fd()];
            if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            sendmsg(stream, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)?;
            Ok(())
        })
        .await
}

/// Receives the one line that the other side sends, and the descriptor beside it if one came along.
async fn receive(stream: &UnixStream) -> io::Result<(String, Option<OwnedFd>)> {
    let (mut text, mut socket) = (Vec::new(), None);
    let mut buffer = vec![0; READ_BYTES];
    while !text.ends_with(b"\n") {
        let read = stream
            .async_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = RecvAncillaryBuffer::new(&mut space);
                let into = &mut [IoSliceMut::new(&mut buffer)];
                let received = recvmsg(stream, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
                let passed = ancillary.drain().find_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                    _ => None,
                });
                socket = passed.or(socket.take());
                Ok(received.bytes)
            })
            .await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if text.len() + read > MESSAGE_BYTES {
            let reason = format!("a message is longer than {MESSAGE_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        text.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8(text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok((text, socket))
}

/// Asks the relay one question.
pub(crate) async fn ask(socket: &Path, request: &RelayRequest) -> Result<RelayResponse, AgentError> {
    exchange(socket, request, None).await.map(|(response, _)| response)
}

/// A relay whose end will be seen.
pub(crate) struct Attended {
    stream: UnixStream,
    /// Its [`RELAY_PROTOCOL`]; 0 of one so old that it does not know this greeting.
    pub(crate) protocol: u32,
}

impl Attended {
    /// Waits until that relay has ended.
    pub(crate) async fn ended(mut self) {
        // It says nothing more: whatever is read here is the end.
        let _ = self.stream.read(&mut [0]).await;
    }
}

/// Greets the relay and keeps the conversation, to see the end of it.
pub(crate) async fn attend(relay: &Path) -> Result<Attended, AgentError> {
    let refuse = |reason: String| AgentError::Relay { operation: "attend", reason };
    let greeting = async {
        let mut stream = UnixStream::connect(relay).await?;
        stream.write_all(&line::encode(&RelayRequest::Attend)?).await?;
        let (answer, _) = receive(&stream).await?;
        Ok::<_, io::Error>((stream, answer))
    };
    let (stream, answer) = timeout(ANSWER_WAIT, greeting)
        .await
        .map_err(|_| refuse(format!("no answer within {} s", ANSWER_WAIT.as_secs())))?
        .map_err(|e| refuse(format!("its socket {}: {e}", relay.display())))?;
    match serde_json::from_str(&answer) {
        Ok(RelayResponse::Hello { protocol }) => Ok(Attended { stream, protocol }),
        Ok(RelayResponse::Refused { .. }) => Ok(Attended { stream, protocol: 0 }),
        _ => Err(refuse(format!("it answers {answer}"))),
    }
}

/// Gives the listening socket of a service to every relay that comes after the one that had bound it: its port cannot
/// be bound as long as replicas accept from it. Each of their shims does so; the first one is enough.
pub(crate) async fn keep_socket(passed: PassedSocket, listener: OwnedFd) {
    let PassedSocket { relay, service, port } = passed;
    loop {
        if let Ok(attended) = attend(&relay).await {
            let ended = attended.ended();
            tokio::pin!(ended);
            loop {
                let request = RelayRequest::Take { service: service.clone(), port };
                // Refused while its table does not ask for it: it may not have been told yet.
                let pause = match exchange(&relay, &request, Some(&listener)).await {
                    Ok(_) => None,
                    Err(_) => Some(PORT_PAUSE),
                };
                tokio::select! {
                    () = &mut ended => break,
                    () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
                }
            }
        }
        sleep(RETRY).await;
    }
}

/// Fetches the listening socket of a service.
async fn fetch_socket(relay: &Path, service: &str, port: u16) -> Result<OwnedFd, AgentError> {
    let request = RelayRequest::Hand { service: service.to_owned(), port };
    let (_, listener) = exchange(relay, &request, None).await?;
    let reason = || "no descriptor came with the answer".to_owned();
    listener.ok_or_else(|| AgentError::Relay { operation: "hand over a socket", reason: reason() })
}

/// Fetches the listening socket of a service; tries again for `patience`: relay and shim may start together, and a
/// service that moves has its old port until the new one is bound.
pub(crate) async fn await_socket(
    PassedSocket { relay, service, port }: &PassedSocket,
    patience: Duration,
) -> Result<OwnedFd, AgentError> {
    let deadline = Instant::now() + patience;
    loop {
        match fetch_socket(relay, service, *port).await {
            Err(_) if Instant::now() < deadline => sleep(RETRY).await,
            done => return done,
        }
    }
}

async fn exchange(
    socket: &Path,
    request: &RelayRequest,
    beside: Option<&OwnedFd>,
) -> Result<(RelayResponse, Option<OwnedFd>), AgentError> {
    let conversation = async {
        let mut stream = UnixStream::connect(socket).await?;
        match beside {
            Some(beside) => send(&stream, request, beside).await?,
            None => stream.write_all(&line::encode(request)?).await?,
        }
        receive(&stream).await
    };
    let refuse = |reason: String| AgentError::Relay { operation: "ask", reason };
    let (answer, listener) = timeout(ANSWER_WAIT, conversation)
        .await
        .map_err(|_| refuse(format!("no answer within {} s", ANSWER_WAIT.as_secs())))?
        .map_err(|e| refuse(format!("its socket {}: {e}", socket.display())))?;
    match serde_json::from_str(&answer) {
        Ok(RelayResponse::Refused { reason }) => Err(refuse(reason)),
        Ok(response) => Ok((response, listener)),
        Err(error) => Err(refuse(format!("not an answer: {error}"))),
    }
}
