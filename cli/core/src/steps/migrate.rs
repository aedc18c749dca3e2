//! `migrate`: runs the pending migrations of a release, service by service.

use serde::{Deserialize, Serialize};

use super::{StepError, StepNote};
use crate::item::Item;
use crate::ports::Write;
use crate::run::StepContext;

/// Parameters of `migrate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Migrate {
    /// The migration items, one a service.
    pub items: Vec<Item>,
}

impl Migrate {
    pub(super) async fn run(&self, context: &StepContext<'_>) -> Result<StepNote, StepError> {
        let mut applied = 0;
        for (index, item) in self.items.iter().enumerate() {
            let service = &item.id.name;
            let pending: Vec<String> = context
                .ports
                .stores
                .migrations(item)
                .await?
                .into_iter()
                .filter(|m| m.applied_at.is_none())
                .map(|m| format!("{:04}_{}", m.version, m.name))
                .collect();
            if pending.is_empty() {
                continue;
            }
            context.progress(index as u64, self.items.len() as u64, format!("migrating {service}"));
            let effect = format!("migrate {service}: {}", pending.join(", "));
            context.intend(&effect, None).await?;
            applied += context.ports.stores.migrate(item, context.lease()).await?.len();
            context.done(&effect, None).await?;
        }
        self.keep(context).await?;
        if applied == 0 {
            return Ok(StepNote::skipped("every migration is in"));
        }
        let noun = if applied == 1 { "migration" } else { "migrations" };
        Ok(StepNote::success(format!("{applied} {noun} applied")))
    }

    /// Lets the target keep which migrations it has, where it does not see that in its stores itself: the next plan
    /// compares with it.
    async fn keep(&self, context: &StepContext<'_>) -> Result<(), StepError> {
        let snapshot = context.ports.orchestrator.observe().await?;
        for item in &self.items {
            let live = snapshot.get(&item.id);
            if live.digest.as_ref() == Some(&item.digest) {
                continue;
            }
            let effect = format!("put {} {}", item.id, item.digest.short());
            context.intend(&effect, live.digest.as_ref()).await?;
            let write = Write::Put { item: item.clone(), replicas: None };
            let applied = context.ports.orchestrator.apply(&write, context.fence).await?;
            context.done(&effect, Some(applied.generation)).await?;
        }
        Ok(())
    }
}
