//! Health: what a service needs before it starts, what it needs to be ready, what it only wants to show.
//!
//! Checks are pushed: whoever knows sets the state, a probe only reads it, so a probe never waits for a store.
//! Liveness asks nothing: it answers while the event loop runs. Readiness never depends on another company's API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use parking_lot::Mutex;
use serde::Serialize;

use crate::Identity;
use crate::config::Base;
use crate::extract::Json;
use crate::shutdown::Shutdown;

/// How many looks in a row must fail before a check that was good counts as failing.
const FAILURES_BEFORE_FAILING: u32 = 3;

/// What a check decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Must have been good once: `/startupz`, and until then `/readyz` too.
    Startup,
    /// Must be good now: `/readyz`.
    Ready,
    /// Shown in `/health`, decides nothing.
    Info,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    kind: Kind,
    good: bool,
    detail: String,
}

/// State of all checks of one service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    identity: Identity,
    revision: Option<String>,
    entries: Mutex<Vec<Entry>>,
    draining: AtomicBool,
}

/// The hand that sets one check.
#[derive(Clone, Debug)]
pub struct Check {
    health: Health,
    index: usize,
}

impl Check {
    /// The check is good.
    pub fn good(&self) {
        self.set(Ok(()));
    }

    /// The check fails; `detail` says why, in words that may be shown to anybody.
    pub fn failing(&self, detail: impl Into<String>) {
        self.set(Err(detail.into()));
    }

    /// Sets the check from a result.
    pub fn set(&self, result: Result<(), String>) {
        let mut entries = self.health.0.entries.lock();
        let entry = &mut entries[self.index];
        match result {
            Ok(()) => (entry.good, entry.detail) = (true, String::new()),
            // Startup happens once: what fails later is for a readiness check to say.
            Err(_) if entry.kind == Kind::Startup && entry.good => {}
            Err(detail) => (entry.good, entry.detail) = (false, detail),
        }
    }

    /// Changes the words shown without changing the state.
    pub fn detail(&self, detail: impl Into<String>) {
        self.health.0.entries.lock()[self.index].detail = detail.into();
    }
}

/// The answer of `/health`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `ok`, `failing` or `draining`.
    pub status: &'static str,
    /// Name of the service.
    pub service: &'static str,
    /// Version of the package.
    pub version: &'static str,
    /// Release that the process belongs to.
    pub revision: Option<String>,
    /// Every check by name.
    pub checks: BTreeMap<String, CheckReport>,
}

/// One check in [`Report`].
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// `ok` or `failing`.
    pub status: &'static str,
    /// Why, or empty.
    pub detail: String,
}

impl Health {
    /// Health of one service, without checks: ready at once.
    #[must_use]
    pub fn new(identity: Identity, base: &Base) -> Self {
        Self(Arc::new(Inner {
            identity,
            revision: base.revision.clone(),
            entries: Mutex::new(Vec::new()),
            draining: AtomicBool::new(false),
        }))
    }

    /// Adds a check; it fails with `not checked yet` until it is set (an info check begins good).
    #[must_use]
    pub fn check(&self, name: &str, kind: Kind) -> Check {
        let mut entries = self.0.entries.lock();
        let good = kind == Kind::Info;
        let detail = if good { String::new() } else { "not checked yet".to_owned() };
        entries.push(Entry { name: name.to_owned(), kind, good, detail });
        Check { health: self.clone(), index: entries.len() - 1 }
    }

    /// Adds a check and a task that looks every `period` until the drain; a startup check stops at its first success.
    /// A good check turns failing after three failed looks in a row, so one hiccup takes no replica out of the routes.
    pub fn watch<F, Fut>(&self, name: &str, kind: Kind, period: Duration, shutdown: &Shutdown, look: F)
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), String>> + Send,
    {
        let check = self.check(name, kind);
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            let mut failures = FAILURES_BEFORE_FAILING;
            loop {
                match look().await {
                    Ok(()) => {
                        failures = 0;
                        check.good();
                        if kind == Kind::Startup {
                            return;
                        }
                    }
                    Err(detail) => {
                        failures = failures.saturating_add(1);
                        if failures >= FAILURES_BEFORE_FAILING {
                            check.failing(detail);
                        }
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(period) => {}
                    () = shutdown.draining() => return,
                }
            }
        });
    }

    /// True once the service was asked to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    pub(crate) fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// True when every startup check has been good.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.all_good(|kind| kind == Kind::Startup)
    }

    /// True when the service may be sent requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && self.all_good(|kind| kind != Kind::Info)
    }

    fn all_good(&self, counts: impl Fn(Kind) -> bool) -> bool {
        self.0.entries.lock().iter().all(|entry| entry.good || !counts(entry.kind))
    }

    /// Everything known, for `/health`.
    #[must_use]
    pub fn report(&self) -> Report {
        let entries = self.0.entries.lock().clone();
        let failing = entries.iter().any(|entry| !entry.good && entry.kind != Kind::Info);
        let status = match (self.is_draining(), failing) {
            (true, _) => "draining",
            (false, true) => "failing",
            (false, false) => "ok",
        };
        let checks = entries
            .into_iter()
            .map(|entry| {
                let status = if entry.good { "ok" } else { "failing" };
                (entry.name, CheckReport { status, detail: entry.detail })
            })
            .collect();
        Report {
            status,
            service: self.0.identity.name,
            version: self.0.identity.version,
            revision: self.0.revision.clone(),
            checks,
        }
    }

    /// `/livez`, `/readyz` and `/startupz`.
    pub(crate) fn routes(&self) -> Router {
        let (ready, started) = (self.clone(), self.clone());
        Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(move || async move { ready.probe(ready.is_ready()) }))
            .route("/startupz", get(move || async move { started.probe(started.is_started()) }))
    }

    /// `/health`.
    pub(crate) fn handler(&self) -> MethodRouter {
        let health = self.clone();
        get(move || async move { health.probe(health.is_ready()) })
    }

    fn probe(&self, good: bool) -> Response {
        let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(self.report())).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        let identity = Identity::new("test-service", "1.0.0", 1);
        Health::new(identity, &Base::new(identity))
    }

    #[test]
    fn each_kind_decides_what_it_should() {
        // kind, good -> started, ready, status
        let table = [
            (Kind::Startup, false, false, false, "failing"),
            (Kind::Startup, true, true, true, "ok"),
            (Kind::Ready, false, true, false, "failing"),
            (Kind::Ready, true, true, true, "ok"),
            (Kind::Info, false, true, true, "ok"),
        ];
        for (kind, good, started, ready, status) in table {
            let health = health();
            let check = health.check("store", kind);
            check.set(if good { Ok(()) } else { Err("away".to_owned()) });
            let seen = (health.is_started(), health.is_ready(), health.report().status);
            assert_eq!(seen, (started, ready, status), "{kind:?} {good}");
        }
    }

    #[test]
    fn startup_is_not_undone() {
        let health = health();
        let check = health.check("migrations", Kind::Startup);
        check.good();
        check.failing("gone");
        assert!(health.is_started());
    }

    #[test]
    fn draining_wins() {
        let health = health();
        health.drain();
        assert!(!health.is_ready());
        assert!(health.is_started());
        assert_eq!(health.report().status, "draining");
    }

    #[tokio::test(start_paused = true)]
    async fn one_failed_look_does_not_make_a_service_unready() {
        let health = health();
        let (_trigger, shutdown) = Shutdown::channel();
        let (answers, asked) = tokio::sync::mpsc::unbounded_channel::<bool>();
        let asked = Arc::new(tokio::sync::Mutex::new(asked));
        health.watch("store", Kind::Ready, Duration::from_secs(1), &shutdown, move || {
            let asked = asked.clone();
            async move {
                let good = asked.lock().await.recv().await.unwrap_or(false);
                good.then_some(()).ok_or_else(|| "away".to_owned())
            }
        });
        let mut seen = Vec::new();
        for answer in [true, false, false, true, false, false, false] {
            answers.send(answer).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            seen.push(health.is_ready());
        }
        assert_eq!(seen, [true, true, true, true, true, true, false]);
    }
}
