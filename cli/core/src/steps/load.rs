//! `load`: sends a load profile through the public front and keeps its report for the KPI gate.

use serde::{Deserialize, Serialize};

use super::{StepError, StepNote};
use crate::gate::Verdict;
use crate::ports::{LoadReport, LoadRequest, LoadTick};
use crate::run::{CancelLevel, StepContext};
use crate::system::LoadProfile;

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
        let tick = |tick: LoadTick| {
            let text = format!(
                "{} of {} s, {} requests, {} failed, p99 {}",
                tick.elapsed_ms / 1000,
                tick.total_ms / 1000,
                tick.sent,
                tick.failed,
                micros(tick.p99_us)
            );
            context.progress(tick.elapsed_ms, tick.total_ms, text);
        };
        let report = context.ports.load.run(&request, &tick, context.cancel).await?;
        if report.interrupted && context.cancel.level() >= CancelLevel::Now {
            return Err(StepError::Cancelled);
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
}

/// Says what a report shows, in one line.
#[must_use]
pub fn sentence(report: &LoadReport) -> String {
    let p99 = report.total.response_us.get("p99").copied().unwrap_or_default();
    let failed: u64 = report.failures.values().sum();
    let classes: Vec<String> = report.failures.iter().map(|(class, n)| format!("{n} {class}")).collect();
    let failed = if failed == 0 {
        "none failed".to_owned()
    } else {
        format!("{failed} failed ({})", classes.join(", "))
    };
    format!(
        "{} requests in {:.0} s ({:.0}/s of {:.0}/s offered), {failed}, p99 {}",
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
