//! Clients that ask all the while and know of each request that failed whose connection it was on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Time for one request; beyond it nobody waits.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two requests of one client.
const PAUSE: Duration = Duration::from_millis(30);

/// A service to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) service: &'static str,
    pub(super) port: u16,
    /// Clients that use their connection again, and as many that do not.
    pub(super) clients: usize,
}

/// A request without a good answer.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) service: &'static str,
    pub(super) id: u64,
    pub(super) began: Instant,
    pub(super) failed: Instant,
    /// Who answered on that connection before, and when it was made; nobody on one that was made for this request.
    pub(super) peer: Option<(i32, Instant)>,
    pub(super) reason: String,
}

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) service: &'static str,
    pub(super) id: u64,
    pub(super) by: i32,
}

/// What clients have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) answered: Vec<Answered>,
    pub(super) failures: Vec<Failure>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    pause: AtomicBool,
    next: AtomicU64,
    connected: AtomicU64,
    seen: Mutex<Seen>,
}

/// All clients.
pub(super) struct Clients {
    state: Arc<State>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    pub(super) fn start(services: &[Asked]) -> Self {
        let state = Arc::new(State::default());
        let each = services.iter().flat_map(|asked| {
            let both = [true, false].into_iter();
            both.flat_map(move |again| std::iter::repeat_n((*asked, again), asked.clients))
        });
        let tasks =
            each.map(|(asked, again)| tokio::spawn(client(asked, again, Arc::clone(&state)))).collect();
        Self { state, tasks }
    }

    /// Returns how many were answered so far.
    pub(super) fn answered(&self) -> usize {
        self.state.seen.lock().unwrap().answered.len()
    }

    /// Takes the failures so far.
    pub(super) fn take_failures(&self) -> Vec<Failure> {
        std::mem::take(&mut self.state.seen.lock().unwrap().failures)
    }

    /// Waits until every client has no connection, and keeps them so.
    pub(super) async fn pause(&self) {
        self.state.pause.store(true, Ordering::Release);
        while self.state.connected.load(Ordering::Acquire) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn go_on(&self) {
        self.state.pause.store(false, Ordering::Release);
    }

    /// Ends all clients.
    pub(super) async fn stop(self) -> Seen {
        self.state.stop.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut self.state.seen.lock().unwrap())
    }
}

/// A connection, counted for as long as it is open.
struct Connection {
    stream: TcpStream,
    made: Instant,
    peer: Option<i32>,
    state: Arc<State>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.state.connected.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn client(asked: Asked, again: bool, state: Arc<State>) {
    let mut kept: Option<Connection> = None;
    while !state.stop.load(Ordering::Acquire) {
        sleep(PAUSE).await;
        if state.pause.load(Ordering::Acquire) {
            kept = None;
            continue;
        }
        let id = state.next.fetch_add(1, Ordering::AcqRel);
        let began = Instant::now();
        let peer = kept.as_ref().and_then(|connection| Some((connection.peer?, connection.made)));
        let exchange = ask(asked.port, id, again, kept.take(), &state);
        let result = timeout(LIMIT, exchange).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let mut seen = state.seen.lock().unwrap();
        match result {
            Ok((by, connection)) => {
                seen.answered.push(Answered { service: asked.service, id, by });
                kept = connection;
            }
            Err(reason) => {
                let failed = Instant::now();
                seen.failures.push(Failure { service: asked.service, id, began, failed, peer, reason });
            }
        }
    }
}

/// Asks once; returns who answered, and the connection when it can be used again.
async fn ask(
    port: u16,
    id: u64,
    again: bool,
    kept: Option<Connection>,
    state: &Arc<State>,
) -> Result<(i32, Option<Connection>), String> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => {
            let stream =
                TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| format!("connect: {e}"))?;
            state.connected.fetch_add(1, Ordering::AcqRel);
            Connection { stream, made: Instant::now(), peer: None, state: Arc::clone(state) }
        }
    };
    let keep = if again { "keep-alive" } else { "close" };
    let request = format!("GET /{id} HTTP/1.1\r\nHost: ledger\r\nConnection: {keep}\r\n\r\n");
    connection.stream.write_all(request.as_bytes()).await.map_err(|e| format!("send: {e}"))?;
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        let read = connection.stream.read(&mut buffer).await.map_err(|e| format!("read: {e}"))?;
        if read == 0 {
            return Err(format!("closed after {} bytes of the answer", bytes.len()));
        }
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if body.len() < length.parse().unwrap() {
            continue;
        }
        let by = body.split_whitespace().nth(1).and_then(|pid| pid.parse().ok());
        let by = by.filter(|_| head.starts_with("HTTP/1.1 200")).ok_or_else(|| format!("answered {text}"))?;
        let open = !head.contains("Connection: close");
        connection.peer = Some(by);
        return Ok((by, open.then_some(connection)));
    }
}
