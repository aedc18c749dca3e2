//! The reading side of the simulation: logs, events, replicas, HTTP answers, metrics.

use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;

use super::script::Fault;
use super::{Beat, Sim, SimItem, World};
use crate::clock::Clock as _;
use crate::item::{Item, ItemId, ItemKind};
use crate::overrides::OverrideKind;
use crate::ports::{
    ErrorKind, Inspector, LogLine, LogQuery, OrchestratorError, ProbeAnswer, ProbeRequest, Replica, Result,
    Scrape, TargetEvent, Through,
};
use crate::secret::Secret;
use crate::snapshot::Live;

/// How long an answer takes.
const ANSWER: Duration = Duration::from_millis(3);

#[async_trait]
impl Inspector for Sim {
    async fn logs(&self, query: &LogQuery) -> Result<BoxStream<'static, Result<LogLine>>> {
        self.enter("logs", &query.service).await?;
        let id = self.known("logs", &query.service)?;
        let mut lines: Vec<LogLine> = self
            .beats_of(|each| *each == id)
            .into_iter()
            .flat_map(|(id, beat)| {
                let at = self.wall(beat.at_ms);
                let told =
                    beat.event.iter().map(|(reason, text)| format!("{reason}: {text}")).collect::<Vec<_>>();
                // What ends is not among those that serve.
                let nth = if beat.exit.is_some() { beat.live.status.ready + 1 } else { 1 };
                let (service, replica) = (id.name.clone(), format!("{}-{nth}", id.name));
                beat.log.into_iter().chain(told).map(move |text| LogLine {
                    service: service.clone(),
                    replica: replica.clone(),
                    at: Some(at),
                    text,
                })
            })
            .filter(|line| query.since.is_none_or(|since| line.at >= Some(since)))
            .filter(|line| query.until.is_none_or(|until| line.at <= Some(until)))
            .collect();
        if let Some(tail) = query.tail {
            lines.drain(..lines.len().saturating_sub(tail));
        }
        let past = stream::iter(lines.into_iter().map(Ok));
        Ok(if query.follow { past.chain(stream::pending()).boxed() } else { past.boxed() })
    }

    async fn events(&self, since: Option<Timestamp>) -> Result<Vec<TargetEvent>> {
        self.enter("events", "the target").await?;
        let told = self.beats_of(|_| true).into_iter().filter_map(|(id, beat)| {
            let (reason, text) = beat.event?;
            Some(TargetEvent { at: self.wall(beat.at_ms), id, replica: None, reason, text })
        });
        let mut events: Vec<_> = told.filter(|event| since.is_none_or(|since| event.at >= since)).collect();
        events.sort_by_key(|event| event.at);
        Ok(events)
    }

    async fn replicas(&self, service: Option<&str>) -> Result<Vec<Replica>> {
        self.enter("replicas", service.unwrap_or("all")).await?;
        if let Some(service) = service {
            self.known("replicas", service)?;
        }
        let now_ms = self.now_ms();
        let state = self.state();
        let wanted =
            |id: &ItemId| id.kind == ItemKind::Workload && service.is_none_or(|name| id.name == name);
        let items = state.world.items.iter().filter(|(id, _)| wanted(id));
        Ok(items.flat_map(|(id, item)| self.replicas_of(id, item, now_ms)).collect())
    }

    async fn probe(&self, request: &ProbeRequest) -> Result<Vec<ProbeAnswer>> {
        self.enter("probe", &request.service).await?;
        tokio::time::sleep(ANSWER.min(request.timeout)).await;
        let (now, now_ms) = (self.clock().now(), self.now_ms());
        let state = self.state();
        let world = &state.world;
        let answer = |subject: String, status: Option<u16>, detail: String| {
            let url = format!("sim://{subject}{}", request.path);
            ProbeAnswer { subject, url, status, detail, took: ANSWER }
        };
        let scripted = self.0.script.answers.iter().rev();
        let mut scripted = scripted.filter(|a| a.path == request.path && a.from.as_millis() <= now_ms);
        let maintenance = world
            .overrides
            .iter()
            .any(|entry| matches!(entry.kind, OverrideKind::Maintenance { .. }) && entry.in_force(now));
        let users = request.path.starts_with("/api/") && !request.path.ends_with("/health");
        let closed = maintenance && request.through == Through::Gateway && users;
        let (status, body) = match scripted.next() {
            _ if closed => (503, "closed for maintenance".to_owned()),
            Some(scripted) => (scripted.status, scripted.body.clone()),
            None => self.health(world, &request.service),
        };
        let refused = || "connection refused".to_owned();
        Ok(match request.through {
            Through::Replicas => {
                let ready = world.live(&ItemId::workload(&request.service), now_ms).status.ready;
                let subjects = (1..=ready).map(|nth| format!("{}-{nth}", request.service));
                subjects.map(|subject| answer(subject, Some(status), body.clone())).collect()
            }
            Through::Service if !world.serves(&request.service, now_ms) => {
                vec![answer(request.service.clone(), None, refused())]
            }
            Through::Service => vec![answer(request.service.clone(), Some(status), body)],
            Through::Gateway => {
                let front = front(world).map(|item| item.id.name.clone());
                let Some(front) = front.filter(|front| world.serves(front, now_ms)) else {
                    return Ok(vec![answer(request.service.clone(), None, refused())]);
                };
                // A scripted path is the front's own; else it passes on to the service that is meant.
                let known = world.items.contains_key(&ItemId::workload(&request.service));
                let away = known && request.service != front && !world.serves(&request.service, now_ms);
                let (status, body) =
                    if away { (503, "no replica is ready".to_owned()) } else { (status, body) };
                vec![answer(request.service.clone(), Some(status), body)]
            }
        })
    }

    async fn scrape(&self, service: &str) -> Result<Vec<Scrape>> {
        self.enter("scrape", service).await?;
        let id = self.known("scrape", service)?;
        let state = self.state();
        let Some(item) = state.world.items.get(&id).and_then(|live| live.item.as_ref()) else {
            return Ok(Vec::new());
        };
        let series =
            item.payload.get("series").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        let missing: Vec<&String> =
            self.faults(&state.world, item).into_iter().flat_map(|fault| &fault.series_missing).collect();
        let mut body = String::new();
        for name in series.iter().filter_map(serde_json::Value::as_str) {
            if !missing.iter().any(|each| *each == name) {
                // Writing to a String cannot fail.
                let _ = writeln!(body, "{name} 0");
            }
        }
        let ready = state.world.live(&id, self.now_ms()).status.ready;
        Ok((1..=ready)
            .map(|nth| Scrape { replica: format!("{service}-{nth}"), body: Ok(body.clone()) })
            .collect())
    }

    async fn address(&self, service: Option<&str>) -> Result<Option<String>> {
        self.enter("address", service.unwrap_or("the front")).await?;
        let state = self.state();
        let item = match service {
            Some(name) => state.world.items.get(&ItemId::workload(name)).and_then(|live| live.item.as_ref()),
            None => front(&state.world),
        };
        let port = item.and_then(|item| item.payload.get("port")).and_then(serde_json::Value::as_u64);
        Ok(port.map(|port| format!("http://127.0.0.1:{port}")))
    }

    async fn secret(&self, name: &str) -> Result<Option<Secret>> {
        self.enter("secret", name).await?;
        if let Some(value) = self.0.script.secrets.get(name) {
            return Ok(Some(Secret::new(value.clone())));
        }
        let kept = self.state().world.items.contains_key(&ItemId::new(ItemKind::Secret, name));
        Ok(kept.then(|| Secret::new(format!("simulated-{name}"))))
    }
}

/// Returns the public front, when the system has one.
pub(super) fn front(world: &World) -> Option<&Item> {
    let items = world.items.values().filter_map(|live| live.item.as_ref());
    items
        .into_iter()
        .find(|item| item.payload.get("gateway").and_then(serde_json::Value::as_bool) == Some(true))
}

impl Sim {
    /// Returns the faults that hit what an item runs now.
    pub(super) fn faults(&self, world: &World, item: &Item) -> Vec<&Fault> {
        let nth = world.items.get(&item.id).map_or(0, SimItem::nth);
        self.0.script.faults_of(item, nth).collect()
    }

    /// Returns what the deep health of a service answers.
    fn health(&self, world: &World, service: &str) -> (u16, String) {
        let item = world.items.get(&ItemId::workload(service)).and_then(|live| live.item.as_ref());
        let faults = item.map(|item| self.faults(world, item)).unwrap_or_default();
        let bad = faults
            .into_iter()
            .find_map(|fault| Some((fault.health?, fault.body.clone().unwrap_or_default())));
        bad.unwrap_or_else(|| (200, r#"{"status":"ok"}"#.to_owned()))
    }

    fn known(&self, operation: &'static str, service: &str) -> Result<ItemId> {
        let id = ItemId::workload(service);
        if self.state().world.items.contains_key(&id) {
            return Ok(id);
        }
        Err(OrchestratorError::new(ErrorKind::NotFound, operation, service, "no such workload runs here"))
    }

    fn wall(&self, at_ms: u64) -> Timestamp {
        let ago = Duration::from_millis(self.now_ms().saturating_sub(at_ms));
        self.now().saturating_sub(ago).unwrap_or(Timestamp::MIN)
    }

    /// Returns what has happened to items so far, each item's in order.
    fn beats_of(&self, wanted: impl Fn(&ItemId) -> bool) -> Vec<(ItemId, Beat)> {
        let now_ms = self.now_ms();
        let state = self.state();
        let past = state.world.past.iter().cloned();
        let present = state.world.items.iter();
        let present = present.flat_map(|(id, item)| item.beats.iter().map(|beat| (id.clone(), beat.clone())));
        let all = past.chain(present.collect::<Vec<_>>());
        all.filter(|(id, beat)| wanted(id) && beat.at_ms <= now_ms).collect()
    }

    /// Returns the replicas that a status implies: old ones that still serve, new ones that are ready, and those that
    /// are not yet.
    fn replicas_of(&self, id: &ItemId, item: &SimItem, now_ms: u64) -> Vec<Replica> {
        let Some(beat) = item.beat(now_ms) else { return Vec::new() };
        let status = &beat.live.status;
        let short =
            |live: &Live| live.digest.as_ref().map_or_else(String::new, |digest| digest.short().to_owned());
        let new = short(&beat.live);
        let old = item.beats.first().map_or_else(String::new, |first| short(&first.live));
        let waiting = match status.cause.as_ref().map(|cause| cause.code.as_str()) {
            Some("exited" | "crash_loop") => "back_off",
            Some("not_ready") => "running",
            _ => "starting",
        };
        let updated = status.updated.min(status.ready);
        let surge = u32::from(status.cause.is_some() && status.updated < status.desired);
        let missing = status.desired.saturating_sub(status.ready).max(surge);
        let kinds = [(status.ready - updated, &old, true), (updated, &new, true), (missing, &new, false)];
        let each =
            kinds.into_iter().flat_map(|(count, revision, ready)| (0..count).map(move |_| (revision, ready)));
        each.enumerate()
            .map(|(at, (revision, ready))| Replica {
                name: format!("{}-{}", id.name, at + 1),
                service: id.name.clone(),
                revision: revision.clone(),
                outdated: *revision != new,
                state: (if ready { "ready" } else { waiting }).to_owned(),
                ready,
                restarts: if ready { 0 } else { beat.crashes },
                since: self.wall(beat.at_ms),
                last_exit: beat.exit.clone().filter(|_| !ready),
                cpu_millis: None,
                memory_bytes: None,
            })
            .collect()
    }
}
