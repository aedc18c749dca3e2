//! Who can say something about a failure: the replicas of the revision that failed, those in trouble first. What
//! earlier revisions said, or did on their way out, is about something else.

use std::time::Duration;

use jiff::Timestamp;

use crate::item::ItemId;
use crate::ports::{LogLine, Replica, TargetEvent};

/// Replicas whose logs are kept.
const LOGS: usize = 4;
/// Events that are kept.
const EVENTS: usize = 20;
/// How long after an exit the last lines of its log may have been read.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The replicas of one workload that are asked.
pub(super) struct Witnesses<'a> {
    asked: Vec<&'a Replica>,
    outdated: Vec<&'a str>,
}

impl<'a> Witnesses<'a> {
    /// Picks them among all replicas of a workload.
    pub(super) fn among(replicas: &'a [Replica]) -> Self {
        let mut found: Vec<&Replica> = replicas.iter().filter(|replica| !replica.outdated).collect();
        // Stable: the target's order otherwise.
        found.sort_by_key(|replica| (replica.ready, replica.last_exit.is_none()));
        let outdated =
            replicas.iter().filter(|replica| replica.outdated).map(|replica| replica.name.as_str());
        Self { asked: found, outdated: outdated.collect() }
    }

    /// Says whether that replica is of another revision.
    pub(super) fn excludes(&self, replica: &str) -> bool {
        self.outdated.contains(&replica)
    }

    /// Returns a line for each.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |r: &&Replica| {
            let exit = r.last_exit.as_ref().map(|exit| format!(", last exit: {exit}")).unwrap_or_default();
            format!("{} ({}): {}, {} restarts{exit}", r.name, r.revision, r.state, r.restarts)
        };
        self.asked.iter().map(line).collect()
    }

    /// Returns what they wrote, a replica at a time.
    pub(super) fn logs(&self, lines: &[LogLine]) -> Vec<Vec<String>> {
        let of = |replica: &&Replica| -> Vec<String> {
            let own = lines.iter().filter(|line| line.replica == replica.name);
            own.map(|line| format!("{}: {}", line.replica, line.text)).collect()
        };
        self.asked.iter().map(of).filter(|lines| !lines.is_empty()).take(LOGS).collect()
    }

    /// Returns until when their logs explain them: the last end of one, unless one was ready since. What the run after
    /// it says at its start may be louder than any tail is long.
    pub(super) fn last_words(&self, item: &ItemId, events: &[TargetEvent]) -> Option<Timestamp> {
        let telling = ["exited", "oom", "crash_loop", "ready", "available"];
        let told = |event: &&TargetEvent| telling.contains(&event.reason.as_str());
        let last = events.iter().filter(|event| self.concerns(item, event)).rfind(told)?;
        let is_exit = !["ready", "available"].contains(&last.reason.as_str());
        is_exit.then(|| last.at.checked_add(LAST_WORDS).ok()).flatten()
    }

    fn concerns(&self, item: &ItemId, event: &TargetEvent) -> bool {
        let asked = |name: &String| self.asked.iter().any(|each| each.name == *name);
        event.id == *item && event.replica.as_ref().is_none_or(asked)
    }

    /// Returns what happened to them, and to the workload as a whole, oldest first.
    pub(super) fn events(&self, item: &ItemId, events: &[TargetEvent]) -> Vec<String> {
        let line = |event: &TargetEvent| {
            let who = event.replica.as_ref().unwrap_or(&event.id.name);
            format!("{} {who} {}: {}", event.at, event.reason, event.text)
        };
        let lines: Vec<String> = events.iter().filter(|event| self.concerns(item, event)).map(line).collect();
        let surplus = lines.len().saturating_sub(EVENTS);
        lines.into_iter().skip(surplus).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(name: &str, outdated: bool, ready: bool, exit: Option<&str>) -> Replica {
        Replica {
            name: name.to_owned(),
            service: "api".to_owned(),
            revision: "abc".to_owned(),
            outdated,
            state: "back_off".to_owned(),
            ready,
            restarts: 1,
            since: Timestamp::UNIX_EPOCH,
            last_exit: exit.map(ToOwned::to_owned),
            cpu_millis: None,
            memory_bytes: None,
        }
    }

    fn log(replica: &str, text: &str) -> LogLine {
        LogLine { service: "api".into(), replica: replica.into(), at: None, text: text.into() }
    }

    fn event(name: &str, replica: Option<&str>, reason: &str) -> TargetEvent {
        TargetEvent {
            at: Timestamp::UNIX_EPOCH,
            id: ItemId::workload(name),
            replica: replica.map(ToOwned::to_owned),
            reason: reason.into(),
            text: "text".into(),
        }
    }

    #[test]
    fn last_words_end_with_the_last_exit() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for (told, expected) in [
            (&[][..], None),
            (&[(11, "exited"), (12, "started")], Some(11)),
            (&[(11, "exited"), (12, "started"), (13, "oom"), (14, "started")], Some(13)),
            // It serves again: its newest lines are those that count.
            (&[(11, "exited"), (12, "started"), (13, "ready")], None),
        ] {
            let event = |(second, reason): &(i64, &str)| TargetEvent {
                at: at(*second),
                ..event("api", None, reason)
            };
            let events: Vec<TargetEvent> = told.iter().map(event).collect();
            let until = expected.map(|second| at(second).checked_add(LAST_WORDS).unwrap());
            assert_eq!(
                Witnesses::among(&[]).last_words(&ItemId::workload("api"), &events),
                until,
                "{told:?}"
            );
        }
    }

    #[test]
    fn only_the_failed_revision_is_asked_and_those_in_trouble_first() {
        let replicas = [
            replica("api-old", true, true, None),
            replica("api-fine", false, true, None),
            replica("api-slow", false, false, None),
            replica("api-bad", false, false, Some("exit code 3")),
        ];
        let witnesses = Witnesses::among(&replicas);
        let names: Vec<&str> = witnesses.asked.iter().map(|replica| replica.name.as_str()).collect();
        assert_eq!(names, ["api-bad", "api-slow", "api-fine"]);
        assert_eq!(witnesses.lines()[0], "api-bad (abc): back_off, 1 restarts, last exit: exit code 3");
        let lines = [
            log("api-old", "bye"),
            log("api-fine", "hello"),
            log("api-bad", "no such table"),
            log("api-gone", "stopped before"),
        ];
        assert_eq!(witnesses.logs(&lines), [["api-bad: no such table"], ["api-fine: hello"]]);
        let events = [
            event("api", Some("api-old"), "stopped"),
            event("api", Some("api-bad"), "exited"),
            event("other", Some("api-bad"), "exited"),
            event("api", None, "settled"),
        ];
        let told = witnesses.events(&ItemId::workload("api"), &events);
        let at = Timestamp::UNIX_EPOCH;
        assert_eq!(told, [format!("{at} api-bad exited: text"), format!("{at} api settled: text")]);
    }
}
