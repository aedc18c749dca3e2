//! A small HTTP server that does well or badly as its environment says: the service of the fixture systems.
//!
//! It knows nothing of mlctl, drains nothing and ends at once when asked to: what holds for it holds for any
//! program. Each answer closes its connection, since a client that keeps one open to a server without a drain of
//! its own has to expect to lose it.
//!
//! [`knobs`] has the list of what can go wrong; [`family`] is about other processes, [`appetite`] about what a
//! program takes from its machine, [`names`] about what it keeps.

mod appetite;
mod family;
mod knobs;
mod names;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use knobs::Knobs;

/// Exit code of a start that the environment does not allow.
const BAD_ENVIRONMENT: u8 = 3;
/// Exit code of a crash.
const CRASH: u8 = 101;
/// Left by a program that crashes once, in its folder.
const CRASHED: &str = "crashed-once";

#[expect(clippy::print_stderr, reason = "a log of this program is what it prints")]
fn say(text: &str) {
    eprintln!("knobs: {text}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if let Some(code) = family::play_a_part().await {
        return code;
    }
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
    family::start_children(knobs.children);
    sleep(knobs.start).await;
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
    appetite::begin(&knobs);
    let Ok(mut asked_to_end) = signal(SignalKind::terminate()) else { return ExitCode::FAILURE };
    let ending = async {
        loop {
            asked_to_end.recv().await;
            if !knobs.ignore_term {
                return;
            }
            say("asked to end, and goes on as it was told");
        }
    };
    tokio::select! {
        () = serve(&listeners[0], &knobs) => ExitCode::SUCCESS,
        () = serve(&listeners[1], &knobs) => ExitCode::SUCCESS,
        () = ending => {
            say("asked to end");
            ExitCode::SUCCESS
        }
        () = crash(&knobs) => {
            say("panicked at 'index out of bounds' as it was told");
            CRASH.into()
        }
    }
}

/// Ends when it is time to crash.
async fn crash(knobs: &Knobs) {
    let first = !std::path::Path::new(CRASHED).exists();
    match (knobs.crash_after, knobs.crash_once_after) {
        (Some(after), _) => sleep(after).await,
        (None, Some(after)) if first => {
            sleep(after).await;
            if std::fs::write(CRASHED, "").is_err() {
                say(&format!("cannot leave {CRASHED} behind"));
            }
        }
        _ => std::future::pending().await,
    }
}

async fn serve(listener: &TcpListener, knobs: &Knobs) {
    let began = Instant::now();
    loop {
        let (stream, _): (_, SocketAddr) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                say(&format!("accept a connection: {error}"));
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let knobs = knobs.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let knobs = knobs.clone();
                async move {
                    let (method, path) = (request.method(), request.uri().path());
                    let (status, body) = knobs.answer(method, path, began.elapsed());
                    if path == "/" {
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
