//! The simulation keeps the contract that every orchestrator has to keep.

#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mlctl_core::contract::{Bench, Harness, Version, suite};
use mlctl_core::item::Desired;
use mlctl_core::ports::{Inspector, Orchestrator, ReleaseInput, ReleaseStore};
use mlctl_core::sim::Sim;
use mlctl_core::system::SystemFile;

const SCRIPT: &str = r#"
    [[fault]]
    item = "one"
    contains = "version=broken"
    crash = "0s"
"#;

struct Simulated;

#[async_trait]
impl Harness for Simulated {
    async fn fresh(&self) -> Box<dyn Bench> {
        Box::new(Target(Sim::from_toml(SCRIPT).unwrap()))
    }
}

struct Target(Sim);

#[async_trait]
impl Bench for Target {
    fn orchestrator(&self) -> Arc<dyn Orchestrator> {
        Arc::new(self.0.clone())
    }

    fn inspector(&self) -> Arc<dyn Inspector> {
        Arc::new(self.0.clone())
    }

    fn releases(&self) -> Arc<dyn ReleaseStore> {
        Arc::new(self.0.clone())
    }

    async fn reconnect(&mut self) {
        let saved = self.0.save().unwrap();
        self.0 = Sim::restore(SCRIPT, &saved).unwrap();
    }

    async fn desired(&self, version: Version) -> Desired {
        let word = match version {
            Version::First => "first",
            Version::Second => "second",
            Version::Broken => "broken",
        };
        let system = format!(
            r#"
apiVersion: mlctl/v1
system: contract
services:
  one: {{port: 4001, command: [one, "version={word}"], replicas: {{min: 1, max: 3}}}}
  two: {{port: 4002, command: [two, "version={word}"], replicas: {{min: 1, max: 3}}}}
"#
        );
        let system = SystemFile::parse("mlctl.yaml", system.as_bytes()).unwrap().system().unwrap();
        let mut desired = self.0.resolve(&system, &ReleaseInput::default()).await.unwrap();
        desired.items.retain(|item| item.id.kind == mlctl_core::item::ItemKind::Workload);
        desired
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn short_lease(&self) -> Duration {
        Duration::from_secs(2)
    }
}

#[tokio::test(start_paused = true)]
async fn the_simulation_keeps_the_contract() {
    let findings = suite(&Simulated).await;
    assert!(findings.is_kept(), "{findings}");
    assert!(findings.shown.len() > 20, "{findings}");
}
