//! From evidence to a verdict. Pure, with a table under it.

use super::{CauseCode, Rule};
use crate::status::Cause;

/// Evidence about one workload at one moment. What a target does not know stays at its default.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What was seen.
    pub code: CauseCode,
    /// One sentence with the facts, for people.
    pub text: String,
    /// Replicas of the newest revision. Old ones never count: their troubles are not the release's.
    pub new_replicas: usize,
    /// Of those that ended and have not been healthy since: how often each was started again in a row.
    pub restarts: Vec<u32>,
    /// How often it was seen, this time included.
    pub sightings: u32,
    /// For how many milliseconds it has been so without a move.
    pub lasts_ms: u64,
    /// True while the target says that help is on its way: a node is being added, the count of replicas grows.
    pub help_comes: bool,
    /// Milliseconds that the probes of a replica grant it until it has to be ready, and to stay so.
    pub probe_budget_ms: u64,
    /// Milliseconds since the rollout last came nearer to its end.
    pub stalled_ms: u64,
    /// How long that may take; none where the target has no such thing.
    pub progress_deadline_ms: Option<u64>,
}

impl Facts {
    /// Returns facts of which only this much is known.
    pub fn of(code: CauseCode, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            new_replicas: 0,
            restarts: Vec::new(),
            sightings: 1,
            lasts_ms: 0,
            help_comes: false,
            probe_budget_ms: 0,
            stalled_ms: 0,
            progress_deadline_ms: None,
        }
    }

    fn is_terminal(&self) -> bool {
        match self.code.rule() {
            Rule::AtOnce => true,
            Rule::Sightings(times) => self.sightings >= times,
            Rule::Restarts { all, any } => {
                let each = self.restarts.iter();
                let everywhere = !self.restarts.is_empty() && self.restarts.len() >= self.new_replicas;
                (everywhere && each.clone().all(|restarts| *restarts >= all))
                    || each.clone().any(|restarts| *restarts >= any)
            }
            Rule::Patience(ms) => self.lasts_ms >= ms && !self.help_comes,
            Rule::ProbeBudget | Rule::Deadline => false,
        }
    }

    /// Says whether nothing has moved for too long. A deadline that is shorter than what the probes grant is a mistake
    /// in a file, and not one that a slow start should pay for.
    fn is_stalled(&self) -> bool {
        let granted = if self.code.rule() == Rule::ProbeBudget { self.probe_budget_ms } else { 0 };
        self.progress_deadline_ms.is_some_and(|deadline| self.stalled_ms >= deadline.max(granted))
    }
}

/// Returns the cause with its verdict. Whatever it is, a rollout that is stalled for too long has failed.
#[must_use]
pub fn judge(facts: &Facts) -> Cause {
    if facts.is_terminal() {
        return Cause::terminal(facts.code.when_terminal(), facts.text.clone());
    }
    if facts.is_stalled() {
        let text = format!("no progress for {}: {}", seconds(facts.stalled_ms), facts.text);
        return Cause::terminal(CauseCode::ProgressDeadline, text);
    }
    Cause::transient(facts.code, facts.text.clone())
}

/// Returns milliseconds as people read them in a cause: `2.5 s`.
#[must_use]
pub fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::CauseCode as Code;

    /// Judges one piece of evidence and returns the word of the verdict, with `!` when it is terminal.
    fn verdict(code: Code, change: impl FnOnce(&mut Facts)) -> String {
        let mut facts = Facts { new_replicas: 2, ..Facts::of(code, "seen") };
        change(&mut facts);
        let cause = judge(&facts);
        format!("{}{}", cause.code, if cause.terminal { "!" } else { "" })
    }

    #[test]
    fn what_waiting_cannot_cure_is_terminal_at_once() {
        for code in [
            Code::ArtifactMissing,
            Code::ExecFailed,
            Code::ImageInvalid,
            Code::CrashLoop,
            Code::GivenUp,
            Code::ProgressDeadline,
            Code::Fell,
        ] {
            assert_eq!(verdict(code, |_| ()), format!("{}!", code.word()));
        }
    }

    #[test]
    fn the_second_sighting_is_terminal_and_the_first_is_not() {
        for code in [Code::ImageMissing, Code::Rejected] {
            assert_eq!(verdict(code, |_| ()), code.word());
            assert_eq!(verdict(code, |f| f.sightings = 2), format!("{}!", code.word()));
        }
    }

    #[test]
    fn restarts_count_over_all_new_replicas_or_on_one() {
        for (restarts, terminal) in [
            // One crash and then healthy: nothing is failing any more, or one is and was started again once.
            (vec![], false),
            (vec![0], false),
            (vec![1], false),
            // Both crashed once: the machine, or a neighbour that both need.
            (vec![0, 0], false),
            (vec![1, 1], false),
            // A sidecar's first crash: one of two processes of a release, never again.
            (vec![0, 1], false),
            // One loops and the other is healthy: chance a little longer, then not.
            (vec![2], false),
            (vec![3], false),
            (vec![4], true),
            // One loops and the other crashed once.
            (vec![2, 1], false),
            (vec![1, 4], true),
            (vec![2, 2], true),
            (vec![3, 2], true),
        ] {
            for code in [Code::Exited, Code::Oom, Code::Backgrounded, Code::InitFailed] {
                let last = if terminal { code.when_terminal() } else { code };
                let expected = format!("{}{}", last.word(), if terminal { "!" } else { "" });
                assert_eq!(verdict(code, |f| f.restarts.clone_from(&restarts)), expected, "{restarts:?}");
            }
        }
        // The first of a rollout is all there is of the new revision.
        assert_eq!(verdict(Code::Exited, |f| (f.new_replicas, f.restarts) = (1, vec![2])), "crash_loop!");
        assert_eq!(verdict(Code::Exited, |f| (f.new_replicas, f.restarts) = (1, vec![1])), "exited");
    }

    #[test]
    fn patience_is_bounded_and_help_on_its_way_extends_it() {
        for (code, patience_ms) in [
            (Code::PortTaken, 3_000),
            (Code::CreateFailed, 30_000),
            (Code::ConfigMissing, 60_000),
            (Code::Unschedulable, 75_000),
            (Code::ImagePull, 180_000),
            (Code::MountFailed, 180_000),
        ] {
            assert_eq!(verdict(code, |f| f.lasts_ms = patience_ms - 1), code.word());
            assert_eq!(verdict(code, |f| f.lasts_ms = patience_ms), format!("{}!", code.word()));
            let helped = |f: &mut Facts| (f.lasts_ms, f.help_comes) = (10 * patience_ms, true);
            assert_eq!(verdict(code, helped), code.word());
        }
    }

    #[test]
    fn a_slow_start_within_its_budget_is_no_failure_and_beyond_it_the_deadline_decides() {
        let at = |stalled: u64, budget: u64, deadline: u64| {
            move |f: &mut Facts| {
                (f.stalled_ms, f.probe_budget_ms) = (stalled, budget);
                f.progress_deadline_ms = Some(deadline);
            }
        };
        for code in [Code::Starting, Code::NotReady, Code::MinReady] {
            for (stalled, budget, deadline, terminal) in [
                (5_000, 20_000, 60_000, false),
                // The budget is over and the deadline is not.
                (20_000, 20_000, 60_000, false),
                (59_999, 20_000, 60_000, false),
                (60_000, 20_000, 60_000, true),
                // A deadline within the budget does not cut it short.
                (10_000, 20_000, 5_000, false),
                (20_000, 20_000, 5_000, true),
            ] {
                let expected = if terminal { "progress_deadline!" } else { code.word() };
                assert_eq!(
                    verdict(code, at(stalled, budget, deadline)),
                    expected,
                    "{code:?} after {stalled}"
                );
            }
        }
        // Without a deadline nothing but its own rule ends a wait: the clocks of the run do.
        assert_eq!(verdict(Code::NotReady, |f| f.stalled_ms = u64::MAX), "not_ready");
    }

    #[test]
    fn what_is_no_fault_of_the_release_is_left_to_the_deadline() {
        for code in [Code::Evicted, Code::CannotRun, Code::Draining, Code::Relay, Code::Paused] {
            let seen_long = |f: &mut Facts| {
                (f.sightings, f.lasts_ms, f.restarts) = (9, 3_600_000, vec![9, 9]);
                (f.stalled_ms, f.progress_deadline_ms) = (59_999, Some(60_000));
            };
            assert_eq!(verdict(code, seen_long), code.word());
            let over = |f: &mut Facts| (f.stalled_ms, f.progress_deadline_ms) = (60_000, Some(60_000));
            assert_eq!(verdict(code, over), "progress_deadline!");
        }
    }

    #[test]
    fn a_stall_still_says_what_it_waits_for() {
        let facts = Facts {
            stalled_ms: 60_400,
            progress_deadline_ms: Some(60_000),
            ..Facts::of(Code::Starting, "2 starting")
        };
        assert_eq!(judge(&facts), Cause::terminal("progress_deadline", "no progress for 60.4 s: 2 starting"));
    }
}
