//! A small HTTP server that does well or badly as its environment says: the service of the fixture systems.
//!
//! It knows nothing of mlctl, drains nothing and ends at once when asked to: what holds for it holds for any
//! program. Each answer closes its connection, since a client that keeps one open to a server without a drain of
//! its own has to expect to lose it.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// Exit code of a start that the environment does not allow.
const BAD_ENVIRONMENT: u8 = 3;

#[derive(Debug, Clone)]
struct Knobs {
    port: u16,
    metrics_port: Option<u16>,
    version: String,
    exit_at_once: Option<u8>,
    crash_after: Option<Duration>,
    never_ready: bool,
    health: u16,
    delay: Duration,
    /// Where `/names/NAME` keeps the names that are taken.
    names: Option<PathBuf>,
}

impl Knobs {
    fn read() -> Result<Self, String> {
        Ok(Self {
            port: knob("PORT", "a port")?.ok_or("PORT is missing: expected a port")?,
            metrics_port: knob("METRICS_PORT", "a port")?,
            version: std::env::var("KNOB_VERSION").unwrap_or_else(|_| "unnamed".to_owned()),
            exit_at_once: knob("KNOB_EXIT", "an exit code")?,
            crash_after: knob("KNOB_CRASH_AFTER_MS", "milliseconds")?.map(Duration::from_millis),
            never_ready: knob("KNOB_NEVER_READY", "true or false")?.unwrap_or(false),
            health: knob("KNOB_HEALTH", "an HTTP status")?.unwrap_or(200),
            delay: Duration::from_millis(knob("KNOB_DELAY_MS", "milliseconds")?.unwrap_or(0)),
            names: knob("KNOB_NAMES", "a folder")?,
        })
    }

    fn answer(&self, method: &Method, path: &str) -> (u16, String) {
        if let Some((folder, name)) = self.names.as_ref().zip(path.strip_prefix("/names/")) {
            return take_name(method, &folder.join(name), name);
        }
        match path {
            "/readyz" if self.never_ready => (503, "warming up for ever\n".to_owned()),
            "/health" if self.health != 200 => (self.health, "the disk of knobs is full\n".to_owned()),
            "/readyz" | "/livez" | "/health" => (200, "ok\n".to_owned()),
            "/" => (200, format!("{}\n", self.version)),
            "/metrics" => (200, format!("knobs_version{{version=\"{}\"}} 1\n", self.version)),
            _ => (404, format!("no {path} here\n")),
        }
    }
}

/// Takes a name that nobody has, or gives it back.
fn take_name(method: &Method, path: &Path, name: &str) -> (u16, String) {
    let parent = path.parent().unwrap_or(path);
    let (done, status) = match *method {
        Method::POST => {
            (std::fs::create_dir_all(parent).and_then(|()| std::fs::File::create_new(path).map(drop)), 201)
        }
        Method::DELETE => (std::fs::remove_file(path), 204),
        _ => return (405, "POST or DELETE\n".to_owned()),
    };
    match done.map_err(|error| error.kind()) {
        Ok(()) => (status, format!("{{\"name\":\"{name}\"}}\n")),
        Err(ErrorKind::AlreadyExists) => (409, format!("{name} is taken\n")),
        Err(ErrorKind::NotFound) => (404, format!("nobody has {name}\n")),
        Err(kind) => (500, format!("{kind}\n")),
    }
}

/// Reads a variable; one that is there and makes no sense is told by its name.
fn knob<T: FromStr>(name: &str, expected: &str) -> Result<Option<T>, String> {
    match std::env::var(name) {
        Err(_) => Ok(None),
        Ok(text) => text.parse().map(Some).map_err(|_| format!("{name} is `{text}`: expected {expected}")),
    }
}

#[expect(clippy::print_stderr, reason = "a log of this program is what it prints")]
fn say(text: &str) {
    eprintln!("knobs: {text}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let knobs = match Knobs::read() {
        Ok(knobs) => knobs,
        Err(reason) => {
            say(&reason);
            return BAD_ENVIRONMENT.into();
        }
    };
    if let Some(code) = knobs.exit_at_once {
        say(&format!("version {} exits with {code} as it was told", knobs.version));
        return code.into();
    }
    // Where no port for metrics is given, the main one answers for them.
    let mut listeners = Vec::new();
    for port in [knobs.port, knobs.metrics_port.unwrap_or(0)] {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                say(&format!("listen on port {port}: {error}"));
                return ExitCode::FAILURE;
            }
        }
    }
    say(&format!("version {} listens on port {}", knobs.version, knobs.port));
    let Ok(mut asked_to_end) = signal(SignalKind::terminate()) else { return ExitCode::FAILURE };
    let crash = async {
        match knobs.crash_after {
            Some(after) => sleep(after).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = serve(&listeners[0], &knobs) => ExitCode::SUCCESS,
        () = serve(&listeners[1], &knobs) => ExitCode::SUCCESS,
        _ = asked_to_end.recv() => {
            say("asked to end");
            ExitCode::SUCCESS
        }
        () = crash => {
            say("panicked at 'index out of bounds' as it was told");
            101.into()
        }
    }
}

async fn serve(listener: &TcpListener, knobs: &Knobs) {
    loop {
        let Ok((stream, _)): Result<(_, SocketAddr), _> = listener.accept().await else { continue };
        let knobs = knobs.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let knobs = knobs.clone();
                async move {
                    let (status, body) = knobs.answer(request.method(), request.uri().path());
                    if request.uri().path() == "/" {
                        sleep(knobs.delay).await;
                    }
                    let mut answer = Response::new(Full::new(Bytes::from(body)));
                    *answer.status_mut() = status.try_into().unwrap_or_default();
                    Ok::<_, Infallible>(answer)
                }
            });
            // A client that goes away in the middle is none of our business.
            let _ = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
