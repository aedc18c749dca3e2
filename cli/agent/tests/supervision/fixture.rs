//! A program for tests to run: a small HTTP server that misbehaves on request.

use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// What the program should do; read from `KNOB=value` arguments.
#[derive(Debug, Default, Clone)]
struct Knobs {
    /// What `/` answers.
    version: String,
    port: Option<u16>,
    /// Serves the probe paths there too.
    metrics_port: Option<u16>,
    /// Exit after so many milliseconds...
    exit_after: Option<u64>,
    /// ...with this code.
    code: u8,
    /// `/ready` answers 503.
    never_ready: bool,
    /// `/live` answers 500 after so many milliseconds.
    sick_after: Option<u64>,
    /// Listens after so many milliseconds only.
    slow_start: u64,
    /// An answer takes so many milliseconds.
    slow_answer: u64,
    ignore_term: bool,
    /// Bytes to allocate and touch.
    allocate: usize,
    /// Lines to print at the start.
    lines: usize,
    /// Take descriptor 3 as listening socket.
    listen_fds: bool,
    /// Print this variable.
    print_env: Option<String>,
}

impl Knobs {
    fn read(args: &[String]) -> Self {
        let mut knobs = Self { version: "1".to_owned(), ..Self::default() };
        for arg in args {
            let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
            let number = || value.parse::<u64>().unwrap_or_else(|_| panic!("{arg} is no number"));
            match name {
                "version" => knobs.version = value.to_owned(),
                "port" => knobs.port = Some(value.parse().unwrap()),
                "metrics" => knobs.metrics_port = Some(value.parse().unwrap()),
                "exit-after" => knobs.exit_after = Some(number()),
                "code" => knobs.code = value.parse().unwrap(),
                "never-ready" => knobs.never_ready = true,
                "sick-after" => knobs.sick_after = Some(number()),
                "slow-start" => knobs.slow_start = number(),
                "slow-answer" => knobs.slow_answer = number(),
                "ignore-term" => knobs.ignore_term = true,
                "allocate" => knobs.allocate = value.parse().unwrap(),
                "lines" => knobs.lines = value.parse().unwrap(),
                "listen-fds" => knobs.listen_fds = true,
                "print-env" => knobs.print_env = Some(value.to_owned()),
                _ => panic!("unknown knob {arg}"),
            }
        }
        knobs
    }
}

/// Runs the program; returns its exit code.
pub fn run(args: &[String]) -> u8 {
    let knobs = Knobs::read(args);
    let passed =
        knobs.listen_fds.then(|| listenfd::ListenFd::from_env().take_tcp_listener(0).unwrap().unwrap());
    if let Some(passed) = &passed {
        assert_eq!(passed.as_raw_fd(), 3);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(knobs, passed))
}

async fn serve(knobs: Knobs, passed: Option<std::net::TcpListener>) -> u8 {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    for number in 0..knobs.lines {
        println!("line {number}");
    }
    if let Some(name) = &knobs.print_env {
        println!("{name}={}", std::env::var(name).unwrap_or_default());
    }
    eprintln!("version {} starts", knobs.version);
    let ballast = vec![1_u8; knobs.allocate];
    sleep(Duration::from_millis(knobs.slow_start)).await;
    let sick = Arc::new(AtomicBool::new(false));
    if let Some(after) = knobs.sick_after {
        let sick = Arc::clone(&sick);
        tokio::spawn(async move {
            sleep(Duration::from_millis(after)).await;
            sick.store(true, Ordering::Release);
        });
    }
    if let Some(port) = knobs.metrics_port {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (knobs, sick) = (knobs.clone(), Arc::clone(&sick));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(stream, knobs.clone(), Arc::clone(&sick)));
            }
        });
    }
    let listener = match (passed, knobs.port) {
        (Some(passed), _) => {
            passed.set_nonblocking(true).unwrap();
            Some(TcpListener::from_std(passed).unwrap())
        }
        (None, Some(port)) => Some(TcpListener::bind(("127.0.0.1", port)).await.unwrap()),
        (None, None) => None,
    };
    let exit = async {
        match knobs.exit_after {
            Some(after) => sleep(Duration::from_millis(after)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(exit);
    let open = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(Notify::new());
    loop {
        tokio::select! {
            stream = next(listener.as_ref()) => {
                let (knobs, sick, open, done) = (knobs.clone(), Arc::clone(&sick), Arc::clone(&open), Arc::clone(&done));
                open.fetch_add(1, Ordering::AcqRel);
                tokio::spawn(async move {
                    answer(stream, knobs, sick).await;
                    open.fetch_sub(1, Ordering::AcqRel);
                    done.notify_one();
                });
            }
            () = &mut exit => return knobs.code,
            _ = terminate.recv() => if !knobs.ignore_term { break },
        }
    }
    while open.load(Ordering::Acquire) > 0 {
        done.notified().await;
    }
    println!("bye, {} bytes", ballast.len());
    0
}

async fn next(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.unwrap().0,
        None => std::future::pending().await,
    }
}

/// One request a connection.
async fn answer(mut stream: TcpStream, knobs: Knobs, sick: Arc<AtomicBool>) {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    while !text.windows(4).any(|w| w == b"\r\n\r\n") {
        match timeout(Duration::from_secs(5), stream.read(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => text.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let path = text.split_whitespace().nth(1).unwrap_or_default();
    let (status, body) = match path {
        "/ready" if knobs.never_ready => ("503 Service Unavailable", "no tables yet\n".to_owned()),
        "/live" if sick.load(Ordering::Acquire) => ("500 Internal Server Error", "stuck\n".to_owned()),
        "/ready" | "/live" => ("200 OK", String::new()),
        _ => {
            sleep(Duration::from_millis(knobs.slow_answer)).await;
            ("200 OK", knobs.version.clone())
        }
    };
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
