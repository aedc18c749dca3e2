//! A state folder with an agent in it, and what a client does there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mlctl_agent::Process;
use mlctl_core::item::Digest;
use mlctl_core::local_protocol::{
    HealthSpec, Layout, Limits, PROTOCOL, ProbeProtocol, ReplicaView, Request, Response, SocketMode,
    UpdateSpec, WorkloadSpec, WorkloadView,
};
use mlctl_core::ports::{Fence, LockRequest, TargetEvent};
use mlctl_core::release::Operator;
use mlctl_core::status::Status;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// The longest any single thing may take here.
const PATIENCE: Duration = Duration::from_secs(15);

pub struct World {
    folder: TempDir,
    pub layout: Layout,
    agent: Option<Child>,
    pub fence: Fence,
}

impl World {
    /// A folder with an agent whose lease is ours.
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().join("state"));
        let mut world = Self { folder, layout, agent: None, fence: Fence(0) };
        world.start_agent().await;
        match world.ask(Request::Lock { lock: lock_request("test", std::process::id()) }).await {
            Response::Locked { holder } => world.fence = holder.fence,
            other => panic!("{other:?}"),
        }
        world
    }

    pub fn runtime(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    pub async fn start_agent(&mut self) {
        self.agent = Some(self.agent_command().stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        let socket = self.layout.agent_socket(&self.runtime());
        until("the agent answers", async || UnixStream::connect(&socket).await.ok().map(drop)).await;
    }

    pub fn agent_command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("agent").arg("--folder").arg(self.root()).arg("--runtime").arg(self.runtime());
        command.args(["--build", "test"]);
        command
    }

    /// Kills the agent the hard way.
    pub async fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().await.unwrap();
    }

    /// Waits until the agent has ended by itself.
    pub async fn agent_ended(&mut self) {
        let mut agent = self.agent.take().unwrap();
        let status = timeout(PATIENCE, agent.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }

    pub async fn connect(&self) -> Connection {
        let stream = UnixStream::connect(self.layout.agent_socket(&self.runtime())).await.unwrap();
        let (reading, writing) = stream.into_split();
        let mut connection = Connection { reading: BufReader::new(reading), writing };
        let hello = connection.ask(&Request::Hello { protocol: PROTOCOL, build: "test".to_owned() }).await;
        assert!(matches!(hello, Response::Hello { protocol: PROTOCOL, .. }), "{hello:?}");
        connection
    }

    pub async fn ask(&self, request: Request) -> Response {
        self.connect().await.ask(&request).await
    }

    pub async fn put(&self, spec: &WorkloadSpec, replicas: u32) -> u64 {
        let digest = Digest::of_json(&serde_json::to_value(spec).unwrap());
        let spec = Box::new(spec.clone());
        self.applied(Request::Put { fence: self.fence, digest, spec, replicas }).await
    }

    pub async fn applied(&self, request: Request) -> u64 {
        match self.ask(request).await {
            Response::Applied { generation } => generation,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a workload's view is as wanted.
    pub async fn seen(&self, name: &str, what: &str, wanted: impl Fn(&WorkloadView) -> bool) -> WorkloadView {
        let mut connection = self.connect().await;
        connection.send(&Request::Watch { names: vec![name.to_owned()] }).await;
        let mut last = None;
        let result = timeout(PATIENCE, async {
            loop {
                match connection.receive().await {
                    Response::Workload { workload } if wanted(&workload) => return workload,
                    Response::Workload { workload } => last = Some(workload),
                    other => panic!("{other:?}"),
                }
            }
        })
        .await;
        result.unwrap_or_else(|_| panic!("{name} is not {what} in time; last seen {last:#?}"))
    }

    /// Puts a workload and waits until it is current.
    pub async fn run(&self, spec: &WorkloadSpec, replicas: u32) {
        let generation = self.put(spec, replicas).await;
        self.current(&spec.name, generation).await;
    }

    pub async fn current(&self, name: &str, generation: u64) -> WorkloadView {
        self.seen(name, "current", |v| {
            v.observed_generation >= generation && v.status.status == Status::Current
        })
        .await
    }

    pub async fn replicas(&self) -> Vec<ReplicaView> {
        match self.ask(Request::Replicas { name: None }).await {
            Response::Replicas { replicas } => replicas,
            other => panic!("{other:?}"),
        }
    }

    pub async fn events(&self) -> Vec<TargetEvent> {
        match self.ask(Request::Events { since: None }).await {
            Response::Events { events } => events,
            other => panic!("{other:?}"),
        }
    }

    /// The processes of a replica: its shim and its program.
    pub fn processes(&self, replica: &str) -> (Process, Process) {
        processes(&self.layout.replicas().join(replica))
    }

    /// Says whether the limits of a replica are approximate: no control group could be made for it.
    pub fn is_approximate(&self, replica: &str) -> bool {
        let path = self.layout.replicas().join(replica).join("status.json");
        let status: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        !status["approximate"].is_null()
    }

    pub fn log(&self, replica: &str) -> String {
        std::fs::read_to_string(self.layout.replicas().join(replica).join("log")).unwrap_or_default()
    }
}

/// Reads who runs in a replica's folder.
pub fn processes(folder: &Path) -> (Process, Process) {
    known_processes(folder).unwrap()
}

/// The same, where a test may have spoiled the file.
fn known_processes(folder: &Path) -> Option<(Process, Process)> {
    let text = std::fs::read_to_string(folder.join("status.json")).ok()?;
    let status: serde_json::Value = serde_json::from_str(&text).ok()?;
    let read = |name: &str| serde_json::from_value(status[name].clone()).ok();
    Some((read("shim")?, read("program")?))
}

impl Drop for World {
    fn drop(&mut self) {
        // Whatever the test did, nothing may run on: shims by their own records, the agent by its handle.
        if let Some(agent) = &mut self.agent {
            let _ = agent.start_kill();
        }
        let replicas =
            std::fs::read_dir(self.layout.replicas()).into_iter().flatten().flatten().map(|e| e.path());
        for folder in replicas.chain([self.layout.relay()]) {
            if let Some((shim, _)) = known_processes(&folder).filter(|(shim, _)| shim.is_alive()) {
                kill(shim, "-KILL");
            }
        }
    }
}

pub fn kill(process: Process, signal: &str) {
    let status = std::process::Command::new("kill").arg(signal).arg(process.pid.to_string()).status();
    assert!(status.unwrap().success());
}

pub struct Connection {
    reading: BufReader<tokio::net::unix::OwnedReadHalf>,
    writing: tokio::net::unix::OwnedWriteHalf,
}

impl Connection {
    pub async fn ask(&mut self, request: &Request) -> Response {
        self.send(request).await;
        timeout(PATIENCE, self.receive()).await.unwrap()
    }

    pub async fn send(&mut self, request: &Request) {
        let line = serde_json::to_string(request).unwrap() + "\n";
        self.writing.write_all(line.as_bytes()).await.unwrap();
    }

    /// Sends so many bytes without an end of line, or as many as are taken; returns why it was refused.
    pub async fn pour(&mut self, bytes: usize) -> String {
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..bytes / piece.len() {
            if self.writing.write_all(&piece).await.is_err() {
                break;
            }
        }
        match timeout(PATIENCE, self.receive()).await.unwrap() {
            Response::Refused { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    /// Sends bytes, and nothing after them; returns all that is answered.
    pub async fn throw(&mut self, bytes: &[u8]) -> String {
        // Whoever is refused in the middle cannot send the rest.
        let _ = self.writing.write_all(bytes).await;
        let _ = self.writing.shutdown().await;
        let mut answers = Vec::new();
        let _ = self.reading.read_to_end(&mut answers).await;
        String::from_utf8(answers).unwrap()
    }

    pub async fn receive(&mut self) -> Response {
        let mut line = String::new();
        let read = self.reading.read_line(&mut line).await.unwrap();
        assert!(read > 0, "the agent has closed the connection");
        serde_json::from_str(&line).unwrap()
    }
}

/// Waits until something holds.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not in time");
        sleep(Duration::from_millis(10)).await;
    }
}

pub fn lock_request(name: &str, pid: u32) -> LockRequest {
    LockRequest {
        operation: "deploy".to_owned(),
        operator: Operator {
            name: name.to_owned(),
            host: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned(),
        },
        run: "run-1".to_owned(),
        pid,
        pid_start: Process::find(pid).map_or(1, |p| p.start),
        ttl: Duration::from_secs(120),
    }
}

/// A service of the fixture program on a stable port.
pub fn service(name: &str, knobs: &[&str]) -> WorkloadSpec {
    let exe = std::env::current_exe().unwrap().display().to_string();
    let mut argv = vec![exe, "fixture".to_owned(), "port={port}".to_owned()];
    argv.extend(knobs.iter().map(|k| (*k).to_owned()));
    WorkloadSpec {
        name: name.to_owned(),
        argv,
        artifact: None,
        directory: None,
        env: BTreeMap::new(),
        files: Vec::new(),
        port: Some(free_port()),
        socket: SocketMode::Relay,
        metrics_path: None,
        health: HealthSpec {
            protocol: ProbeProtocol::Http,
            startup: None,
            live: Some("/live".to_owned()),
            ready: Some("/ready".to_owned()),
            period_ms: 100,
            timeout_ms: 2_000,
            failures: 2,
            grace_ms: 5_000,
        },
        update: UpdateSpec {
            surge: 1,
            unavailable: 0,
            min_ready_ms: 100,
            drain_ms: 5_000,
            stop_grace_ms: 5_000,
            stop_signal: "TERM".to_owned(),
            progress_deadline_ms: 60_000,
        },
        limits: Limits::default(),
        needs: Vec::new(),
        while_needed: false,
    }
}

/// A service that gets its listening socket passed and serves its probes on a metrics port.
pub fn passed(name: &str, knobs: &[&str]) -> WorkloadSpec {
    let mut spec = service(name, knobs);
    spec.argv[2] = "metrics={metrics_port}".to_owned();
    spec.argv.push("listen-fds".to_owned());
    spec.socket = SocketMode::Passed;
    spec
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks a service for its version over one connection.
pub async fn get(port: u16) -> Result<String, String> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = timeout(PATIENCE, exchange).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") && !body.is_empty() => Ok(body.to_owned()),
        _ => Err(format!("not an answer: {text:?}")),
    }
}

/// Answers by version, and failures.
pub type Counts = (BTreeMap<String, usize>, Vec<String>);

/// A constant small load until stopped.
pub struct Load {
    stop: tokio::sync::watch::Sender<bool>,
    workers: Vec<tokio::task::JoinHandle<Counts>>,
}

impl Load {
    pub fn start(port: u16, workers: usize) -> Self {
        let stop = tokio::sync::watch::Sender::new(false);
        let workers = (0..workers)
            .map(|_| {
                let stopped = stop.subscribe();
                tokio::spawn(async move {
                    let (mut answers, mut failures) = (BTreeMap::new(), Vec::new());
                    while !*stopped.borrow() {
                        match get(port).await {
                            Ok(version) => *answers.entry(version).or_default() += 1,
                            Err(error) => failures.push(error),
                        }
                        sleep(Duration::from_millis(2)).await;
                    }
                    (answers, failures)
                })
            })
            .collect();
        Self { stop, workers }
    }

    pub async fn stop(self) -> Counts {
        self.stop.send_replace(true);
        let (mut answers, mut failures) = (BTreeMap::new(), Vec::new());
        for worker in self.workers {
            let (theirs, failed) = worker.await.unwrap();
            for (version, count) in theirs {
                *answers.entry(version).or_default() += count;
            }
            failures.extend(failed);
        }
        (answers, failures)
    }
}
