//! Keeps the relay alive and its table up to date.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlctl_core::local_protocol::{EnvSource, Layout, Limits, SocketMode};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::adopt::settled;
use super::shims::start_shim;
use super::supervisor::Message;
use crate::listener::listener_on;
use crate::process::Process;
use crate::record::{ReplicaFolder, ShimSpec};
use crate::relay::{Front, RELAY_PROTOCOL, RelayRequest, RelayResponse, ask, fetch_socket, give_socket};
use crate::{AgentError, disk};

/// Between two starts of a relay that keeps ending.
const START_PAUSE: Duration = Duration::from_millis(500);
/// How long a relay that was just started is waited for.
const START_WAIT: Duration = Duration::from_secs(3);
/// How often ports that were taken are tried again.
const PORT_PAUSE: Duration = Duration::from_millis(500);
/// How long a relay that was asked to end is waited for.
const END_WAIT: Duration = Duration::from_secs(3);

/// The relay as the agent sees it.
pub(super) struct RelayKeeper {
    socket: PathBuf,
    folder: ReplicaFolder,
    root: PathBuf,
    shim: Option<Process>,
    started: Option<Instant>,
    sent: Option<Vec<Front>>,
    in_force: bool,
    asked: Option<Instant>,
    failed: BTreeMap<String, (String, Instant)>,
    /// Copies of the sockets that replicas accept from themselves, by service: with them a relay that has to be
    /// replaced loses no address.
    kept: BTreeMap<String, Kept>,
    tell: mpsc::Sender<Message>,
}

/// A listening socket and its port.
struct Kept {
    port: u16,
    socket: OwnedFd,
}

impl RelayKeeper {
    /// Takes over the relay that runs, if one does and speaks our protocol.
    pub(super) async fn adopt(
        layout: &Layout,
        runtime: &Path,
        tell: mpsc::Sender<Message>,
    ) -> Result<Self, AgentError> {
        let folder = ReplicaFolder(layout.relay());
        disk::make_private_folder(&folder.work())?;
        let shim = settled(&folder).await.map(|status| status.shim);
        let mut keeper = Self {
            socket: layout.relay_socket(runtime),
            folder,
            root: layout.root().to_owned(),
            shim,
            started: None,
            sent: None,
            in_force: false,
            asked: None,
            failed: BTreeMap::new(),
            kept: BTreeMap::new(),
            tell,
        };
        if let Some(shim) = keeper.shim {
            keeper.watch_end(shim);
            match ask(&keeper.socket, &RelayRequest::Hello).await {
                Ok(RelayResponse::Hello { protocol: RELAY_PROTOCOL }) => {}
                // It cannot be talked to: its addresses close for a moment, which is better than for good.
                _ => keeper.stop().await,
            }
        }
        Ok(keeper)
    }

    /// The relay's control socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Why a service's port cannot be taken, and since when.
    pub(super) fn failure(&self, service: &str) -> Option<&(String, Instant)> {
        self.failed.get(service)
    }

    /// Begins anew with the port of a service that was just written: that it was taken before says nothing about now,
    /// and the patience with it is that of the new write.
    pub(super) fn begin_anew(&mut self, service: &str) {
        if self.failed.remove(service).is_some() {
            (self.sent, self.asked) = (None, None);
        }
    }

    /// When to try again by itself.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let ports = (!self.failed.is_empty()).then_some(()).and(self.asked).map(|at| at + PORT_PAUSE);
        let start = self.shim.is_none().then_some(()).and(self.started).map(|at| at + START_PAUSE);
        ports.into_iter().chain(start).min()
    }

    /// Takes note that the relay has ended.
    pub(super) fn has_ended(&mut self) {
        // News of one that was replaced meanwhile say nothing about the present one.
        if !self.shim.is_some_and(Process::is_alive) {
            self.shim = None;
            self.sent = None;
            self.in_force = false;
        }
    }

    /// Says whether the table that was last asked for is in force.
    pub(super) const fn is_in_force(&self) -> bool {
        self.in_force
    }

    /// Makes this the relay's table; starts a relay when there is none. Says whether the table is in force.
    pub(super) async fn sync(&mut self, fronts: Vec<Front>) -> bool {
        self.in_force = self.set_table(fronts).await;
        self.in_force
    }

    async fn set_table(&mut self, fronts: Vec<Front>) -> bool {
        // First: a copy that nobody accepts from any more would keep its port taken.
        self.kept.retain(|service, kept| {
            fronts.iter().any(|f| is_passed(f) && f.service == *service && f.port == kept.port)
        });
        if self.shim.is_none() {
            if fronts.is_empty() {
                self.failed.clear();
                self.started = None;
                return true;
            }
            if !self.start().await {
                return false;
            }
            for (service, kept) in &self.kept {
                // Refused, it is bound anew if it can be; if not, the table says so.
                let _ = give_socket(&self.socket, service, kept.port, &kept.socket).await;
            }
        }
        let due = self.asked.is_none_or(|at| at.elapsed() >= PORT_PAUSE);
        if self.sent.as_ref() == Some(&fronts) && (self.failed.is_empty() || !due) {
            return true;
        }
        self.asked = Some(Instant::now());
        match ask(&self.socket, &RelayRequest::Table { fronts: fronts.clone() }).await {
            Ok(RelayResponse::Table { failed }) => {
                let now = Instant::now();
                let ports: BTreeMap<&str, u16> =
                    fronts.iter().map(|f| (f.service.as_str(), f.port)).collect();
                let before = std::mem::take(&mut self.failed);
                self.failed = failed
                    .into_iter()
                    .map(|(service, reason)| {
                        let port = ports.get(service.as_str()).copied().unwrap_or_default();
                        // Who holds it is looked up once: that reads all of `/proc`.
                        let known = before.get(&service).cloned();
                        (service, known.unwrap_or_else(|| (taken(port, &reason), now)))
                    })
                    .collect();
                self.keep_sockets(&fronts).await;
                self.sent = Some(fronts);
                true
            }
            _ => {
                self.sent = None;
                false
            }
        }
    }

    async fn keep_sockets(&mut self, fronts: &[Front]) {
        for front in fronts.iter().filter(|front| is_passed(front)) {
            let (service, port) = (&front.service, front.port);
            if !self.failed.contains_key(service)
                && !self.kept.contains_key(service)
                && let Ok(socket) = fetch_socket(&self.socket, service).await
            {
                self.kept.insert(service.clone(), Kept { port, socket });
            }
        }
    }

    /// Returns the open connections by replica; none when the relay does not say.
    pub(super) async fn open(&self) -> Option<BTreeMap<String, usize>> {
        self.shim?;
        match ask(&self.socket, &RelayRequest::Open).await {
            Ok(RelayResponse::Open { open }) => Some(open),
            _ => None,
        }
    }

    /// Ends the relay.
    pub(super) async fn stop(&mut self) {
        let Some(shim) = self.shim.take() else { return };
        (self.sent, self.in_force) = (None, false);
        shim.signal(Signal::TERM);
        if tokio::time::timeout(END_WAIT, shim.ended()).await.is_err() {
            shim.signal(Signal::QUIT);
            shim.ended().await;
        }
    }

    async fn start(&mut self) -> bool {
        if self.started.is_some_and(|at| at.elapsed() < START_PAUSE) {
            return false;
        }
        self.started = Some(Instant::now());
        let Ok(mut child) = self.start_shim() else { return false };
        self.shim = child.id().map(Process::of_child);
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let _ = child.wait().await;
            let _ = tell.send(Message::RelayEnded).await;
        });
        let deadline = Instant::now() + START_WAIT;
        while Instant::now() < deadline {
            if ask(&self.socket, &RelayRequest::Hello).await.is_ok() {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        false
    }

    fn start_shim(&self) -> Result<tokio::process::Child, AgentError> {
        let path = std::env::var("PATH").unwrap_or_default();
        let spec = ShimSpec {
            // In the place of the shim, which is this binary.
            argv: ["/proc/self/exe", "relay", "--socket"]
                .map(ToOwned::to_owned)
                .into_iter()
                .chain([self.socket.display().to_string()])
                .collect(),
            env: BTreeMap::from([("PATH".to_owned(), EnvSource::Text(path))]),
            directory: self.folder.work(),
            root: self.root.clone(),
            limits: Limits::default(),
            stop_signal: "TERM".to_owned(),
            grace_ms: 1_000,
            passed: None,
        };
        disk::write_json(&self.folder.shim_spec(), &spec, disk::Durability::Process)?;
        start_shim(&self.folder)
    }

    fn watch_end(&self, shim: Process) {
        let tell = self.tell.clone();
        tokio::spawn(async move {
            shim.ended().await;
            let _ = tell.send(Message::RelayEnded).await;
        });
    }
}

/// Says that a port cannot be had, by whom, and what to do about it.
fn taken(port: u16, reason: &str) -> String {
    let holder = listener_on(port).unwrap_or_else(|| "another process".to_owned());
    format!("port {port} is taken by {holder} ({reason}): end that one, or give the service another port")
}

/// Says whether replicas accept from a front's socket themselves.
fn is_passed(front: &Front) -> bool {
    front.mode == SocketMode::Passed
}
