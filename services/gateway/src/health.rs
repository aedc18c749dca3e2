//! `GET /health`: the gateway's own state and that of every service, as one answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use service_kit::Health;
use service_kit::client::{CallError, Client};
use service_kit::extract::Json;
use service_kit::health::{CheckReport, Report};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::reload::Routes;
use crate::table::Service;

/// How long a service may take to say how it is.
pub(crate) const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Anybody may ask, so a burst of questions asks the services once.
const FRESH: Duration = Duration::from_millis(250);

/// What the services said, and when.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    checks: BTreeMap<String, CheckReport>,
}

/// Asks all services and remembers the answer for a moment; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Overview {
    health: Health,
    routes: Routes,
    last: Arc<Mutex<Option<Seen>>>,
}

impl Overview {
    pub(crate) fn new(health: Health, routes: Routes) -> Self {
        Self { health, routes, last: Arc::default() }
    }

    /// 200 when the gateway is ready and every service says that it is well, else 503.
    pub(crate) async fn answer(self) -> Response {
        let services = self.services().await;
        let mut report: Report = self.health.report();
        if report.status == "ok" && services.values().any(|check| check.status != "ok") {
            report.status = "failing";
        }
        report.checks.extend(services);
        let status = if report.status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(report)).into_response()
    }

    async fn services(&self) -> BTreeMap<String, CheckReport> {
        let mut last = self.last.lock().await;
        if let Some(seen) = last.as_ref().filter(|seen| seen.at.elapsed() < FRESH) {
            return seen.checks.clone();
        }
        let table = self.routes.table();
        let asked = table.services().map(|service| async { (service.name.clone(), ask(service).await) });
        let checks: BTreeMap<_, _> = join_all(asked).await.into_iter().collect();
        *last = Some(Seen { at: Instant::now(), checks: checks.clone() });
        checks
    }
}

async fn ask(service: &Service) -> CheckReport {
    let detail = match call(service).await {
        Ok(200) => return CheckReport { status: "ok", detail: String::new() },
        Ok(status) => format!("answered {status}"),
        // Public words: neither addresses nor causes.
        Err(Some(CallError::Timeout { .. })) => format!("no answer within {} s", HEALTH_TIMEOUT.as_secs()),
        Err(_) => "does not answer".to_owned(),
    };
    CheckReport { status: "failing", detail }
}

async fn call(service: &Service) -> Result<u16, Option<CallError>> {
    let url = format!("http://{}", service.upstream).parse().map_err(|_| None)?;
    let answer = Client::new(url, HEALTH_TIMEOUT).get(&service.health_path, &[]).await.map_err(Some)?;
    Ok(answer.status.as_u16())
}
