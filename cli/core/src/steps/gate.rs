//! Gates: health, metric series, one HTTP answer, KPIs. Each asks until it passes or its time is over.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{StepError, StepNote};
use crate::gate::{GateResult, Verdict, summary};
use crate::mask::Mask;
use crate::metrics;
use crate::playbook::Through as Way;
use crate::ports::{ProbeAnswer, ProbeRequest, Through};
use crate::run::StepContext;
use crate::system::System;

/// Between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(250);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(3);

/// Asks the deep health of services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthGate {
    /// What to ask.
    pub checks: Vec<HealthCheck>,
    /// Milliseconds until every answer has to be good.
    pub within_ms: u64,
}

/// One question of a health gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The service.
    pub service: String,
    /// The way.
    pub through: Through,
    /// The path.
    pub path: String,
}

/// Returns who is asked, on which way and path: the deep check of a service, or its readiness where it has none.
///
/// Through the gateway every routed service answers on `/api/NAME/health`, and the gateway itself on its own path.
pub fn health_checks(system: &System, chosen: impl Fn(&str) -> bool, ways: &[Way]) -> Vec<HealthCheck> {
    let gateway = system.gateway().map(|(name, _)| name);
    let mut checks = Vec::new();
    for way in ways {
        for (name, service) in system.services.iter().filter(|(name, _)| chosen(name)) {
            let Some(path) = service.health.check.as_ref().or(service.health.ready.as_ref()) else {
                continue;
            };
            let (through, path) = match way {
                Way::Direct => (Through::Replicas, path.clone()),
                Way::Gateway if gateway == Some(name.as_str()) => (Through::Gateway, path.clone()),
                Way::Gateway if gateway.is_some() && !service.routes.is_empty() => {
                    (Through::Gateway, format!("/api/{name}/health"))
                }
                Way::Gateway => continue,
            };
            checks.push(HealthCheck { service: name.clone(), through, path });
        }
    }
    checks
}

impl HealthGate {
    pub(super) async fn run(&self, context: &StepContext<'_>) -> Result<StepNote, StepError> {
        if self.checks.is_empty() {
            return Ok(StepNote::skipped("no service names a health check"));
        }
        let ask = || async {
            let mut results = Vec::with_capacity(self.checks.len());
            for check in &self.checks {
                results.push(health(context, check).await?);
            }
            Ok(results)
        };
        until_passed(context, self.within_ms, ask).await
    }
}

/// Asks one service and says what came back.
async fn health(context: &StepContext<'_>, check: &HealthCheck) -> Result<GateResult, StepError> {
    let request = ProbeRequest {
        service: check.service.clone(),
        through: check.through,
        path: check.path.clone(),
        timeout: ANSWER,
    };
    let answers = context.ports.inspector.probe(&request).await?;
    Ok(judge_health(check, &answers))
}

/// Turns probe answers into a result: every one has to be a 2xx, and there has to be one.
#[must_use]
pub fn judge_health(check: &HealthCheck, answers: &[ProbeAnswer]) -> GateResult {
    let way = match check.through {
        Through::Gateway => "through the gateway",
        Through::Service => "on its address",
        Through::Replicas => "each replica",
    };
    let bad = answers.iter().find(|answer| !answer.is_success());
    let (verdict, got) = match (bad, answers.len()) {
        (None, 0) => (Verdict::Inconclusive, "nobody to ask".to_owned()),
        (None, 1) => {
            (Verdict::Pass, format!("{} in {} ms", status_text(&answers[0]), answers[0].took.as_millis()))
        }
        (None, count) => (Verdict::Pass, format!("2xx from all {count}")),
        (Some(answer), _) => (
            Verdict::Fail,
            format!("{} from {}: {}", status_text(answer), answer.subject, one_line(&answer.detail)),
        ),
    };
    GateResult {
        subject: format!("{} {way}", check.service),
        want: format!("2xx on {}", check.path),
        got,
        verdict,
    }
}

fn status_text(answer: &ProbeAnswer) -> String {
    answer.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string())
}

/// Returns the first line of what a program said, at most 400 characters of it. Passwords in URLs go before it is cut:
/// half a URL does not look like one.
fn one_line(text: &str) -> String {
    Mask::default().text(text.lines().next().unwrap_or_default()).chars().take(400).collect()
}

/// Looks for expected metric series on every replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsGate {
    /// Service and the series each of its replicas must export.
    pub expect: Vec<(String, Vec<String>)>,
    /// Milliseconds until all of them have to be there.
    pub within_ms: u64,
}

impl MetricsGate {
    pub(super) async fn run(&self, context: &StepContext<'_>) -> Result<StepNote, StepError> {
        if self.expect.is_empty() {
            return Ok(StepNote::skipped("no service names a metric"));
        }
        let ask = || async {
            let mut results = Vec::with_capacity(self.expect.len());
            for (service, series) in &self.expect {
                let scrapes = context.ports.inspector.scrape(service).await?;
                let problem = scrapes.iter().find_map(|scrape| match &scrape.body {
                    Err(reason) => Some((scrape, reason.clone())),
                    Ok(text) => {
                        let missing =
                            metrics::missing(series.iter().map(String::as_str), &metrics::samples(text));
                        (!missing.is_empty()).then(|| (scrape, format!("without {}", missing.join(", "))))
                    }
                });
                let (verdict, got) = match (problem, scrapes.len()) {
                    (None, 0) => (Verdict::Inconclusive, "no replica to ask".to_owned()),
                    (None, count) => {
                        (Verdict::Pass, format!("all {} series on {count} replicas", series.len()))
                    }
                    (Some((scrape, reason)), _) => (Verdict::Fail, format!("{}: {reason}", scrape.replica)),
                };
                let want = format!("{} series", series.len());
                results.push(GateResult { subject: format!("{service} metrics"), want, got, verdict });
            }
            Ok(results)
        };
        until_passed(context, self.within_ms, ask).await
    }
}

/// Asks one public path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpGate {
    /// The path.
    pub path: String,
    /// JSON pointer or plain key of the value that is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<String>,
    /// What the value has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// Milliseconds until the answer has to be right.
    pub within_ms: u64,
}

impl HttpGate {
    pub(super) async fn run(&self, context: &StepContext<'_>) -> Result<StepNote, StepError> {
        let ask = || async {
            let request = ProbeRequest {
                service: "the public front".to_owned(),
                through: Through::Gateway,
                path: self.path.clone(),
                timeout: ANSWER,
            };
            let answers = context.ports.inspector.probe(&request).await?;
            Ok(vec![self.judge(&answers)])
        };
        until_passed(context, self.within_ms, ask).await
    }

    fn judge(&self, answers: &[ProbeAnswer]) -> GateResult {
        let want = match (&self.json, &self.equals) {
            (Some(json), Some(equals)) => format!("{json} = {equals}"),
            (Some(json), None) => format!("a value at {json}"),
            _ => "2xx".to_owned(),
        };
        let (verdict, got) = match answers.first() {
            None => (Verdict::Inconclusive, "nobody to ask".to_owned()),
            Some(answer) if !answer.is_success() => {
                (Verdict::Fail, format!("{}: {}", status_text(answer), one_line(&answer.detail)))
            }
            Some(answer) => self.judge_body(answer),
        };
        GateResult { subject: self.path.clone(), want, got, verdict }
    }

    fn judge_body(&self, answer: &ProbeAnswer) -> (Verdict, String) {
        let Some(pointer) = &self.json else { return (Verdict::Pass, status_text(answer)) };
        let pointer = if pointer.starts_with('/') { pointer.clone() } else { format!("/{pointer}") };
        let body: serde_json::Value = serde_json::from_str(&answer.detail).unwrap_or_default();
        let Some(value) = body.pointer(&pointer) else {
            return (Verdict::Fail, format!("nothing at {pointer}"));
        };
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let passes = self.equals.as_ref().is_none_or(|wanted| *wanted == text);
        (if passes { Verdict::Pass } else { Verdict::Fail }, one_line(&text))
    }
}

/// Judges KPIs over the report of an earlier load step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KpiGate {
    /// The load step.
    pub from: String,
    /// KPI name and the place of its threshold among those of the load step.
    pub kpis: Vec<(String, usize)>,
}

impl KpiGate {
    pub(super) async fn run(&self, context: &StepContext<'_>) -> Result<StepNote, StepError> {
        if self.kpis.is_empty() {
            return Ok(StepNote::skipped("no KPI is measured by load"));
        }
        let report = context.load(&self.from);
        let results: Vec<GateResult> = self
            .kpis
            .iter()
            .map(|(name, place)| match report.as_ref().and_then(|r| r.verdicts.get(*place)) {
                Some(result) => GateResult { subject: name.clone(), ..result.clone() },
                None => GateResult {
                    subject: name.clone(),
                    want: "a load result".to_owned(),
                    got: format!("none from step {}", self.from),
                    verdict: Verdict::Inconclusive,
                },
            })
            .collect();
        conclude(context, results)
    }
}

/// Asks again and again until everything passes or the time is over, then tells the last answers.
async fn until_passed<F, Fut>(
    context: &StepContext<'_>,
    within_ms: u64,
    ask: F,
) -> Result<StepNote, StepError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Vec<GateResult>, StepError>>,
{
    let until = Instant::now() + Duration::from_millis(within_ms);
    let mut rounds: u64 = 0;
    loop {
        let answers = ask().await;
        let over = Instant::now() + PAUSE >= until;
        let standing = match answers {
            Ok(results) if over || results.iter().all(|r| r.verdict == Verdict::Pass) => {
                return conclude(context, results);
            }
            Ok(results) => summary(&results),
            // A target that could not be asked this once has said nothing against the release.
            Err(error) if error.is_transient() && !over => error.to_string(),
            Err(error) => return Err(error),
        };
        rounds += 1;
        if rounds % 8 == 1 {
            let left = until.saturating_duration_since(Instant::now()).as_secs();
            context.progress(0, 0, format!("{standing}; giving up in {left} s"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Tells every result and turns the worst into the step's end.
fn conclude(context: &StepContext<'_>, results: Vec<GateResult>) -> Result<StepNote, StepError> {
    for result in &results {
        context.gate(result);
    }
    match Verdict::worst(results.iter().map(|r| r.verdict)) {
        Verdict::Pass => Ok(StepNote::success(summary(&results))),
        Verdict::Fail => Err(StepError::GateFailed { results }),
        Verdict::Inconclusive => Err(StepError::GateInconclusive { results }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Option<u16>, detail: &str) -> ProbeAnswer {
        ProbeAnswer {
            subject: "api-1".into(),
            url: "http://127.0.0.1:1/health".into(),
            status,
            detail: detail.into(),
            took: Duration::from_millis(4),
        }
    }

    #[test]
    fn what_a_program_says_tells_no_password_of_a_url() {
        assert_eq!(one_line("cannot connect postgres://u:pw@db\nmore"), "cannot connect postgres://u:***@db");
        let long = format!("{} postgres://u:{}@db", "x".repeat(380), "p".repeat(40));
        assert!(!one_line(&long).contains("pp"), "starred before it is cut");
    }

    #[test]
    fn health_needs_an_answer_from_everybody() {
        let check = HealthCheck { service: "api".into(), through: Through::Replicas, path: "/health".into() };
        for (answers, verdict, got) in [
            (vec![], Verdict::Inconclusive, "nobody to ask"),
            (vec![answer(Some(200), "")], Verdict::Pass, "200 in 4 ms"),
            (vec![answer(Some(200), ""), answer(Some(204), "")], Verdict::Pass, "2xx from all 2"),
            (
                vec![answer(Some(200), ""), answer(Some(503), "database\nmore")],
                Verdict::Fail,
                "503 from api-1: database",
            ),
            (vec![answer(None, "refused")], Verdict::Fail, "no answer from api-1: refused"),
        ] {
            let result = judge_health(&check, &answers);
            assert_eq!((result.verdict, result.got.as_str()), (verdict, got));
        }
    }

    #[test]
    fn an_http_gate_compares_a_value() {
        let gate = |json: Option<&str>, equals: Option<&str>| HttpGate {
            path: "/api/ml/health".into(),
            json: json.map(str::to_owned),
            equals: equals.map(str::to_owned),
            within_ms: 0,
        };
        let body = r#"{"mode":"normal","breaker":{"items":"closed"},"n":3}"#;
        for (json, equals, verdict) in [
            (None, None, Verdict::Pass),
            (Some("mode"), Some("normal"), Verdict::Pass),
            (Some("mode"), Some("conservative"), Verdict::Fail),
            (Some("/breaker/items"), Some("closed"), Verdict::Pass),
            (Some("n"), Some("3"), Verdict::Pass),
            (Some("absent"), None, Verdict::Fail),
        ] {
            assert_eq!(
                gate(json, equals).judge(&[answer(Some(200), body)]).verdict,
                verdict,
                "{json:?} {equals:?}"
            );
        }
        assert_eq!(gate(None, None).judge(&[answer(Some(500), "")]).verdict, Verdict::Fail);
    }
}
