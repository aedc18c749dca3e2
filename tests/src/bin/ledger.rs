//! A small HTTP server that keeps books: each request is written down when it begins and before it is answered, each
//! line of its log is numbered. What a test was told can so be held against what is there after a kill.
//!
//! It starts a child that only sleeps, since a program seldom comes alone. Asked to end, it answers whoever is
//! connected once more, closes, and ends when nobody is left. Without a book it writes its log by itself.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval, sleep};

/// Exit code of a start that the environment does not allow.
const BAD_ENVIRONMENT: u8 = 3;
/// How long those that are connected may take to ask once more.
const FAREWELL: Duration = Duration::from_secs(1);
/// The argument that makes it the child.
const CHILD: &str = "child";
/// Between two lines of one without a book.
const BEAT: Duration = Duration::from_millis(50);

struct Ledger {
    version: String,
    delay: Duration,
    book: Option<Mutex<File>>,
    lines: AtomicU64,
    closing: AtomicBool,
    open: AtomicUsize,
}

impl Ledger {
    /// Writes one entry into the book, which all replicas share: one write each, so that entries stay whole.
    fn enter(&self, text: &str) {
        if let Some(book) = &self.book {
            let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
            let written = book.write_all(format!("{text}\n").as_bytes());
            written.unwrap_or_else(|error| panic!("write the book: {error}"));
        }
    }

    /// Prints the next line; returns its number.
    #[expect(clippy::print_stdout, reason = "a log of this program is what it prints")]
    fn say(&self) -> u64 {
        let number = self.lines.fetch_add(1, Ordering::Relaxed);
        println!("line {number} of {}", std::process::id());
        number
    }

    async fn answer(&self, path: &str) -> String {
        let own = std::process::id();
        match path {
            "/readyz" | "/livez" | "/health" | "/" => "ok\n".to_owned(),
            "/metrics" => "ledger_up 1\n".to_owned(),
            path => {
                let id = path.trim_start_matches('/');
                self.enter(&format!("begun {id} {own}"));
                sleep(self.delay).await;
                let line = self.say();
                self.enter(&format!("done {id} {own} {line}"));
                format!("{} {own}\n", self.version)
            }
        }
    }

    /// Serves one connection, request by request.
    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut text = Vec::new();
        loop {
            while !text.windows(4).any(|window| window == b"\r\n\r\n") {
                let mut buffer = [0; 1024];
                let read = stream.read(&mut buffer).await?;
                if read == 0 {
                    return Ok(());
                }
                text.extend_from_slice(&buffer[..read]);
            }
            let request = String::from_utf8_lossy(&text).to_lowercase();
            let path = request.split_whitespace().nth(1).unwrap_or("/").to_owned();
            text.clear();
            let body = self.answer(&path).await;
            let last = request.contains("connection: close") || self.closing.load(Ordering::Acquire);
            let connection = if last { "close" } else { "keep-alive" };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await?;
            if last {
                return stream.shutdown().await;
            }
        }
    }
}

async fn accept(listener: &TcpListener, ledger: &Arc<Ledger>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let ledger = Arc::clone(ledger);
        ledger.open.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(async move {
            // A client that goes away in the middle is none of our business.
            let _ = ledger.converse(stream).await;
            ledger.open.fetch_sub(1, Ordering::AcqRel);
        });
    }
}

/// Returns where to listen: the socket that was passed, and the ports that were given.
async fn listeners() -> Result<Vec<TcpListener>, String> {
    let mut found = Vec::new();
    let passed = listenfd::ListenFd::from_env().take_tcp_listener(0).map_err(|error| error.to_string())?;
    let has_passed = passed.is_some();
    if let Some(passed) = passed {
        passed.set_nonblocking(true).map_err(|error| error.to_string())?;
        found.push(TcpListener::from_std(passed).map_err(|error| error.to_string())?);
    }
    for name in ["PORT", "METRICS_PORT"] {
        let Ok(text) = std::env::var(name) else { continue };
        if name == "PORT" && has_passed {
            continue;
        }
        let port: u16 = text.parse().map_err(|_| format!("{name} is `{text}`: expected a port"))?;
        let bound = TcpListener::bind(("127.0.0.1", port)).await;
        found.push(bound.map_err(|error| format!("listen on port {port}: {error}"))?);
    }
    Ok(found)
}

fn read() -> Result<Ledger, String> {
    let book = match std::env::var("LEDGER_BOOK") {
        Ok(path) => {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            Some(Mutex::new(file.map_err(|error| format!("open the book {path}: {error}"))?))
        }
        Err(_) => None,
    };
    let delay = std::env::var("LEDGER_DELAY_MS").unwrap_or_else(|_| "0".to_owned());
    let delay = delay.parse().map_err(|_| format!("LEDGER_DELAY_MS is `{delay}`: expected milliseconds"))?;
    Ok(Ledger {
        version: std::env::var("LEDGER_VERSION").unwrap_or_else(|_| "unnamed".to_owned()),
        delay: Duration::from_millis(delay),
        book,
        lines: AtomicU64::new(0),
        closing: AtomicBool::new(false),
        open: AtomicUsize::new(0),
    })
}

#[expect(clippy::print_stderr, reason = "a log of this program is what it prints")]
fn refuse(reason: &str) -> ExitCode {
    eprintln!("ledger: {reason}");
    BAD_ENVIRONMENT.into()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|word| word == CHILD) {
        // It leaves only when it is killed.
        return std::future::pending().await;
    }
    let ledger = match read() {
        Ok(ledger) => Arc::new(ledger),
        Err(reason) => return refuse(&reason),
    };
    let listeners = match listeners().await {
        Ok(listeners) => listeners,
        Err(reason) => return refuse(&reason),
    };
    let Ok(mut asked_to_end) = signal(SignalKind::terminate()) else { return ExitCode::FAILURE };
    let child = std::env::current_exe()
        .and_then(|own| std::process::Command::new(own).arg(CHILD).stdin(Stdio::null()).spawn());
    if let Err(error) = child {
        return refuse(&format!("start a child: {error}"));
    }
    ledger.say();
    let serving: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move { accept(&listener, &ledger).await })
        })
        .collect();
    let mut beats = interval(BEAT);
    loop {
        tokio::select! {
            _ = beats.tick(), if ledger.book.is_none() => { ledger.say(); }
            _ = asked_to_end.recv() => break,
        }
    }
    ledger.closing.store(true, Ordering::Release);
    for each in serving {
        each.abort();
    }
    let until = Instant::now() + FAREWELL;
    while ledger.open.load(Ordering::Acquire) > 0 && Instant::now() < until {
        sleep(Duration::from_millis(5)).await;
    }
    ExitCode::SUCCESS
}
