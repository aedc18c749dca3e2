//! The agent's socket: one JSON object a line, both ways.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use mlctl_core::local_protocol::{Layout, Request, Response, WorkloadView, line};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::Settings;
use super::supervisor::{Message, Supervisor, Views};
use super::view::gone;
use crate::{AgentError, disk};

/// Messages that may wait for the supervisor; senders wait beyond.
const QUEUE: usize = 256;
/// The longest request: a spec with its files.
const REQUEST_BYTES: u64 = 16 << 20;

/// How long answers may take to get out once the agent ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves until asked to end.
pub(super) async fn serve(settings: Settings, layout: Layout) -> Result<(), AgentError> {
    let watch_signal = |kind| signal(kind).map_err(AgentError::process("watch the signals of", "the agent"));
    let mut terminate = watch_signal(SignalKind::terminate())?;
    // The terminal it was started from is not its own.
    let _hangup = watch_signal(SignalKind::hangup())?;
    let _interrupt = watch_signal(SignalKind::interrupt())?;

    let socket = layout.agent_socket(&settings.runtime);
    let (tell, messages) = mpsc::channel(QUEUE);
    let supervisor = Supervisor::open(&settings, layout, tell.clone()).await?;
    let views = supervisor.views.subscribe();
    disk::remove(&socket)?;
    // Only now: who connects finds everything taken over.
    let listener = UnixListener::bind(&socket).map_err(AgentError::file("listen on", &socket))?;
    // Held while an answer is on its way: the last one, to `Shutdown`, must get out before we end.
    let (answering, mut answered) = mpsc::channel::<()>(1);
    let busy = answering.downgrade();
    let doors = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(converse(stream, tell.clone(), views.clone(), busy.clone()));
                }
                // Out of descriptors, most likely: some will be given back.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    tokio::select! {
        () = supervisor.run(messages) => {}
        _ = terminate.recv() => {}
    }
    doors.abort();
    drop(answering);
    // Ends with "nobody is left"; a client that does not read is not waited for longer than this.
    let _ = tokio::time::timeout(LAST_ANSWERS, answered.recv()).await;
    disk::remove(&socket)
}

/// Serves one client. A client that goes away in the middle is none of our business.
async fn converse(
    stream: UnixStream,
    tell: mpsc::Sender<Message>,
    views: watch::Receiver<Views>,
    busy: mpsc::WeakSender<()>,
) {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let request = match line::read(&mut reading, REQUEST_BYTES).await {
            Ok(Some(request)) => request,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let _ = send(&mut writing, &Response::not_a_request(&error)).await;
                return;
            }
            Ok(None) | Err(_) => return,
        };
        let Some(guard) = busy.upgrade() else { return };
        let response = match Request::decode(&request) {
            Ok(Request::Watch { names }) => {
                drop(guard);
                let _ = stream_views(&mut reading, &mut writing, views, &names).await;
                return;
            }
            Ok(request) => {
                let (reply, answer) = oneshot::channel();
                if tell.send(Message::Request { request, reply }).await.is_err() {
                    return;
                }
                let Ok(response) = answer.await else { return };
                response
            }
            Err(refusal) => *refusal,
        };
        let sent = send(&mut writing, &response).await;
        drop(guard);
        if sent.is_err() {
            return;
        }
    }
}

/// Streams the workloads named, each at once and at every change, until the client closes.
async fn stream_views(
    reading: &mut BufReader<OwnedReadHalf>,
    writing: &mut OwnedWriteHalf,
    mut views: watch::Receiver<Views>,
    names: &[String],
) -> io::Result<()> {
    let mut told: BTreeMap<String, WorkloadView> = BTreeMap::new();
    let mut first = true;
    loop {
        let current = views.borrow_and_update().clone();
        let wanted = |name: &String| names.is_empty() || names.contains(name);
        for (name, view) in current.workloads.iter().filter(|(name, _)| wanted(name)) {
            if told.get(name) != Some(view) {
                send(writing, &Response::Workload { workload: view.clone() }).await?;
                told.insert(name.clone(), view.clone());
            }
        }
        let absent: Vec<String> = if first { names.to_vec() } else { told.keys().cloned().collect() };
        for name in absent.into_iter().filter(|name| !current.workloads.contains_key(name)) {
            let (last, retired) = (told.remove(&name), current.retired.get(&name).copied());
            send(writing, &Response::Workload { workload: gone(&name, last.as_ref(), retired) }).await?;
        }
        first = false;
        let mut byte = [0];
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return Ok(()) },
            _ = reading.read(&mut byte) => return Ok(()),
        }
    }
}

async fn send(writing: &mut OwnedWriteHalf, response: &Response) -> io::Result<()> {
    writing.write_all(&line::encode(response)?).await
}
