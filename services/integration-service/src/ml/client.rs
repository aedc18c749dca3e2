//! One call to MercadoLibre, through breaker and limits, classified.
//!
//! A call is a span of our trace, and MercadoLibre is not told of it: `traceparent` and `x-request-id` end here. It is
//! another company; what our requests have to do with each other is none of its business, and it would not use it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, header};
use reqwest::{Client, Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use service_kit::trace;
use tokio::time::Instant;
use uuid::Uuid;

use super::cooldown::{Cooldowns, Dice, RetryBudget};
use super::{Group, MlError};
use crate::breaker::{Breaker, Outcome, Policy};
use crate::limiter::{Lane, Limiter};
use crate::metrics::Metrics;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer that is read: a bulk page of 20 items stays far below.
const ANSWER_LIMIT: usize = 8 << 20;
/// Tries of one idempotent call.
const TRIES: u32 = 3;

/// Who we are to MercadoLibre.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `ML_CLIENT_ID`.
    pub client_id: String,
    /// `ML_CLIENT_SECRET`.
    pub client_secret: SecretString,
}

/// A call to make.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose breaker guards it.
    pub group: Group,
    /// Its method.
    pub method: Method,
    /// Path, made of fixed text and ids read by grammar.
    pub path: String,
    /// Query.
    pub query: Vec<(&'static str, String)>,
    /// Body.
    pub body: Body,
    /// How much it matters.
    pub lane: Lane,
    /// For whom it is made: the per-user limit.
    pub user: Uuid,
}

/// A call's body.
#[derive(Clone, Debug)]
pub enum Body {
    /// None.
    Empty,
    /// JSON.
    Json(Value),
    /// Form fields; they may be secrets.
    Form(Vec<(&'static str, SecretString)>),
}

impl Request {
    /// `GET path`.
    pub fn get(group: Group, path: impl Into<String>, user: Uuid, lane: Lane) -> Self {
        Self {
            group,
            method: Method::GET,
            path: path.into(),
            query: Vec::new(),
            body: Body::Empty,
            lane,
            user,
        }
    }

    /// The same with one query parameter more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Repeating it changes nothing: it may be sent again after a failure.
    fn is_idempotent(&self) -> bool {
        self.method == Method::GET
    }
}

/// A success.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 2xx; 206 means that the resource exists although not all of it is shown.
    pub status: u16,
    /// The body as JSON; null when there was none.
    pub body: Value,
}

/// See the module.
pub struct MlClient {
    http: Client,
    base: Url,
    credentials: Credentials,
    breakers: HashMap<Group, Arc<Breaker>>,
    breaker_enabled: bool,
    limiter: Limiter,
    cooldowns: Cooldowns,
    budget: RetryBudget,
    dice: Dice,
    metrics: Metrics,
}

impl MlClient {
    /// A client of the API at `base`.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(
        base: Url,
        timeout: Duration,
        credentials: Credentials,
        policy: Policy,
        limiter: Limiter,
        metrics: Metrics,
        dice: Dice,
    ) -> Result<Self, reqwest::Error> {
        let builder = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            // No environment variable sends tokens through somebody's proxy.
            .no_proxy();
        // Plain HTTP is only the simulator, behind a relay whose drain counts open connections: keep none idle.
        let builder = if base.scheme() == "http" { builder.pool_max_idle_per_host(0) } else { builder };
        let breakers = Group::ALL.map(|group| {
            let metrics = metrics.clone();
            let observer = move |state: crate::breaker::State| {
                metrics.breaker_state.set(&[group.name()], state.gauge());
                metrics.breaker_transitions.inc(&[group.name(), state.name()]);
                tracing::warn!(dependency = group.name(), state = state.name(), "circuit breaker changed");
            };
            (group, Breaker::new(policy, Arc::new(observer)))
        });
        Ok(Self {
            http: builder.build()?,
            base,
            credentials,
            breakers: HashMap::from(breakers),
            breaker_enabled: policy.enabled,
            limiter,
            cooldowns: Cooldowns::new(dice),
            budget: RetryBudget::new(),
            dice,
            metrics,
        })
    }

    /// Who we are.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The limits.
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// The breaker of a group.
    pub fn breaker(&self, group: Group) -> Option<&Arc<Breaker>> {
        self.breakers.get(&group)
    }

    /// Whether the breakers are in force (`CIRCUIT_BREAKER_ENABLED`).
    pub fn breaker_enabled(&self) -> bool {
        self.breaker_enabled
    }

    /// Brings `circuit_breaker_state` of a group up to date.
    pub fn publish_state(&self, group: Group) {
        if let Some(breaker) = self.breaker(group) {
            self.metrics.breaker_state.set(&[group.name()], breaker.state().gauge());
        }
    }

    /// Makes the call; an idempotent one again after a transient failure, within the retry budget.
    ///
    /// # Errors
    /// [`MlError`] of the last try.
    pub async fn send(&self, request: &Request, token: Option<&SecretString>) -> Result<Answer, MlError> {
        self.budget.called();
        let mut tried = 1;
        loop {
            let error = match self.once(request, token).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // Asked to wait, by us or by them: that is for the caller. A refused connection repeats for any method.
            let worth_it = match &error {
                MlError::Connect(_) => true,
                MlError::Broken(_) | MlError::Server { .. } => request.is_idempotent(),
                _ => false,
            };
            if !worth_it || tried >= TRIES || !self.budget.may_retry() {
                return Err(error);
            }
            let ceiling = Duration::from_millis(100 << tried);
            tokio::time::sleep(ceiling.mul_f64((self.dice)())).await;
            tried += 1;
        }
    }

    /// One try, counted.
    async fn once(&self, request: &Request, token: Option<&SecretString>) -> Result<Answer, MlError> {
        let result = self.guarded(request, token).await;
        let outcome = result.as_ref().map_or_else(MlError::outcome, |_| "ok");
        self.metrics.ml_requests.inc(&[request.group.name(), request.method.as_str(), outcome]);
        result
    }

    async fn guarded(&self, request: &Request, token: Option<&SecretString>) -> Result<Answer, MlError> {
        let group = request.group;
        if let Some(retry_after) = self.cooldowns.remaining(group, request.user) {
            return Err(MlError::RateLimited { retry_after });
        }
        // The breaker first: a call that it rejects must not cost a place in the limits.
        let permit = match self.breaker(group).map(Breaker::acquire).transpose() {
            Ok(permit) => permit,
            Err(source) => {
                self.metrics.breaker_rejected.inc(&[group.name()]);
                return Err(MlError::BreakerOpen { group, source });
            }
        };
        self.limiter.take(request.user, request.lane).await?;
        let begun = Instant::now();
        let mut span = trace::open(request.method.to_string(), trace::Kind::Client);
        let result = self.exchange(request, token).await;
        if let Some(span) = &mut span {
            span.set("peer.service", "mercadolibre");
            span.set("http.request.method", request.method.to_string());
            span.set("ml.endpoint_group", group.name());
            match &result {
                Ok(answer) => span.set("http.response.status_code", answer.status),
                Err(error) => span.fail(error.outcome()),
            }
        }
        drop(span);
        self.metrics.ml_duration.observe(&[group.name()], begun.elapsed().as_secs_f64());
        if let Some(permit) = permit {
            permit.record(result.as_ref().map_or_else(MlError::breaker_outcome, |_| Outcome::Success));
        }
        if result.is_ok() {
            self.cooldowns.answered(group, request.user);
        }
        result
    }

    async fn exchange(&self, request: &Request, token: Option<&SecretString>) -> Result<Answer, MlError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{}", self.base.path().trim_end_matches('/'), request.path));
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut builder =
            self.http.request(request.method.clone(), url).header(header::ACCEPT, "application/json");
        if let Some(token) = token {
            builder = builder.bearer_auth(token.expose_secret());
        }
        builder = match &request.body {
            Body::Empty => builder,
            Body::Json(body) => builder.json(body),
            Body::Form(fields) => {
                let fields: Vec<(&str, &str)> =
                    fields.iter().map(|(name, value)| (*name, value.expose_secret())).collect();
                builder.form(&fields)
            }
        };
        let mut response = builder.send().await.map_err(classify)?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(classify)? {
            if bytes.len() + chunk.len() > ANSWER_LIMIT {
                return Err(MlError::Unreadable { expected: "an answer of at most 8 MiB" });
            }
            bytes.extend_from_slice(&chunk);
        }
        self.judge(request, status, &headers, &bytes)
    }

    /// The status decides; the body of a failure may be JSON, a bare word or nothing.
    fn judge(
        &self,
        request: &Request,
        status: u16,
        headers: &HeaderMap,
        bytes: &[u8],
    ) -> Result<Answer, MlError> {
        match status {
            200..=299 => {
                let body = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(bytes) };
                let body = body.map_err(|_| MlError::Unreadable { expected: "JSON" })?;
                Ok(Answer { status, body })
            }
            429 => {
                let asked =
                    headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                let asked = asked.map(Duration::from_secs);
                let retry_after = self.cooldowns.limited(request.group, request.user, asked);
                Err(MlError::RateLimited { retry_after })
            }
            401 if request.group != Group::OAuth => Err(MlError::Unauthorized),
            500.. => Err(MlError::Server { status }),
            _ => Err(MlError::refused(status, &serde_json::from_slice(bytes).unwrap_or_default())),
        }
    }
}

/// The address may hold a query; it is never part of an error.
fn classify(error: reqwest::Error) -> MlError {
    let error = error.without_url();
    if error.is_connect() {
        MlError::Connect(error)
    } else if error.is_timeout() {
        MlError::Timeout
    } else {
        MlError::Broken(error.into())
    }
}
