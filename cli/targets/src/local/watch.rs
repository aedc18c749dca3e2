//! Streams of changes: workloads from the agent, everything else from the files, both in one.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use mlctl_core::item::{ItemId, ItemKind};
use mlctl_core::local_protocol::{Request, Response};
use mlctl_core::ports::{ErrorKind, Observation, OrchestratorError, Result};
use mlctl_core::snapshot::Live;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Local;
use super::client::Conversation;
use super::lease::unexpected;
use super::observe::live_workload;

const WATCH: &str = "watch";
/// Observations that may wait to be read; the agent then waits too.
const QUEUE: usize = 64;
/// Between two looks at files that another process may have changed; our own writes are told at once.
const LOOK: Duration = Duration::from_millis(500);

impl Local {
    /// Streams the items asked for, the present state of each first. Ends when its reader goes, or with an error.
    pub(super) async fn observations(
        &self,
        ids: &[ItemId],
    ) -> Result<BoxStream<'static, Result<Observation>>> {
        let (tell, read) = mpsc::channel(QUEUE);
        let names: Vec<String> =
            ids.iter().filter(|id| id.kind == ItemKind::Workload).map(|id| id.name.clone()).collect();
        if !names.is_empty() {
            // Opened here, so that a target that cannot be reached is an error of the call.
            let mut conversation = self.client.converse(WATCH).await?;
            begin(&mut conversation, &names).await?;
            tokio::spawn(self.clone().watch_workloads(names, conversation, tell.clone()));
        }
        let statics: Vec<ItemId> = ids.iter().filter(|id| id.kind != ItemKind::Workload).cloned().collect();
        if !statics.is_empty() {
            self.statics(&statics).await?;
            tokio::spawn(self.clone().watch_statics(statics, tell));
        }
        let stream = futures::stream::unfold(read, async |mut read| Some((read.recv().await?, read)));
        Ok(stream.boxed())
    }

    async fn watch_workloads(
        self,
        names: Vec<String>,
        mut conversation: Conversation,
        tell: mpsc::Sender<Result<Observation>>,
    ) {
        let mut told: BTreeMap<String, Live> = BTreeMap::new();
        loop {
            let next = tokio::select! {
                next = conversation.next() => next,
                () = tell.closed() => return,
            };
            let observation = match next {
                Ok(Response::Workload { workload }) => {
                    let live = live_workload(&workload);
                    if told.get(&workload.name) == Some(&live) {
                        continue;
                    }
                    told.insert(workload.name.clone(), live.clone());
                    Ok(Observation { id: ItemId::workload(workload.name), live })
                }
                Ok(other) => Err(unexpected(WATCH, &other)),
                // The agent was replaced or killed: its successor goes on where it was.
                Err(_) => match self.client.rejoin(WATCH).await {
                    Ok(again) => {
                        conversation = again;
                        match begin(&mut conversation, &names).await {
                            Ok(()) => continue,
                            Err(error) => Err(error),
                        }
                    }
                    Err(error) => Err(error),
                },
            };
            let failed = observation.is_err();
            if tell.send(observation).await.is_err() || failed {
                return;
            }
        }
    }

    async fn watch_statics(self, ids: Vec<ItemId>, tell: mpsc::Sender<Result<Observation>>) {
        let mut written = self.written.subscribe();
        let mut told: BTreeMap<ItemId, Live> = BTreeMap::new();
        loop {
            match self.statics(&ids).await {
                Ok(lives) => {
                    for (id, live) in lives {
                        if told.get(&id) != Some(&live) {
                            told.insert(id.clone(), live.clone());
                            if tell.send(Ok(Observation { id, live })).await.is_err() {
                                return;
                            }
                        }
                    }
                }
                Err(error) => {
                    let _ = tell.send(Err(error)).await;
                    return;
                }
            }
            tokio::select! {
                _ = written.changed() => {}
                () = sleep(LOOK) => {}
                () = tell.closed() => return,
            }
        }
    }
}

async fn begin(conversation: &mut Conversation, names: &[String]) -> Result<()> {
    let request = Request::Watch { names: names.to_vec() };
    conversation.send(&request).await.map_err(|error| {
        OrchestratorError::new(ErrorKind::Unavailable, WATCH, "the agent", error.to_string())
    })
}
