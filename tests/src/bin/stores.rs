//! Real servers for tests and for people: PostgreSQL, Redis, Kafka, and a stand-in for MongoDB.
//!
//! ```text
//! stores run [--only postgresql,redis] -- COMMAND...   starts them, runs the command with their addresses, ends them
//! stores up  [--only ...]                              starts them, prints their addresses, ends them on Ctrl-C
//! stores prepare [--only ...]                          fetches and builds what they need, once
//! ```
//!
//! `run` ends with the command's code. Whatever ends this program ends the servers, `kill -9` too.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints addresses")]

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use mlctl_tests::stores::{self, Kind, Store};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Time for the command to end when we are asked to.
const COMMAND_ENDS_WITHIN: Duration = Duration::from_secs(15);

const USAGE: &str = "stores run [--only KIND,KIND] -- COMMAND...
stores up [--only KIND,KIND]
stores prepare [--only KIND,KIND]

Kinds: postgresql, redis, kafka, mongodb (all when none is named).";

/// What is asked for.
enum Verb {
    Run(Vec<String>),
    Up,
    Prepare,
}

#[tokio::main]
async fn main() -> ExitCode {
    let (verb, kinds) = match parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(reason) => {
            eprintln!("stores: {reason}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if matches!(verb, Verb::Run(_)) {
        // The suite's end is ours: a killed `make` leaves no servers behind.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    }
    let mut ended = match ending() {
        Ok(ended) => ended,
        Err(error) => {
            eprintln!("stores: listening to signals: {error}");
            return ExitCode::from(2);
        }
    };
    let code = match &verb {
        Verb::Prepare => done(&mut ended, move || stores::together(&kinds, stores::prepare)).await.map(|_| 0),
        Verb::Run(command) => run(&kinds, command, &mut ended).await,
        Verb::Up => up(&kinds, &mut ended).await,
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(reason) => {
            eprintln!("stores: {reason}");
            let signal = *ended.borrow();
            ExitCode::from(signal.map_or(1, by_signal))
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<(Verb, Vec<Kind>), String> {
    let name = words.next().ok_or("expected a verb")?;
    let mut kinds = Kind::ALL.to_vec();
    let mut command = None;
    while let Some(word) = words.next() {
        match word.as_str() {
            "--only" => {
                let list = words.next().ok_or("--only: expected kinds")?;
                let named = |name: &str| Kind::named(name).ok_or_else(|| format!("--only: no store {name}"));
                kinds = list.split(',').map(named).collect::<Result<_, _>>()?;
            }
            "--" => {
                command = Some(words.by_ref().collect::<Vec<_>>());
            }
            other => return Err(format!("{other}: unexpected")),
        }
    }
    let verb = match (name.as_str(), command) {
        ("run", Some(command)) if !command.is_empty() => Verb::Run(command),
        ("run", _) => return Err("run: expected -- and a command".to_owned()),
        ("up", None) => Verb::Up,
        ("prepare", None) => Verb::Prepare,
        (other, _) => return Err(format!("{other}: expected run, up or prepare")),
    };
    Ok((verb, kinds))
}

/// Returns what will say which signal asked us to end.
fn ending() -> std::io::Result<watch::Receiver<Option<Signal>>> {
    let (tell, told) = watch::channel(None);
    let kinds = [
        (SignalKind::interrupt(), Signal::SIGINT),
        (SignalKind::terminate(), Signal::SIGTERM),
        (SignalKind::hangup(), Signal::SIGHUP),
    ];
    for (kind, name) in kinds {
        let (mut taken, tell) = (signal(kind)?, tell.clone());
        tokio::spawn(async move {
            while taken.recv().await.is_some() {
                stores::interrupt();
                tell.send_replace(Some(name));
            }
        });
    }
    Ok(told)
}

/// Does what takes long beside the signals; an interrupted one gives up by itself.
async fn done<T: Send + 'static>(
    ended: &mut watch::Receiver<Option<Signal>>,
    act: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let result = tokio::task::spawn_blocking(act).await.map_err(|error| error.to_string())?;
    match *ended.borrow_and_update() {
        Some(signal) => Err(format!("ended by {signal}")),
        None => result,
    }
}

async fn started(
    kinds: &[Kind],
    ended: &mut watch::Receiver<Option<Signal>>,
) -> Result<Vec<Box<dyn Store>>, String> {
    let kinds = kinds.to_vec();
    let began = Instant::now();
    let all = done(ended, move || stores::start_all(&kinds)).await?;
    let names: Vec<String> = all.iter().map(|store| store.name()).collect();
    eprintln!("stores: {} answer after {:.1?}", names.join(", "), began.elapsed());
    Ok(all)
}

async fn run(
    kinds: &[Kind],
    words: &[String],
    ended: &mut watch::Receiver<Option<Signal>>,
) -> Result<u8, String> {
    let mut all = started(kinds, ended).await?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    // Of a store's own variables only those of the tests: what a service under test reads is the test's business.
    let tests = all.iter().flat_map(|store| store.variables()).filter(|(name, _)| name.starts_with("MLCTL_"));
    command.envs(tests);
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", words[0]))?;
    let status = tokio::select! {
        status = end_of(&mut child) => status?,
        _ = ended.changed() => {
            stop(&mut child).await?;
            let signal = ended.borrow().unwrap_or(Signal::SIGTERM);
            eprintln!("stores: ended by {signal}");
            return Ok(by_signal(signal));
        }
    };
    let gone: Vec<String> =
        all.iter_mut().filter_map(|store| (!store.runs()).then(|| store.name())).collect();
    if !gone.is_empty() {
        eprintln!("stores: {} did not live until the end of the command", gone.join(", "));
    }
    Ok(code(status))
}

async fn up(kinds: &[Kind], ended: &mut watch::Receiver<Option<Signal>>) -> Result<u8, String> {
    let mut all = started(kinds, ended).await?;
    let variables: Vec<(&str, String)> = all.iter().flat_map(|store| store.variables()).collect();
    let (tests, services): (Vec<_>, Vec<_>) =
        variables.iter().partition(|(name, _)| name.starts_with("MLCTL_"));
    for (name, value) in services.into_iter().chain(tests) {
        println!("{name}={value}");
    }
    eprintln!(
        "stores: they run until Ctrl-C, and keep nothing; Kafka has no topic: services make theirs with"
    );
    eprintln!("stores: KAFKA_CREATE_TOPICS=true, databases are made by mlctl db migrate or by hand");
    loop {
        tokio::select! {
            _ = ended.changed() => break,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        if let Some(store) = all.iter_mut().find_map(|store| (!store.runs()).then(|| store.name())) {
            return Err(format!("{store} has ended"));
        }
    }
    eprintln!("stores: ending them");
    Ok(0)
}

async fn end_of(child: &mut Child) -> Result<ExitStatus, String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => return Err(format!("waiting for the command: {error}")),
        }
    }
}

/// Ends the command and all that comes from it.
async fn stop(child: &mut Child) -> Result<(), String> {
    let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
    let family = mlctl_tests::family(pid);
    for pid in &family {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGTERM);
    }
    let over = tokio::time::timeout(COMMAND_ENDS_WITHIN, end_of(child)).await;
    for pid in family.into_iter().filter(|pid| mlctl_tests::alive(*pid)) {
        mlctl_tests::kill(pid);
    }
    match over {
        Ok(ended) => ended.map(|_| ()),
        Err(_) => child.wait().map(|_| ()).map_err(|error| format!("waiting for the command: {error}")),
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(1)
}

fn by_signal(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(1)
}
