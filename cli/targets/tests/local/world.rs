//! A state folder of its own with whatever a test starts in it, and systems of the fixture program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use mlctl_core::ports::{LockLine as _, LockRequest, Orchestrator as _};
use mlctl_core::release::Operator;
use mlctl_core::secret::Secret;
use mlctl_core::system::{System, SystemFile};
use mlctl_targets::local::{Local, LocalSettings, connect};
use tempfile::TempDir;

/// A state folder, and a folder with a system's sources.
pub struct World {
    pub folder: TempDir,
}

impl World {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn sources(&self) -> PathBuf {
        let path = self.folder.path().join("sources");
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn settings(&self, build: &str) -> LocalSettings {
        LocalSettings {
            folder: self.state(),
            exe: std::env::current_exe().unwrap(),
            build: build.to_owned(),
            runtime_dir: self.folder.path().join("run"),
            system: Self::system(&Self::service("none", 1, "version=1")),
            source_dir: self.sources(),
            secret_values: BTreeMap::from([("given".to_owned(), Secret::new("from-outside"))]),
        }
    }

    pub async fn connect(&self) -> Local {
        connect(self.settings("test")).await.unwrap()
    }

    pub fn system(services: &str) -> System {
        let text = format!("apiVersion: mlctl/v1\nsystem: test\nservices:\n{services}");
        SystemFile::parse("mlctl.yaml", text.as_bytes()).unwrap_or_else(|e| panic!("{e}")).system().unwrap()
    }

    /// A service of the fixture program.
    pub fn service(name: &str, port: u16, knobs: &str) -> String {
        let exe = std::env::current_exe().unwrap();
        format!(
            "  {name}:
    command: [{}, fixture, \"port={{port}}\", {knobs}]
    port: {port}
    health: {{live: /live, ready: /ready, period: 100ms, timeout: 2s}}
    replicas: {{min: 1, max: 3}}
    update: {{minReady: 50ms, drain: 2s, progressDeadline: 30s}}
    stop: {{grace: 2s}}
",
            exe.display()
        )
    }

    pub fn free_port() -> u16 {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // In a runtime of its own: whatever the test did, nothing may run on.
        let settings = self.settings("test");
        let stopped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(stop(settings))
        });
        if let Err(error) = stopped.join().unwrap() {
            assert!(std::thread::panicking(), "{error}");
        }
    }
}

/// Ends the agent with its replicas, whoever has the lease or waits for it.
async fn stop(settings: LocalSettings) -> mlctl_core::ports::Result<()> {
    let local = connect(settings).await?;
    if !local.is_running().await {
        return Ok(());
    }
    let state = local.lock_state().await?;
    for waiter in &state.line {
        local.leave_line(&waiter.request).await?;
    }
    let request = lock_request();
    if let Some(holder) = &state.holder {
        local.break_lock(holder.fence, &request.operator, true).await?;
    }
    let lease = local.lock(&request).await?;
    local.stop(lease.fence()).await
}

pub fn lock_request() -> LockRequest {
    LockRequest {
        operation: "test".to_owned(),
        operator: Operator { name: "test".to_owned(), host: "elsewhere".to_owned() },
        run: "run".to_owned(),
        pid: 1,
        pid_start: 0,
        ttl: Duration::from_secs(60),
    }
}
