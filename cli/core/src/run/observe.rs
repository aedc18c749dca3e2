//! Watches the items of a plan from before the first write until the end, and tells each change once.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::sync::watch;

use super::context::{Teller, lock};
use super::retry::Backoff;
use crate::event::EventKind;
use crate::item::ItemId;
use crate::ports::{Observation, Orchestrator};
use crate::snapshot::Live;

/// Where the run stands, for the events that a status change belongs to.
#[derive(Debug, Default, Clone)]
pub(super) struct Place {
    pub(super) phase: String,
    pub(super) step: String,
    pub(super) deadline: Option<Timestamp>,
    /// The items this step waits for; changes of others are not told.
    pub(super) items: Vec<ItemId>,
}

/// Keeps the latest status of every watched item.
pub(super) struct Observer<'a> {
    pub(super) orchestrator: &'a dyn Orchestrator,
    pub(super) teller: &'a Teller<'a>,
    pub(super) ids: Vec<ItemId>,
    pub(super) sender: watch::Sender<BTreeMap<ItemId, Live>>,
    pub(super) place: Mutex<Place>,
    pub(super) seed: u64,
}

impl Observer<'_> {
    /// Watches for ever, reconnecting after a broken stream; ends only when dropped.
    pub(super) async fn run(&self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5), self.seed);
        let mut told = false;
        loop {
            match self.orchestrator.watch(&self.ids).await {
                Ok(mut stream) => {
                    while let Some(Ok(observation)) = stream.next().await {
                        backoff.reset();
                        told = false;
                        self.take(observation);
                    }
                }
                Err(error) if !told => {
                    told = true;
                    self.teller.tell(EventKind::Warning { text: format!("{error}; trying again") });
                }
                Err(_) => {}
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Moves to another step: what it waits for is told afresh.
    pub(super) fn enter(&self, place: Place) {
        *lock(&self.place) = place;
    }

    fn take(&self, observation: Observation) {
        let Observation { id, live } = observation;
        let place = lock(&self.place).clone();
        let mut changed = false;
        self.sender.send_if_modified(|lives| {
            let before = lives.insert(id.clone(), live.clone());
            changed = before.as_ref().is_none_or(|b| b.status != live.status);
            before.as_ref() != Some(&live)
        });
        if changed && place.items.contains(&id) {
            self.teller.tell(EventKind::Workload {
                phase: place.phase,
                step: place.step,
                item: id,
                status: live.status.status,
                ready: live.status.ready,
                updated: live.status.updated,
                desired: live.status.desired,
                cause: live.status.cause,
                deadline: place.deadline,
            });
        }
    }
}
