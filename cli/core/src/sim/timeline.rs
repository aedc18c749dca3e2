//! What follows from a write, as a list of moments: pure, with a table under it.

use serde::{Deserialize, Serialize};

use super::script::{Fault, Tempo};
use crate::cause::CauseCode;
use crate::item::ItemKind;
use crate::snapshot::Live;
use crate::status::{Cause, Status, WorkloadStatus};

/// Back-off after the first crash of a process; doubles with each.
const BACK_OFF_MS: u64 = 1_000;

/// The state of an item from one moment on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// From when on, in milliseconds since the simulation began.
    pub at_ms: u64,
    /// How the item stands.
    pub live: Live,
    /// What happened: a stable word and a sentence.
    pub event: Option<(String, String)>,
    /// What a process wrote just then.
    pub log: Vec<String>,
    /// Crashes of its processes so far in this revision.
    pub crashes: u32,
    /// How a process last ended.
    pub exit: Option<String>,
}

/// The kinds of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Roll {
    /// All replicas at once, nothing before them.
    Create,
    /// Replica by replica: surge 1, unavailable 0.
    Update,
    /// More or fewer of the same.
    Scale,
    /// All of them go.
    Remove,
}

/// Returns the beats that follow from a write at `at_ms`, the first of them at that very moment.
///
/// `wanted` is the item as accepted, still with the status and the observed generation of before: that is what the
/// target tells until it has noticed the write.
pub(super) fn beats(
    at_ms: u64,
    roll: Roll,
    wanted: &Live,
    tempo: Tempo,
    kind: ItemKind,
    faults: &[&Fault],
) -> Vec<Beat> {
    let mut accepted = wanted.clone();
    if roll == Roll::Create {
        let desired = wanted.replicas.unwrap_or(0);
        accepted.status = WorkloadStatus { desired, ..WorkloadStatus::simple(Status::InProgress) };
    }
    let mut line = Line { beats: Vec::new(), wanted: wanted.clone() };
    line.beats.push(line.beat(at_ms, accepted));
    let noticed = at_ms + tempo.observe;
    if roll == Roll::Remove {
        line.removed(noticed, tempo);
        return line.beats;
    }
    let slow = faults.iter().map(|fault| u64::from(fault.slow)).max().unwrap_or(0).max(1);
    // What is no process is there as soon as it is noticed.
    let runs = matches!(kind, ItemKind::Workload | ItemKind::Store);
    let (start, ready) = if runs { (tempo.start * slow, tempo.ready * slow) } else { (0, 0) };
    line.rollout(noticed, roll, start, ready, tempo.stop);
    for fault in faults {
        line.suffer(fault, noticed, start, ready);
    }
    line.beats
}

struct Line {
    beats: Vec<Beat>,
    wanted: Live,
}

impl Line {
    fn beat(&self, at_ms: u64, live: Live) -> Beat {
        let last = self.beats.last();
        let (crashes, exit) = last.map_or((0, None), |beat| (beat.crashes, beat.exit.clone()));
        Beat { at_ms, live, event: None, log: Vec::new(), crashes, exit }
    }

    /// Adds a state that the target has noticed.
    fn push(&mut self, at_ms: u64, status: WorkloadStatus, event: Option<(&str, &str)>) {
        let live = Live { observed_generation: self.wanted.generation, status, ..self.wanted.clone() };
        let mut beat = self.beat(at_ms, live);
        beat.event = event.map(|(reason, text)| (reason.to_owned(), text.to_owned()));
        self.beats.push(beat);
    }

    fn removed(&mut self, noticed: u64, tempo: Tempo) {
        let status = WorkloadStatus { status: Status::Terminating, desired: 0, ..self.wanted.status.clone() };
        self.push(noticed, status, Some(("stopping", "it was asked to end")));
        let (generation, observed_generation) = (self.wanted.generation, self.wanted.generation);
        let mut gone =
            self.beat(noticed + tempo.stop, Live { generation, observed_generation, ..Live::missing() });
        gone.event = Some(("removed".to_owned(), "it is gone".to_owned()));
        self.beats.push(gone);
    }

    /// Adds the states of a rollout in which nothing goes wrong.
    fn rollout(&mut self, noticed: u64, roll: Roll, start: u64, ready: u64, stop: u64) {
        let desired = self.wanted.replicas.unwrap_or(0);
        let before = if roll == Roll::Create { 0 } else { self.wanted.status.ready };
        let starting = Some(Cause::transient(CauseCode::Starting, "waiting for a new replica to be ready"));
        let status = |ready: u32, updated: u32, cause: Option<Cause>| {
            let status = if cause.is_some() { Status::InProgress } else { Status::Current };
            WorkloadStatus { status, ready, updated, desired, cause }
        };
        let each = start + ready;
        match roll {
            Roll::Scale if desired <= before => {
                let going = Some(Cause::transient(CauseCode::Draining, "waiting for replicas to end"));
                self.push(noticed, status(before, before, going), None);
                self.push(
                    noticed + stop,
                    status(desired, desired, None),
                    Some(("stopped", "replicas ended")),
                );
            }
            Roll::Update if desired > 0 => {
                self.push(
                    noticed,
                    status(before, 0, starting.clone()),
                    Some(("started", "a replica started")),
                );
                for done in 1..=desired {
                    let cause = starting.clone().filter(|_| done < desired);
                    let at = noticed + each * u64::from(done);
                    self.push(
                        at,
                        status(before.max(done).min(desired), done, cause),
                        Some(("ready", "a replica is ready")),
                    );
                }
            }
            _ if each == 0 => self.push(noticed, status(desired, desired, None), None),
            _ => {
                let kept = if roll == Roll::Scale { before } else { 0 };
                self.push(noticed, status(before, kept, starting), Some(("started", "replicas started")));
                self.push(
                    noticed + each,
                    status(desired, desired, None),
                    Some(("ready", "replicas are ready")),
                );
            }
        }
    }

    /// Bends the rollout to a fault.
    fn suffer(&mut self, fault: &Fault, noticed: u64, start: u64, ready: u64) {
        if fault.flaps > 0 {
            self.flap(fault);
        }
        if fault.never_ready {
            let text = "running, and not ready: its readiness probe says no";
            self.cut(noticed + start, Cause::transient(CauseCode::NotReady, text), Status::InProgress);
        }
        if let Some(crash) = fault.crash {
            self.crash(fault, noticed + start, crash.as_millis(), start, ready);
        }
        if let Some(trouble) = &fault.cause {
            let status = if trouble.terminal { Status::Failed } else { Status::InProgress };
            self.cut(noticed + trouble.after.as_millis(), trouble.cause(), status);
        }
    }

    /// Returns the status that holds at a moment, with one replica fewer when everything was ready.
    fn wounded(&self, at_ms: u64) -> WorkloadStatus {
        let held = self.beats.iter().rev().find(|beat| beat.at_ms < at_ms);
        let mut status =
            held.map_or(WorkloadStatus::simple(Status::InProgress), |beat| beat.live.status.clone());
        if status.status == Status::Current {
            status.ready = status.ready.saturating_sub(1);
        }
        status
    }

    /// Ends the rollout at a moment with a cause.
    fn cut(&mut self, at_ms: u64, cause: Cause, status: Status) {
        let wounded = self.wounded(at_ms);
        self.beats.retain(|beat| beat.at_ms < at_ms);
        let event = (cause.code.clone(), cause.text.clone());
        self.push(
            at_ms,
            WorkloadStatus { status, cause: Some(cause), ..wounded },
            Some((&event.0, &event.1)),
        );
    }

    fn crash(&mut self, fault: &Fault, running: u64, lives: u64, start: u64, ready: u64) {
        let code = fault.exit.unwrap_or(1);
        let give_up = fault.give_up.unwrap_or(2).max(1);
        let seconds = lives / 1_000;
        let before =
            self.beats.iter().rev().find(|beat| beat.at_ms < running + lives).map(|b| b.live.status.clone());
        let (mut at, mut back_off) = (running + lives, BACK_OFF_MS);
        for nth in 1..=give_up {
            let last = nth == give_up;
            let text = if last {
                format!("exited {nth} times with code {code}, each {seconds} s after its start")
            } else {
                format!("exited with code {code} after {seconds} s; starting again in {} s", back_off / 1_000)
            };
            let cause = Cause {
                terminal: last,
                ..Cause::transient(if last { CauseCode::CrashLoop } else { CauseCode::Exited }, text)
            };
            self.cut(at, cause, if last { Status::Failed } else { Status::InProgress });
            if let Some(beat) = self.beats.last_mut() {
                beat.crashes = nth;
                beat.exit = Some(format!("exit code {code}"));
                beat.log.clone_from(&fault.log);
            }
            let up = at + back_off + start;
            if !last
                && lives > ready
                && let Some(before) = before.clone()
            {
                self.push(up + ready, before, Some(("ready", "a replica is ready again")));
            }
            at = up + lives;
            back_off *= 2;
        }
    }

    /// Lets an item that is current lose its readiness and find it again.
    fn flap(&mut self, fault: &Fault) {
        let half = fault.flap.map_or(500, crate::system::units::TimeSpan::as_millis).max(1);
        let Some(last) = self.beats.last().filter(|beat| beat.live.is_current()).cloned() else { return };
        let mut at = last.at_ms;
        for _ in 0..fault.flaps {
            let cause = Cause::transient(CauseCode::NotReady, "its readiness probe says no");
            self.cut(at + half, cause, Status::InProgress);
            self.push(at + 2 * half, last.live.status.clone(), Some(("ready", "ready again")));
            at += 2 * half;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::units::TimeSpan;

    const TEMPO: Tempo = Tempo { observe: 10, start: 100, ready: 200, stop: 50 };

    fn before(ready: u32) -> Live {
        let status =
            WorkloadStatus { status: Status::Current, ready, updated: ready, desired: ready, cause: None };
        Live { digest: None, generation: 2, observed_generation: 1, replicas: Some(2), status }
    }

    fn told(roll: Roll, wanted: &Live, faults: &[&Fault]) -> Vec<String> {
        let line = |beat: &Beat| {
            let status = &beat.live.status;
            let cause = status.cause.as_ref().map(|cause| format!(" {}", cause.code)).unwrap_or_default();
            let (seen, word) = (beat.live.observed_generation, status.status.word());
            format!(
                "{} g{seen} {word} {}/{}/{}{cause}",
                beat.at_ms, status.ready, status.updated, status.desired
            )
        };
        beats(0, roll, wanted, TEMPO, ItemKind::Workload, faults).iter().map(line).collect()
    }

    #[test]
    fn a_rollout_keeps_what_serves_until_the_new_one_does() {
        assert_eq!(
            told(Roll::Update, &before(2), &[]),
            [
                "0 g1 current 2/2/2",
                "10 g2 in progress 2/0/2 starting",
                "310 g2 in progress 2/1/2 starting",
                "610 g2 current 2/2/2",
            ]
        );
        assert_eq!(
            told(Roll::Create, &before(0), &[]),
            ["0 g1 in progress 0/0/2", "10 g2 in progress 0/0/2 starting", "310 g2 current 2/2/2",]
        );
        assert_eq!(
            told(Roll::Scale, &before(3), &[]),
            ["0 g1 current 3/3/3", "10 g2 in progress 3/3/2 draining", "60 g2 current 2/2/2",]
        );
        assert_eq!(
            told(Roll::Remove, &before(2), &[]),
            ["0 g1 current 2/2/2", "10 g2 terminating 2/2/0", "60 g2 not found 0/0/0",]
        );
    }

    #[test]
    fn faults_bend_a_rollout() {
        let fault = |change: fn(&mut Fault)| {
            let mut fault = Fault::default();
            change(&mut fault);
            fault
        };
        let never = fault(|f| f.never_ready = true);
        assert_eq!(told(Roll::Update, &before(2), &[&never])[2..], ["110 g2 in progress 2/0/2 not_ready"]);
        let at_once = fault(|f| f.crash = Some(TimeSpan::default()));
        assert_eq!(
            told(Roll::Update, &before(2), &[&at_once])[2..],
            ["110 g2 in progress 2/0/2 exited", "1210 g2 failed 2/0/2 crash_loop",]
        );
        let later = fault(|f| f.crash = Some(TimeSpan::from_secs(3)));
        assert_eq!(
            told(Roll::Create, &before(0), &[&later])[2..],
            [
                "310 g2 current 2/2/2",
                "3110 g2 in progress 1/2/2 exited",
                "4410 g2 current 2/2/2",
                "7210 g2 failed 1/2/2 crash_loop",
            ]
        );
        let flapping = fault(|f| f.flaps = 2);
        assert_eq!(
            told(Roll::Create, &before(0), &[&flapping])[2..],
            [
                "310 g2 current 2/2/2",
                "810 g2 in progress 1/2/2 not_ready",
                "1310 g2 current 2/2/2",
                "1810 g2 in progress 1/2/2 not_ready",
                "2310 g2 current 2/2/2",
            ]
        );
    }
}
