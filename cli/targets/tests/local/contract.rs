//! The behaviour that every orchestrator has to show, on real processes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use libtest_mimic::Trial;
use mlctl_core::contract::{self, Bench, Harness, Version};
use mlctl_core::item::{Desired, ItemKind};
use mlctl_core::ports::{Inspector, Orchestrator, ReleaseInput, ReleaseStore};
use mlctl_targets::local::Local;

use crate::trial;
use crate::world::World;

pub fn trials() -> Vec<Trial> {
    contract::behaviours()
        .into_iter()
        .map(|behaviour| {
            let name = format!("contract: {}", behaviour.name);
            trial(&name, async move || {
                if let Err(seen) = contract::check(&behaviour, &LocalHarness).await {
                    panic!("{seen}");
                }
            })
        })
        .collect()
}

struct LocalHarness;

#[async_trait]
impl Harness for LocalHarness {
    async fn fresh(&self) -> Box<dyn Bench> {
        let world = World::new();
        let local = Arc::new(world.connect().await);
        let ports = (0..2).map(|_| World::free_port()).collect();
        Box::new(LocalBench { world, local, ports })
    }
}

struct LocalBench {
    world: World,
    local: Arc<Local>,
    ports: Vec<u16>,
}

#[async_trait]
impl Bench for LocalBench {
    fn orchestrator(&self) -> Arc<dyn Orchestrator> {
        self.local.clone()
    }

    fn inspector(&self) -> Arc<dyn Inspector> {
        self.local.clone()
    }

    fn releases(&self) -> Arc<dyn ReleaseStore> {
        self.local.clone()
    }

    async fn reconnect(&mut self) {
        self.local = Arc::new(self.world.connect().await);
    }

    async fn desired(&self, version: Version) -> Desired {
        let knobs = match version {
            Version::First => ["version=1", "version=1"],
            Version::Second => ["version=2", "version=2"],
            Version::Broken => ["exit-after=0, code=3", "version=3"],
        };
        let services: String = ["one", "two"]
            .iter()
            .zip(&self.ports)
            .zip(knobs)
            .map(|((name, port), knobs)| World::service(name, *port, knobs))
            .collect();
        let system = World::system(&services);
        let mut desired = self.local.resolve(&system, &ReleaseInput::default()).await.unwrap();
        desired.items.retain(|item| item.id.kind == ItemKind::Workload);
        desired
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn short_lease(&self) -> Duration {
        Duration::from_millis(600)
    }
}
