//! `load`: sends a load profile through the public front and keeps its report for the KPI gate.

use serde::{Deserialize, Serialize};

use super::{StepError, StepNote};
use crate::gate::{GateResult, Verdict};
use crate::overrides::Override;
use crate::ports::{LoadError, LoadFault, LoadReport, LoadRequest, LoadTick};
use crate::run::StepContext;
use crate::system::LoadProfile;

/// The class of answers that a front closed to users gives, in a report.
const UNAVAILABLE_CLASS: &str = "status_503";

/// Parameters of `load`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The profile's name.
    pub name: String,
    /// The profile; its thresholds are followed by those of the KPIs.
    pub profile: LoadProfile,
    /// How many of the thresholds are the profile's own: these fail this step, the rest is the KPI gate's.
    pub own_thresholds: usize,
    /// Secrets that its templates name.
    pub secrets: Vec<String>,
}

impl Load {
    pub(super) async fn run(&self, context: &StepContext<'_>) -> Result<StepNote, StepError> {
        let Some(base) = context.ports.inspector.address(None).await? else {
            return Ok(StepNote::skipped("the system has no public front to send load to"));
        };
        let mut secrets = std::collections::BTreeMap::new();
        for name in &self.secrets {
            if let Some(value) = context.ports.inspector.secret(name).await? {
                secrets.insert(name.clone(), value);
            }
        }
        let request = LoadRequest { profile: self.profile.clone(), base, secrets, seed: context.seed };
        let tick = |tick: LoadTick| context.progress(tick.elapsed_ms, tick.total_ms, tick_sentence(&tick));
        let mut report = match context.ports.load.run(&request, &tick, context.cancel).await {
            Ok(report) => report,
            Err(error) => return Err(self.did_not_begin(context, error).await),
        };
        if report.interrupted {
            // What was measured is told; half a load is no step that is done.
            context.keep_load(report);
            return Err(StepError::Cancelled);
        }
        if report.failures.contains_key(UNAVAILABLE_CLASS)
            && let Some(maintenance) = maintenance(context).await
        {
            doubt(&mut report, &maintenance);
        }
        let text = sentence(&report);
        let own: Vec<_> = report.verdicts.iter().take(self.own_thresholds).cloned().collect();
        for result in &own {
            context.gate(result);
        }
        context.keep_load(report);
        match own.iter().map(|r| r.verdict).max() {
            Some(Verdict::Fail) => Err(StepError::GateFailed { results: own }),
            Some(Verdict::Inconclusive) => Err(StepError::GateInconclusive { results: own }),
            Some(Verdict::Pass) | None => Ok(StepNote::success(text)),
        }
    }

    /// Says what it means that not even the setup could be done. Only what the system itself answered, or did not,
    /// speaks against the release.
    async fn did_not_begin(&self, context: &StepContext<'_>, error: LoadError) -> StepError {
        let why = match error.fault {
            LoadFault::Profile | LoadFault::Client => error.to_string(),
            fault if fault.is_out_of_service() => match maintenance(context).await {
                Some(maintenance) => format!("{error}; {}", in_the_way(&maintenance)),
                None => return error.into(),
            },
            LoadFault::NoAnswer | LoadFault::Answer(_) => return error.into(),
        };
        let result = GateResult {
            subject: "load".to_owned(),
            want: format!("the profile {} sent", self.name),
            got: why,
            verdict: Verdict::Inconclusive,
        };
        context.gate(&result);
        StepError::GateInconclusive { results: vec![result] }
    }
}

/// Returns the maintenance in force on the target, if there is one and the target tells.
async fn maintenance(context: &StepContext<'_>) -> Option<Override> {
    let now = context.ports.clock.now();
    let snapshot = context.ports.orchestrator.observe().await.ok()?;
    snapshot.overrides.into_iter().find(|entry| entry.is_maintenance(now))
}

fn in_the_way(maintenance: &Override) -> String {
    format!(
        "maintenance is on since {} by {}: after `mlctl maintenance off`, `mlctl deploy --phase verification` verifies",
        maintenance.since, maintenance.owner
    )
}

/// Turns failures into doubts: maintenance may have made them.
fn doubt(report: &mut LoadReport, maintenance: &Override) {
    for result in report.verdicts.iter_mut().filter(|result| result.verdict == Verdict::Fail) {
        result.verdict = Verdict::Inconclusive;
        result.got = format!("{}, but {}", result.got, in_the_way(maintenance));
    }
}

/// Says how far a load run is, in one line.
#[must_use]
pub fn tick_sentence(tick: &LoadTick) -> String {
    format!(
        "{} of {} s, {} requests, {} failed, p99 {}",
        tick.elapsed_ms / 1000,
        tick.total_ms / 1000,
        tick.sent,
        tick.failed,
        micros(tick.p99_us)
    )
}

/// Says what a report shows, in one line.
#[must_use]
pub fn sentence(report: &LoadReport) -> String {
    let cut = if report.interrupted {
        format!("interrupted after {:.0} s: ", report.seconds)
    } else {
        String::new()
    };
    let failed: u64 = report.failures.values().sum();
    if report.total.count == 0 && failed == 0 {
        return format!("{cut}no request was measured");
    }
    let p99 = report.total.response_us.get("p99").copied().unwrap_or_default();
    let classes: Vec<String> = report.failures.iter().map(|(class, n)| format!("{n} {class}")).collect();
    let failed = if failed == 0 {
        "none failed".to_owned()
    } else {
        format!("{failed} failed ({})", classes.join(", "))
    };
    format!(
        "{cut}{} requests in {:.0} s ({:.0}/s of {:.0}/s offered), {failed}, p99 {}",
        report.sent,
        report.seconds,
        report.achieved_per_second,
        report.offered_per_second,
        micros(p99)
    )
}

/// Returns microseconds as people read them.
#[must_use]
pub fn micros(us: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let value = us as f64;
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", value / 1e3),
        _ => format!("{:.2} s", value / 1e6),
    }
}
