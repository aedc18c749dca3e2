//! Talks to the agent, and starts it when there is none.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mlctl_core::local_protocol::{Layout, PROTOCOL, Request, Response, line};
use mlctl_core::ports::{ErrorKind, Fence, OrchestratorError, Result};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::LocalSettings;
use super::{files, process};

/// For one answer. A write that stops replicas takes as long as they do and has a limit of its own.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How often what may be repeated is asked, should each agent end in the middle of it.
const TRIES: u32 = 3;
/// For an agent that was just started, or asked to end.
const AGENT_WAIT: Duration = Duration::from_secs(10);
/// For an agent that ends its replicas: their drain and grace come first.
const STOP_WAIT: Duration = Duration::from_secs(120);
/// How long a client that listens waits for somebody else to bring an agent back.
const REJOIN_WAIT: Duration = Duration::from_secs(1);
/// How long a lock may be in the way that somebody only looks at.
const LOOKED_AT: Duration = Duration::from_millis(200);
/// Between two looks at a socket that should appear or go.
const LOOK: Duration = Duration::from_millis(20);
/// The longest answer: all workloads or events of a machine are far below.
const ANSWER_BYTES: u64 = 64 << 20;
/// How an agent ends that finds another one in its folder.
const HELD: &str = "held by another process";
/// What is read of the end of the agent's log.
const TAIL_BYTES: u64 = 4 << 10;
/// Variables of our environment that the agent, and so every program, gets.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR", "XDG_RUNTIME_DIR"];

/// The agent, as its clients see it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    layout: Layout,
    socket: PathBuf,
    runtime: PathBuf,
    exe: PathBuf,
    build: String,
    /// True once this process ends the agent together with its lease: there is nobody to renew it with.
    ending: Arc<AtomicBool>,
}

/// One conversation.
pub(crate) struct Conversation {
    /// The agent's protocol, build and process.
    agent: Hello,
    reading: BufReader<OwnedReadHalf>,
    writing: OwnedWriteHalf,
}

/// Who answers.
#[derive(Debug, Clone)]
struct Hello {
    protocol: u32,
    build: String,
    pid: u32,
}

impl Client {
    pub(crate) fn new(settings: &LocalSettings, layout: &Layout) -> Self {
        Self {
            socket: layout.agent_socket(&settings.runtime_dir),
            layout: layout.clone(),
            runtime: settings.runtime_dir.clone(),
            exe: settings.exe.clone(),
            build: settings.build.clone(),
            ending: Arc::default(),
        }
    }

    /// Says whether an agent answers now.
    pub(crate) async fn is_running(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    /// Says whether there is anything an agent could tell of.
    pub(crate) async fn has_state(&self) -> bool {
        self.layout.workloads().exists() || self.layout.lease().exists() || self.is_running().await
    }

    /// Asks one question; refusals become errors. What may be repeated is asked again when the agent ends before it has
    /// answered: the next one knows everything that it knew.
    pub(crate) async fn ask(
        &self,
        operation: &'static str,
        subject: &str,
        request: Request,
    ) -> Result<Response> {
        let limit = match &request {
            Request::Shutdown { .. } => STOP_WAIT,
            _ => ANSWER_WAIT,
        };
        let late = || {
            let reason =
                format!("the agent does not answer within {} s; its log is {}", limit.as_secs(), self.log());
            OrchestratorError::new(ErrorKind::Timeout, operation, subject, reason)
        };
        let mut tries = if request.may_repeat() { TRIES } else { 1 };
        let answer = loop {
            tries -= 1;
            let mut conversation = self.converse(operation).await?;
            match timeout(limit, conversation.ask(&request)).await.map_err(|_| late())? {
                Err(error) if tries > 0 && is_broken_off(&error) => {}
                done => break done,
            }
        };
        match answer.map_err(|e| self.unavailable(operation, &e))? {
            Response::Refused { kind, reason, .. } => {
                Err(OrchestratorError::new(kind, operation, subject, reason))
            }
            response => Ok(response),
        }
    }

    /// Opens a conversation with an agent of our protocol and build, which is started or replaced when needed.
    pub(crate) async fn converse(&self, operation: &'static str) -> Result<Conversation> {
        let deadline = Instant::now() + AGENT_WAIT;
        let mut started: Option<tokio::process::Child> = None;
        loop {
            match self.greet().await {
                Ok(conversation) if self.is_ours(&conversation.agent) => return Ok(conversation),
                Ok(mut conversation) => {
                    // Of another build: it makes way and leaves its replicas to its successor.
                    let _ = conversation.ask(&Request::Shutdown { stop_replicas: false, fence: None }).await;
                    self.gone(operation, conversation.agent.pid).await?;
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(self.unavailable(operation, &error));
                }
                Err(_) => {}
            }
            match &mut started {
                // One that is ending, or was started by somebody else, still has the folder: a second one could only
                // lose it.
                None if self.is_held() => {}
                None => started = Some(self.start(operation)?),
                Some(child) => match child.try_wait().ok().flatten() {
                    None => {}
                    // It lost a race for the folder, or was asked to make way: whoever has the folder is looked at
                    // again, and followed by another start when it goes.
                    Some(status) if status.success() || self.log_tail().contains(HELD) => started = None,
                    Some(status) => {
                        let reason = format!("the agent ends at once ({status}): {}", self.log_tail());
                        let subject = "the agent";
                        return Err(OrchestratorError::new(
                            ErrorKind::Unavailable,
                            operation,
                            subject,
                            reason,
                        ));
                    }
                },
            }
            if Instant::now() >= deadline {
                let reason =
                    format!("it does not answer on {}; its log is {}", self.socket.display(), self.log());
                return Err(OrchestratorError::new(ErrorKind::Unavailable, operation, "the agent", reason));
            }
            sleep(LOOK).await;
        }
    }

    /// Opens a conversation with whichever agent follows one that has ended, for a client that only listens: it must
    /// not replace an agent that a newer build has just put there. One is started only when none appears.
    pub(crate) async fn rejoin(&self, operation: &'static str) -> Result<Conversation> {
        let deadline = Instant::now() + REJOIN_WAIT;
        while Instant::now() < deadline {
            match self.greet().await {
                Ok(conversation) if conversation.agent.protocol == PROTOCOL => return Ok(conversation),
                _ => sleep(LOOK).await,
            }
        }
        self.converse(operation).await
    }

    /// Ends the agent, with its replicas and the relay.
    pub(crate) async fn stop(&self, operation: &'static str, fence: Fence) -> Result<()> {
        let pid = self.converse(operation).await?.agent.pid;
        self.ending.store(true, Ordering::Relaxed);
        let ended = async {
            self.ask(operation, "the agent", Request::Shutdown { stop_replicas: true, fence: Some(fence) })
                .await?;
            self.gone(operation, pid).await
        };
        ended.await.inspect_err(|_| self.ending.store(false, Ordering::Relaxed))
    }

    /// Says whether the lease has ended with the agent, or is about to.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    fn is_ours(&self, agent: &Hello) -> bool {
        agent.protocol == PROTOCOL && agent.build == self.build
    }

    /// Connects and says who we are.
    async fn greet(&self) -> std::io::Result<Conversation> {
        let stream = UnixStream::connect(&self.socket).await?;
        let owner = stream.peer_cred()?.uid();
        if owner != nix::unistd::geteuid().as_raw() {
            let reason = format!("its socket {} belongs to user {owner}", self.socket.display());
            return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, reason));
        }
        let (reading, writing) = stream.into_split();
        let agent = Hello { protocol: 0, build: String::new(), pid: 0 };
        let mut conversation = Conversation { agent, reading: BufReader::new(reading), writing };
        let hello = Request::Hello { protocol: PROTOCOL, build: self.build.clone() };
        match timeout(ANSWER_WAIT, conversation.ask(&hello)).await?? {
            Response::Hello { protocol, build, pid } => conversation.agent = Hello { protocol, build, pid },
            other => return Err(std::io::Error::other(format!("it greets with {other:?}"))),
        }
        Ok(conversation)
    }

    fn start(&self, operation: &'static str) -> Result<tokio::process::Child> {
        files::make_folder(self.layout.root())?;
        let path = self.layout.agent_log();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(files::failed("open", &path))?;
        let again = log.try_clone().map_err(files::failed("open", &path))?;
        let mut command = Command::new(&self.exe);
        // By way of shim-exec: a session of its own, and nothing inherited that it should not hold for days.
        command.args(["shim-exec", "--session", "--"]).arg(&self.exe).arg("agent");
        command.arg("--folder").arg(self.layout.root()).arg("--runtime").arg(&self.runtime);
        command.arg("--build").arg(&self.build);
        command.env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(again);
        command.spawn().map_err(|error| {
            let subject = self.exe.display().to_string();
            let reason = format!("cannot start the agent: {error}");
            OrchestratorError::new(ErrorKind::Unavailable, operation, subject, reason)
        })
    }

    /// Waits until the agent that was asked to end has ended: its lock is free then, or another's.
    async fn gone(&self, operation: &'static str, pid: u32) -> Result<()> {
        let deadline = Instant::now() + AGENT_WAIT;
        // Another process may get its number while another agent gets its lock: neither is waited for.
        let asked = process::started(pid);
        while asked.is_some() && process::started(pid) == asked && self.is_held() {
            if Instant::now() >= deadline {
                let reason = format!("it was asked to end and does not; its log is {}", self.log());
                return Err(OrchestratorError::new(ErrorKind::Timeout, operation, "the agent", reason));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Keeps every agent out of the folder for as long as the returned file lives.
    pub(crate) async fn keep_out(&self, operation: &'static str) -> Result<std::fs::File> {
        let path = self.layout.agent_lock();
        let lock =
            std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(files::failed(operation, &path))?;
        let deadline = Instant::now() + LOOKED_AT;
        while lock.try_lock().is_err() {
            if Instant::now() >= deadline {
                let reason = "another agent has just started there: somebody else is at work";
                let subject = path.display().to_string();
                return Err(OrchestratorError::new(ErrorKind::Conflict, operation, subject, reason));
            }
            sleep(LOOK).await;
        }
        Ok(lock)
    }

    fn is_held(&self) -> bool {
        let file = std::fs::OpenOptions::new().write(true).open(self.layout.agent_lock());
        file.is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
    }

    fn unavailable(&self, operation: &'static str, error: &std::io::Error) -> OrchestratorError {
        let reason = format!("{error}; its log is {}", self.log());
        OrchestratorError::new(ErrorKind::Unavailable, operation, "the agent", reason)
    }

    fn log(&self) -> String {
        self.layout.agent_log().display().to_string()
    }

    fn log_tail(&self) -> String {
        read_tail(&self.layout.agent_log())
    }
}

/// Says whether the other side has gone in the middle of a conversation.
fn is_broken_off(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Returns the last line that says anything.
fn read_tail(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = std::fs::File::open(path) {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)));
        let _ = file.take(TAIL_BYTES).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing").to_owned()
}

impl Conversation {
    /// Asks one question.
    pub(crate) async fn ask(&mut self, request: &Request) -> std::io::Result<Response> {
        self.send(request).await?;
        self.next().await
    }

    /// Asks without waiting for the answer.
    pub(crate) async fn send(&mut self, request: &Request) -> std::io::Result<()> {
        self.writing.write_all(&line::encode(request)?).await
    }

    /// Returns the next answer.
    pub(crate) async fn next(&mut self) -> std::io::Result<Response> {
        let closed =
            || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it has closed the connection");
        let answer = line::read(&mut self.reading, ANSWER_BYTES).await?.ok_or_else(closed)?;
        Ok(serde_json::from_str(&answer)?)
    }
}

#[cfg(test)]
mod tests;
