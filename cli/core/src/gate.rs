//! Gates: a criterion for going on, and its three-valued verdict.
//!
//! Inconclusive never passes: too little data, a client that could not keep its own schedule, or a metric nobody
//! exports say nothing about the release (progressive delivery calls this analysis).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The criterion holds.
    Pass,
    /// Too little is known.
    Inconclusive,
    /// The criterion does not hold.
    Fail,
}

impl Verdict {
    /// Returns the word people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "fail",
        }
    }

    /// Returns the worst of many: one failure fails all, one doubt leaves doubt; nothing asked is inconclusive.
    pub fn worst(verdicts: impl IntoIterator<Item = Self>) -> Self {
        verdicts.into_iter().max().unwrap_or(Self::Inconclusive)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One criterion with what was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateResult {
    /// What was asked: a KPI's name, a threshold, a service.
    pub subject: String,
    /// The criterion as written: `p99<500ms`, `2xx`.
    pub want: String,
    /// What was measured: `12.4 ms (5000 samples)`, `503 from api-1: starting`.
    pub got: String,
    /// The verdict.
    pub verdict: Verdict,
}

/// Returns one line that names everything that did not pass, for a step's outcome.
#[must_use]
pub fn summary(results: &[GateResult]) -> String {
    let bad: Vec<String> = results
        .iter()
        .filter(|r| r.verdict != Verdict::Pass)
        .map(|r| format!("{} wants {}, got {} ({})", r.subject, r.want, r.got, r.verdict))
        .collect();
    if bad.is_empty() {
        let count = results.len();
        let noun = if count == 1 { "check" } else { "checks" };
        return format!("{count} {noun} passed");
    }
    bad.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_verdict_wins_and_nothing_is_no_pass() {
        use Verdict::{Fail, Inconclusive, Pass};
        for (verdicts, worst) in [
            (vec![], Inconclusive),
            (vec![Pass], Pass),
            (vec![Pass, Inconclusive], Inconclusive),
            (vec![Fail, Inconclusive, Pass], Fail),
        ] {
            assert_eq!(Verdict::worst(verdicts.clone()), worst, "{verdicts:?}");
        }
    }

    #[test]
    fn a_summary_names_only_what_did_not_pass() {
        let result = |subject: &str, verdict| GateResult {
            subject: subject.into(),
            want: "2xx".into(),
            got: "503".into(),
            verdict,
        };
        assert_eq!(summary(&[result("a", Verdict::Pass)]), "1 check passed");
        assert_eq!(
            summary(&[result("a", Verdict::Pass), result("b", Verdict::Fail)]),
            "b wants 2xx, got 503 (fail)"
        );
    }
}
