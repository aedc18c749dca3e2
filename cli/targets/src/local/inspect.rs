//! The reading side: replicas, events, probes, metrics, addresses.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use futures::stream::BoxStream;
use jiff::Timestamp;
use mlctl_core::item::{ItemId, ItemKind};
use mlctl_core::local_protocol::{ReplicaView, Request, Response};
use mlctl_core::ports::{
    ErrorKind, Inspector, LogLine, LogQuery, OrchestratorError, ProbeAnswer, ProbeRequest, Replica, Result,
    Scrape, TargetEvent, Through,
};
use mlctl_core::secret::Secret;

use super::items::{self, LocalWorkload};
use super::routes::address;
use super::servers::LocalStore;
use super::{Local, lease, logs, secrets};
use crate::probe::{METRICS_BYTES, get, probe};

/// For the metrics of one replica.
const SCRAPE_WAIT: Duration = Duration::from_secs(5);

impl Local {
    fn workload(&self, name: &str) -> Result<Option<LocalWorkload>> {
        let record = items::find(&self.layout, &ItemId::workload(name))?.filter(|record| !record.removed);
        record.map(|record| LocalWorkload::of(&record.item, "read")).transpose()
    }

    /// Returns the server of a store, which has replicas and logs as a workload has.
    fn server(&self, name: &str) -> Result<Option<LocalWorkload>> {
        let record = items::find(&self.layout, &ItemId::new(ItemKind::Store, name))?;
        let Some(record) = record.filter(|record| !record.removed) else { return Ok(None) };
        let server = LocalStore::of(&record.item, "read")?.server;
        Ok(server.map(|spec| LocalWorkload { spec, source: None, gateway: false }))
    }

    fn known(&self, operation: &'static str, name: &str) -> Result<LocalWorkload> {
        let found = match self.workload(name)? {
            None => self.server(name)?,
            found => found,
        };
        found.ok_or_else(|| {
            let reason = "there is no such workload; `mlctl status` lists those there are";
            OrchestratorError::new(ErrorKind::NotFound, operation, format!("workload {name}"), reason)
        })
    }

    fn gateway_port(&self) -> Result<Option<u16>> {
        let workloads = items::all(&self.layout)?;
        let front = workloads
            .values()
            .filter_map(|record| LocalWorkload::of(&record.item, "read").ok())
            .find(|workload| workload.gateway);
        Ok(front.and_then(|workload| workload.spec.port))
    }

    async fn views(&self, operation: &'static str, name: Option<&str>) -> Result<Vec<ReplicaView>> {
        if !self.client.has_state().await {
            return Ok(Vec::new());
        }
        let request = Request::Replicas { name: name.map(ToOwned::to_owned) };
        match self.client.ask(operation, "replicas", request).await? {
            Response::Replicas { replicas } => Ok(replicas),
            other => Err(lease::unexpected(operation, &other)),
        }
    }
}

#[async_trait]
impl Inspector for Local {
    async fn logs(&self, query: &LogQuery) -> Result<BoxStream<'static, Result<LogLine>>> {
        if !logs::has_any(&self.layout, &query.service)? {
            self.known("read the logs of", &query.service)?;
        }
        logs::stream(&self.layout, query)
    }

    async fn events(&self, since: Option<Timestamp>) -> Result<Vec<TargetEvent>> {
        if !self.client.has_state().await {
            return Ok(Vec::new());
        }
        match self.client.ask("read", "events", Request::Events { since }).await? {
            Response::Events { events } => Ok(events),
            other => Err(lease::unexpected("read", &other)),
        }
    }

    async fn replicas(&self, service: Option<&str>) -> Result<Vec<Replica>> {
        if let Some(name) = service {
            self.known("list the replicas of", name)?;
        }
        let views = self.views("list", service).await?;
        Ok(views.into_iter().map(|view| view.replica).collect())
    }

    async fn probe(&self, request: &ProbeRequest) -> Result<Vec<ProbeAnswer>> {
        let unanswered = |subject: &str, reason: &str| ProbeAnswer {
            subject: subject.to_owned(),
            url: request.path.clone(),
            status: None,
            detail: reason.to_owned(),
            took: Duration::ZERO,
        };
        let ask = async |subject: &str, port: u16| {
            probe(subject, &address(port), &request.path, request.timeout).await
        };
        match request.through {
            Through::Gateway => Ok(vec![match self.gateway_port()? {
                Some(port) => ask(&request.service, port).await,
                None => unanswered(&request.service, "this system has no public front here"),
            }]),
            Through::Service => Ok(vec![match self.workload(&request.service)?.and_then(|w| w.spec.port) {
                Some(port) => ask(&request.service, port).await,
                None => unanswered(&request.service, "it has no stable address here"),
            }]),
            Through::Replicas => {
                let views = self.views("probe", Some(&request.service)).await?;
                let questions = views.iter().map(async |view| {
                    let name = view.replica.name.as_str();
                    // With a passed socket a replica has no port of its own but that of its metrics.
                    match view.port.or(view.metrics_port) {
                        Some(port) => ask(name, port).await,
                        None => unanswered(name, "it has no port of its own"),
                    }
                });
                Ok(join_all(questions).await)
            }
        }
    }

    async fn scrape(&self, service: &str) -> Result<Vec<Scrape>> {
        let Some(path) = self.known("read the metrics of", service)?.spec.metrics_path else {
            return Ok(Vec::new());
        };
        let views = self.views("read the metrics of", Some(service)).await?;
        let questions = views.iter().map(async |view| {
            let body = match view.metrics_port {
                None => Err("it has no metrics port".to_owned()),
                Some(port) => match get(&address(port), &path, SCRAPE_WAIT, METRICS_BYTES).await {
                    Ok(answer) if answer.status == 200 => {
                        String::from_utf8(answer.body).map_err(|_| "the answer is no text".to_owned())
                    }
                    Ok(answer) => Err(format!("{path} answers {}", answer.status)),
                    Err(reason) => Err(reason),
                },
            };
            Scrape { replica: view.replica.name.clone(), body }
        });
        Ok(join_all(questions).await)
    }

    async fn address(&self, service: Option<&str>) -> Result<Option<String>> {
        let port = match service {
            None => self.gateway_port()?,
            Some(name) => self.workload(name)?.and_then(|workload| workload.spec.port),
        };
        Ok(port.map(|port| format!("http://{}", address(port))))
    }

    async fn secret(&self, name: &str) -> Result<Option<Secret>> {
        secrets::read(&self.layout, name)
    }
}
