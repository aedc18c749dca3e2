//! The program around a service: arguments, environment, logs, signals, exit codes.
//!
//! Exit codes: 0 stopped as asked or the check passed, 1 the service failed or the check did not pass, 2 unknown
//! arguments, 3 the environment is invalid, 143 a second signal ended the drain.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::Identity;
use crate::client::{Client, HttpUrl};
use crate::config::{ConfigError, Configuration, Environment};
use crate::listener::{Listener, passed_socket};
use crate::log;
use crate::shutdown::{Shutdown, ShutdownTrigger};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const BAD_ENVIRONMENT: u8 = 3;
/// 128 + SIGTERM, as a shell would report the death it amounts to.
const CUT_SHORT: u8 = 143;

/// How long the end waits for a collector to take the last spans.
const TRACE_FLUSH: Duration = Duration::from_secs(2);
/// How long `healthcheck` waits for an answer.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs a service as this process: serves without arguments, `healthcheck` asks the running one, `--version` tells.
pub fn main<C, F, Fut, E>(identity: Identity, run: F) -> ExitCode
where
    C: Configuration,
    F: FnOnce(C, Listener, Shutdown) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let code = match words.as_slice() {
        [] => serve(identity, run),
        ["healthcheck"] => healthcheck(identity, &Environment::process()),
        ["--version"] => {
            say(&mut std::io::stdout(), &format!("{} {}", identity.name, identity.version));
            0
        }
        _ => {
            let usage = format!("usage: {} [healthcheck | --version]", identity.name);
            say(&mut std::io::stderr(), &usage);
            USAGE
        }
    };
    ExitCode::from(code)
}

fn serve<C, F, Fut, E>(identity: Identity, run: F) -> u8
where
    C: Configuration,
    F: FnOnce(C, Listener, Shutdown) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let config = match C::from_environment(identity, &Environment::process()) {
        Ok(config) => config,
        Err(error) => {
            log::init("info");
            report(&error);
            return BAD_ENVIRONMENT;
        }
    };
    log::init(&config.base().log_level);
    // Before the runtime: it takes variables out of the environment, which is only sound while there is one thread.
    let passed = match passed_socket() {
        Ok(passed) => passed,
        Err(error) => return fail("cannot take the passed socket", &error),
    };
    raise_descriptor_limit();
    // The drivers bring two providers of cryptography between them; one is chosen here, for all of them. It is the only
    // choice of this process, so none was made before.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail("cannot start the event loop", &error),
    };
    let code = runtime.block_on(async {
        let listener = match Listener::open(config.base(), passed).await {
            Ok(listener) => listener,
            Err(error) => return fail("cannot start", &error),
        };
        let (trigger, shutdown) = Shutdown::channel();
        let second_signal = match signals(trigger) {
            Ok(second_signal) => second_signal,
            Err(error) => return fail("cannot listen for signals", &error),
        };
        tokio::select! {
            biased;
            () = second_signal => CUT_SHORT,
            ended = run(config, listener, shutdown) => {
                crate::trace::flush_all(TRACE_FLUSH).await;
                match ended {
                    Ok(()) => 0,
                    Err(error) => fail("the service ended", &error),
                }
            }
        }
    });
    // A blocking call that outlives the drain must not hold the process open.
    runtime.shutdown_timeout(Duration::from_millis(200));
    code
}

/// Every connection is a descriptor, and many systems start processes with 1,024 of them: take what we are allowed.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const ENOUGH: u64 = 65_536;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = hard.min(ENOUGH);
    if soft < wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_err() {
        tracing::debug!(soft, "the limit of open files cannot be raised");
    }
}

fn report(error: &ConfigError) {
    for problem in &error.problems {
        tracing::error!(variable = %problem.variable, "invalid configuration: {problem}");
    }
}

fn fail(what: &str, error: &dyn std::error::Error) -> u8 {
    tracing::error!(cause = %crate::error::chain(error), "{what}");
    FAILED
}

/// The first SIGTERM or SIGINT drains; the future ends at the second.
fn signals(trigger: ShutdownTrigger) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        for step in [ShutdownTrigger::drain, ShutdownTrigger::now] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            step(&trigger);
        }
        tracing::warn!("second signal: ending at once");
    })
}

/// Asks the running service whether it is ready.
fn healthcheck(identity: Identity, environment: &Environment) -> u8 {
    let verdict = match BaseOnly::from_environment(identity, environment) {
        Ok(BaseOnly(base)) => ask(SocketAddr::new(reachable(base.host), base.port)),
        Err(error) => Err(error.to_string()),
    };
    match verdict {
        Ok(()) => 0,
        Err(text) => {
            say(&mut std::io::stderr(), &format!("{} is not ready: {text}", identity.name));
            FAILED
        }
    }
}

/// A service that listens everywhere is asked on loopback.
fn reachable(host: IpAddr) -> IpAddr {
    if host.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { host }
}

fn ask(address: SocketAddr) -> Result<(), String> {
    let url: HttpUrl = format!("http://{address}").parse().map_err(|_| format!("bad address {address}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the event loop: {error}"))?;
    let answer = runtime.block_on(Client::new(url, HEALTHCHECK_TIMEOUT).get("/readyz", &[]));
    match answer {
        Ok(answer) if answer.status.as_u16() == 200 => Ok(()),
        Ok(answer) => Err(format!(
            "http://{address}/readyz answered {}: {}",
            answer.status.as_u16(),
            String::from_utf8_lossy(&answer.body)
        )),
        Err(error) => Err(crate::error::chain(&error)),
    }
}

/// The variables that `healthcheck` needs; what else is wrong with the environment is not its business.
struct BaseOnly(crate::Base);

impl Configuration for BaseOnly {
    fn read(base: crate::Base, _env: &mut crate::Reader<'_>) -> Option<Self> {
        Some(Self(base))
    }

    fn base(&self) -> &crate::Base {
        &self.0
    }
}

/// These two commands are the only ones that speak to a person: one line, and nobody to tell when it cannot be written.
fn say(stream: &mut dyn Write, line: &str) {
    writeln!(stream, "{line}").ok();
}
