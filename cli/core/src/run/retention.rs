//! Retention: which runs and which evidence have been kept long enough. Pure; whoever keeps them removes them.
//!
//! A run's name says when it began (a ULID), so nothing has to be opened to decide: a thousand names are a listing.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long runs are kept: a run goes when it is too old or when too many came after it, whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Runs kept at most.
    pub runs: usize,
    /// Age from which a run goes.
    pub age: Duration,
}

/// Journals and events of runs, at home and on the target.
pub const RUNS: Keep = Keep { runs: 1_000, age: Duration::from_secs(90 * DAY.as_secs()) };
/// Evidence of failed runs.
pub const EVIDENCE: Keep = Keep { runs: usize::MAX, age: Duration::from_secs(14 * DAY.as_secs()) };
/// Runs removed at the beginning of one run: it must not wait for a backlog; the next one goes on.
pub const AT_ONCE: usize = 200;

/// Returns the runs that go, oldest first. What is not the name of a run is never among them, nor what is spared.
#[must_use]
pub fn outdated(names: &[String], keep: Keep, now: Timestamp, spared: &BTreeSet<String>) -> Vec<String> {
    let goes = due(names, keep, now).into_iter().filter(|name| !spared.contains(*name));
    goes.take(AT_ONCE).cloned().collect()
}

/// Returns every run that was kept long enough, oldest first.
fn due(names: &[String], keep: Keep, now: Timestamp) -> Vec<&String> {
    let mut runs: Vec<(Timestamp, &String)> =
        names.iter().filter_map(|name| Some((began(name)?, name))).collect();
    runs.sort_unstable();
    let surplus = runs.len().saturating_sub(keep.runs);
    let old = |at: Timestamp| now.duration_since(at).unsigned_abs() >= keep.age && at < now;
    let goes = runs.iter().enumerate().filter(|(nth, (at, _))| *nth < surplus || old(*at));
    goes.map(|(_, (_, name))| *name).collect()
}

/// Says whether a run is among those that go, however many portions come before it.
#[must_use]
pub fn is_outdated(run: &str, names: &[String], keep: Keep, now: Timestamp) -> bool {
    due(names, keep, now).iter().any(|name| *name == run)
}

/// Returns when a run began; none for a name that is not a run's.
#[must_use]
pub fn began(run: &str) -> Option<Timestamp> {
    let id = ulid::Ulid::from_string(run).ok().filter(|id| id.to_string() == run)?;
    Timestamp::from_millisecond(i64::try_from(id.timestamp_ms()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    /// Returns the name of a run that began that many days ago.
    fn run(days: u64, nth: u128) -> String {
        let at = now().saturating_sub(DAY * u32::try_from(days).unwrap()).unwrap();
        ulid::Ulid::from_parts(u64::try_from(at.as_millisecond()).unwrap(), nth).to_string()
    }

    #[test]
    fn the_age_and_the_count_whichever_comes_first() {
        let keep = |runs, days| Keep { runs, age: DAY * days };
        for (ages, keep, gone) in [
            (&[][..], keep(2, 90), &[][..]),
            (&[1, 2], keep(2, 90), &[]),
            (&[1, 2, 3, 4], keep(2, 90), &[4, 3]),
            (&[1, 89, 90, 200], keep(10, 90), &[200, 90]),
            (&[1, 89, 90, 200], keep(1, 90), &[200, 90, 89]),
            (&[300], keep(1, 90), &[300]),
            (&[0], keep(0, 90), &[0]),
        ] {
            let names: Vec<String> = ages.iter().map(|days| run(*days, 0)).collect();
            let expected: Vec<String> = gone.iter().map(|days| run(*days, 0)).collect();
            assert_eq!(outdated(&names, keep, now(), &BTreeSet::new()), expected, "{ages:?} {keep:?}");
        }
    }

    #[test]
    fn what_is_spared_and_what_is_no_run_stays() {
        let names = vec![run(400, 1), "01J".to_owned(), "notes".to_owned(), run(500, 2), run(600, 3)];
        let spared = BTreeSet::from([run(500, 2)]);
        assert_eq!(outdated(&names, RUNS, now(), &spared), [run(600, 3), run(400, 1)]);
        let lower = vec![run(400, 1).to_lowercase()];
        assert!(outdated(&lower, RUNS, now(), &BTreeSet::new()).is_empty(), "not as we write it");
    }

    #[test]
    fn a_clock_that_went_back_makes_nothing_old() {
        let names = vec![run(0, 1)];
        let before = now().saturating_sub(DAY * 400).unwrap();
        assert!(outdated(&names, RUNS, before, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn a_backlog_goes_in_portions() {
        let names: Vec<String> = (0..3_000).map(|nth| run(100, nth)).collect();
        let first = outdated(&names, RUNS, now(), &BTreeSet::new());
        assert_eq!((first.len(), &first[0]), (AT_ONCE, &names[0]));
    }

    #[test]
    fn the_periods_that_are_promised() {
        assert_eq!((RUNS.runs, RUNS.age, EVIDENCE.age), (1_000, DAY * 90, DAY * 14));
    }
}
