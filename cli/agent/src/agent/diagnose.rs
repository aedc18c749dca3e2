//! What to say about a workload: facts in, status and cause out. Pure.
//!
//! Here is what a local replica shows; when that means that waiting cannot help is core's table
//! ([`mlctl_core::cause`]), the same for every target.

use mlctl_core::cause::{CauseCode, Facts, judge, seconds};
use mlctl_core::status::{Cause, Status, WorkloadStatus};

/// A workload and its replicas at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkloadFacts {
    /// Replicas asked for.
    pub(super) desired: u32,
    /// True while it is being removed.
    pub(super) removed: bool,
    /// Why its port cannot be taken, and for how long that has been so.
    pub(super) port_taken: Option<(String, u64)>,
    /// True while the relay does not serve its address as it should.
    pub(super) unserved: bool,
    /// Since the rollout last came nearer to its end, in milliseconds.
    pub(super) stalled_ms: u64,
    /// How long it may be stalled.
    pub(super) progress_deadline_ms: u64,
    /// How long a replica has to stay ready.
    pub(super) min_ready_ms: u64,
    /// How long its own probes let a replica take until it has to be ready.
    pub(super) probe_budget_ms: u64,
    /// All replicas that have not ended.
    pub(super) replicas: Vec<ReplicaFacts>,
}

/// One replica at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct ReplicaFacts {
    /// Its name.
    pub(super) name: String,
    /// True when it is of the newest revision.
    pub(super) newest: bool,
    /// True when it is on its way out.
    pub(super) leaving: bool,
    /// True while it answers its readiness probe.
    pub(super) ready: bool,
    /// True once it stayed ready long enough.
    pub(super) available: bool,
    /// How long it has been ready, in milliseconds.
    pub(super) ready_ms: u64,
    /// How often it was started again in a row.
    pub(super) restarts: u32,
    /// How its last run ended; forgotten once it is available.
    pub(super) exit: Option<ExitFacts>,
    /// What it last answered in place of "ready".
    pub(super) answer: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, Default)]
pub(super) struct ExitFacts {
    /// `exit code 3`, `signal 9 (SIGKILL)`.
    pub(super) words: String,
    /// How long it ran, in milliseconds.
    pub(super) ran_ms: u64,
    /// Killed for its memory.
    pub(super) oom: bool,
    /// It could not be started at all.
    pub(super) not_started: bool,
    /// Its program is not there.
    pub(super) artifact_missing: bool,
    /// It exited with 0.
    pub(super) with_zero: bool,
    /// Processes that outlived it and were ended.
    pub(super) left: u32,
}

/// Returns the status of a workload and why it is not current.
pub(super) fn diagnose(facts: &WorkloadFacts) -> WorkloadStatus {
    let staying: Vec<&ReplicaFacts> = facts.replicas.iter().filter(|r| !r.leaving).collect();
    let newest: Vec<&ReplicaFacts> = staying.iter().copied().filter(|r| r.newest).collect();
    let cause = cause(facts, &newest);
    let status = match &cause {
        _ if facts.removed => Status::Terminating,
        None => Status::Current,
        Some(cause) if cause.terminal => Status::Failed,
        Some(_) => Status::InProgress,
    };
    WorkloadStatus {
        status,
        ready: count(staying.iter().filter(|r| r.ready)),
        updated: count(newest.iter()),
        desired: if facts.removed { 0 } else { facts.desired },
        cause,
    }
}

fn cause(facts: &WorkloadFacts, newest: &[&ReplicaFacts]) -> Option<Cause> {
    if facts.removed {
        let text = format!("{} of its replicas still end", facts.replicas.len());
        return Some(Cause::transient(CauseCode::Draining, text));
    }
    let found = port_taken(facts)
        .or_else(|| broken(newest))
        .or_else(|| pending(facts, newest))
        .or_else(|| unserved(facts))?;
    Some(judge(&Facts {
        new_replicas: newest.len(),
        probe_budget_ms: facts.probe_budget_ms + facts.min_ready_ms,
        stalled_ms: facts.stalled_ms,
        progress_deadline_ms: Some(facts.progress_deadline_ms),
        ..found
    }))
}

/// Returns what is seen when the stable port is somebody else's.
fn port_taken(facts: &WorkloadFacts) -> Option<Facts> {
    let (text, lasts_ms) = facts.port_taken.as_ref()?;
    Some(Facts { lasts_ms: *lasts_ms, ..Facts::of(CauseCode::PortTaken, text) })
}

/// Returns what is seen when new replicas ended that should run.
fn broken(newest: &[&ReplicaFacts]) -> Option<Facts> {
    let ended: Vec<(&ReplicaFacts, &ExitFacts)> = newest
        .iter()
        .filter(|r| !r.available)
        .filter_map(|r| r.exit.as_ref().map(|exit| (*r, exit)))
        .collect();
    let hopeless = |code, is: fn(&ExitFacts) -> bool| {
        let (replica, exit) = ended.iter().find(|(_, exit)| is(exit))?;
        Some(Facts::of(code, format!("{}: {}", replica.name, exit.words)))
    };
    hopeless(CauseCode::ArtifactMissing, |exit| exit.artifact_missing)
        .or_else(|| hopeless(CauseCode::ExecFailed, |exit| exit.not_started))
        .or_else(|| restarted(&ended))
}

/// Returns what is seen of replicas that end and are started again, told by the worst of them.
fn restarted(ended: &[(&ReplicaFacts, &ExitFacts)]) -> Option<Facts> {
    let (replica, exit) = ended.iter().max_by_key(|(replica, _)| replica.restarts)?;
    let again = match replica.restarts {
        0 => String::new(),
        1 => ", was started again once".to_owned(),
        times => format!(", was started again {times} times"),
    };
    let (code, why) = match exit {
        ExitFacts { oom: true, .. } => (CauseCode::Oom, String::new()),
        ExitFacts { with_zero: true, left: 1.., .. } => {
            let who =
                if exit.left == 1 { "1 process".to_owned() } else { format!("{} processes", exit.left) };
            let why = format!(
                "; it put itself in the background ({who} outlived it and had to be ended): run it in the foreground"
            );
            (CauseCode::Backgrounded, why)
        }
        ExitFacts { with_zero: true, .. } => {
            (CauseCode::Exited, "; it ended by itself while it should run".to_owned())
        }
        _ => (CauseCode::Exited, String::new()),
    };
    let text = format!("{}: {} after {}{again}{why}", replica.name, exit.words, seconds(exit.ran_ms));
    let restarts = ended.iter().map(|(replica, _)| replica.restarts).collect();
    Some(Facts { restarts, ..Facts::of(code, text) })
}

/// Returns what a healthy rollout still waits for.
fn pending(facts: &WorkloadFacts, newest: &[&ReplicaFacts]) -> Option<Facts> {
    let (ready, available) =
        (count(newest.iter().filter(|r| r.ready)), count(newest.iter().filter(|r| r.available)));
    let missing = facts.desired.saturating_sub(ready);
    if missing > 0 {
        // How many are ready is told beside the cause; here is why the others are not.
        let begun = count(newest.iter()).saturating_sub(ready).min(missing);
        let later = match missing - begun {
            0 => String::new(),
            later => format!(", {later} to follow"),
        };
        let answer = newest.iter().filter(|r| !r.ready).find_map(|r| r.answer.as_ref().map(|a| (&r.name, a)));
        return Some(match answer {
            Some((name, answer)) => {
                Facts::of(CauseCode::NotReady, format!("{begun} not ready ({name}: {answer}){later}"))
            }
            None if begun == 0 => Facts::of(CauseCode::Starting, format!("{missing} to be started")),
            None => Facts::of(CauseCode::Starting, format!("{begun} starting{later}")),
        });
    }
    if available < facts.desired {
        let youngest = newest.iter().filter(|r| r.ready && !r.available).map(|r| r.ready_ms).min();
        let text = format!(
            "{available} of {} replicas available, the youngest has been ready for {} of {}",
            facts.desired,
            seconds(youngest.unwrap_or_default()),
            seconds(facts.min_ready_ms),
        );
        return Some(Facts::of(CauseCode::MinReady, text));
    }
    let old = facts.replicas.iter().filter(|r| r.leaving || !r.newest).count();
    let surplus = newest.len().saturating_sub(facts.desired as usize);
    (old + surplus > 0).then(|| {
        let text = format!("all {} new replicas available, {} old still end", facts.desired, old + surplus);
        Facts::of(CauseCode::Draining, text)
    })
}

/// Returns the cause when all replicas are as they should be and nobody can reach them.
fn unserved(facts: &WorkloadFacts) -> Option<Facts> {
    facts.unserved.then(|| Facts::of(CauseCode::Relay, "the relay does not serve its address yet"))
}

fn count<T>(iterator: impl Iterator<Item = T>) -> u32 {
    u32::try_from(iterator.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(name: &str) -> ReplicaFacts {
        ReplicaFacts { name: name.to_owned(), newest: true, ..ReplicaFacts::default() }
    }
    fn available(name: &str) -> ReplicaFacts {
        ReplicaFacts { ready: true, available: true, ready_ms: 5_000, ..replica(name) }
    }
    fn old(name: &str) -> ReplicaFacts {
        ReplicaFacts { newest: false, ..available(name) }
    }
    fn ended(name: &str, restarts: u32) -> ReplicaFacts {
        let exit = ExitFacts { words: "exit code 3".to_owned(), ran_ms: 40, ..ExitFacts::default() };
        ReplicaFacts { restarts, exit: Some(exit), ..replica(name) }
    }
    fn facts(replicas: Vec<ReplicaFacts>) -> WorkloadFacts {
        WorkloadFacts {
            desired: 2,
            progress_deadline_ms: 60_000,
            min_ready_ms: 1_000,
            replicas,
            ..WorkloadFacts::default()
        }
    }
    fn told(facts: &WorkloadFacts) -> String {
        let status = diagnose(facts);
        let cause = status.cause.map_or_else(String::new, |c| {
            format!(" {}{}: {}", c.code, if c.terminal { "!" } else { "" }, c.text)
        });
        format!("{} {}/{}/{}{cause}", status.status.word(), status.ready, status.updated, status.desired)
    }

    #[test]
    fn a_rollout_from_start_to_end() {
        let young = ReplicaFacts { available: false, ready_ms: 400, ..available("c") };
        let saying = ReplicaFacts { answer: Some("503: no tables".to_owned()), ..replica("c") };
        let leaving = ReplicaFacts { leaving: true, ..old("a") };
        for (replicas, expected) in [
            (vec![], "in progress 0/0/2 starting: 2 to be started"),
            (vec![old("a"), old("b"), replica("c")], "in progress 2/1/2 starting: 1 starting, 1 to follow"),
            (
                vec![old("a"), old("b"), saying],
                "in progress 2/1/2 not_ready: 1 not ready (c: 503: no tables), 1 to follow",
            ),
            (
                vec![old("a"), available("d"), young],
                "in progress 3/2/2 min_ready: 1 of 2 replicas available, the youngest has been ready for 0.4 s of 1.0 s",
            ),
            (
                vec![leaving, available("c"), available("d")],
                "in progress 2/2/2 draining: all 2 new replicas available, 1 old still end",
            ),
            (vec![available("c"), available("d")], "current 2/2/2"),
            (
                vec![available("c"), available("d"), available("e")],
                "in progress 3/3/2 draining: all 2 new replicas available, 1 old still end",
            ),
        ] {
            assert_eq!(told(&facts(replicas)), expected);
        }
    }

    #[test]
    fn a_crash_is_chance_until_it_repeats() {
        for (replicas, expected) in [
            (vec![old("a"), ended("c", 0)], "in progress 1/1/2 exited: c: exit code 3 after 0.0 s"),
            (
                vec![old("a"), ended("c", 1)],
                "in progress 1/1/2 exited: c: exit code 3 after 0.0 s, was started again once",
            ),
            (
                vec![old("a"), ended("c", 2)],
                "failed 1/1/2 crash_loop!: c: exit code 3 after 0.0 s, was started again 2 times",
            ),
            (
                vec![available("d"), ended("c", 3)],
                "in progress 1/2/2 exited: c: exit code 3 after 0.0 s, was started again 3 times",
            ),
            (
                vec![available("d"), ended("c", 4)],
                "failed 1/2/2 crash_loop!: c: exit code 3 after 0.0 s, was started again 4 times",
            ),
        ] {
            assert_eq!(told(&facts(replicas)), expected);
        }
    }

    #[test]
    fn what_waiting_cannot_cure_is_terminal_at_once() {
        let with = |change: fn(&mut ExitFacts)| {
            let mut replica = ended("c", 0);
            replica.exit.iter_mut().for_each(change);
            facts(vec![replica])
        };
        assert!(told(&with(|e| e.not_started = true)).starts_with("failed 0/1/2 exec_failed!: c: "));
        assert!(
            told(&with(|e| (e.not_started, e.artifact_missing) = (true, true)))
                .starts_with("failed 0/1/2 artifact_missing!: c: ")
        );
        assert!(told(&with(|e| e.oom = true)).starts_with("in progress 0/1/2 oom: c: "));
    }

    #[test]
    fn a_program_that_ends_with_zero_is_told_what_is_wrong_with_that() {
        let ended = |left, restarts| {
            let exit =
                ExitFacts { words: "exit code 0".to_owned(), with_zero: true, left, ..ExitFacts::default() };
            facts(vec![old("a"), ReplicaFacts { exit: Some(exit), ..ended("c", restarts) }])
        };
        assert_eq!(
            told(&ended(0, 0)),
            "in progress 1/1/2 exited: c: exit code 0 after 0.0 s; it ended by itself while it should run"
        );
        assert_eq!(
            told(&ended(2, 2)),
            "failed 1/1/2 backgrounded!: c: exit code 0 after 0.0 s, was started again 2 times; it put itself in the \
             background (2 processes outlived it and had to be ended): run it in the foreground"
        );
        assert!(
            told(&ended(1, 0)).contains("backgrounded: ")
                && told(&ended(1, 0)).contains("(1 process outlived")
        );
    }

    #[test]
    fn a_slow_start_within_its_budget_is_waited_for_whatever_the_deadline() {
        let slow = |stalled_ms, replica| WorkloadFacts {
            stalled_ms,
            progress_deadline_ms: 2_000,
            probe_budget_ms: 9_000,
            ..facts(vec![old("a"), replica])
        };
        let young = || ReplicaFacts { available: false, ready_ms: 400, ..available("c") };
        assert!(told(&slow(9_999, replica("c"))).starts_with("in progress 1/1/2 starting"));
        assert!(told(&slow(9_999, young())).starts_with("in progress 2/1/2"));
        assert!(told(&slow(10_000, replica("c"))).starts_with("failed 1/1/2 progress_deadline!"));
        // A crash is no slow start.
        assert!(told(&slow(2_000, ended("c", 0))).starts_with("failed 1/1/2 progress_deadline!"));
    }

    #[test]
    fn a_taken_port_is_given_a_moment() {
        let taken = |ms| WorkloadFacts {
            port_taken: Some(("port 3001 is taken".to_owned(), ms)),
            ..facts(vec![available("a"), available("b")])
        };
        assert_eq!(told(&taken(0)), "in progress 2/2/2 port_taken: port 3001 is taken");
        assert_eq!(told(&taken(3_000)), "failed 2/2/2 port_taken!: port 3001 is taken");
    }

    #[test]
    fn what_nobody_can_reach_is_not_current() {
        let unserved = WorkloadFacts { unserved: true, ..facts(vec![available("a"), available("b")]) };
        assert_eq!(told(&unserved), "in progress 2/2/2 relay: the relay does not serve its address yet");
        assert!(told(&WorkloadFacts { unserved: true, ..facts(vec![available("a")]) }).contains("starting"));
    }

    #[test]
    fn a_stalled_rollout_fails_and_still_says_what_it_waits_for() {
        let stalled = |ms| WorkloadFacts { stalled_ms: ms, ..facts(vec![old("a"), replica("c")]) };
        assert!(told(&stalled(59_999)).starts_with("in progress"));
        assert_eq!(
            told(&stalled(60_000)),
            "failed 1/1/2 progress_deadline!: no progress for 60.0 s: 1 starting, 1 to follow"
        );
        let done = WorkloadFacts { stalled_ms: 90_000, ..facts(vec![available("a"), available("b")]) };
        assert_eq!(told(&done), "current 2/2/2");
    }

    #[test]
    fn a_removed_workload_terminates() {
        let removed = WorkloadFacts { removed: true, ..facts(vec![available("a")]) };
        assert_eq!(told(&removed), "terminating 1/1/0 draining: 1 of its replicas still end");
    }
}
