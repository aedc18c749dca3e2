//! Retention: removes runs and evidence that were kept long enough, at home and on the target.
//!
//! Called at the beginning of a run, while its lease is held. Names decide; files are opened only when there is
//! something to remove, to spare what is still needed. What cannot be removed is a warning, never a failure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use mlctl_core::ports::{Orchestrator, ReleaseStore, RunMirror};
use mlctl_core::run::retention::{EVIDENCE, RUNS, outdated};

use super::{Kept, RunStore, kept_run};
use crate::error::CommandError;

/// Where runs are kept besides home, and what says which of them are still needed.
#[derive(Clone, Copy)]
pub struct Elsewhere<'a> {
    /// The journals on the target.
    pub mirror: &'a dyn RunMirror,
    /// The releases, each of which names its run.
    pub releases: &'a dyn ReleaseStore,
    /// Says which release is the head.
    pub orchestrator: &'a dyn Orchestrator,
}

impl RunStore {
    /// Removes what was kept long enough; returns what could not be done, in sentences.
    pub async fn prune(&self, run: &str, elsewhere: Elsewhere<'_>, now: Timestamp) -> Vec<String> {
        let mut trouble = Vec::new();
        let mut told = |text: String| trouble.push(format!("{text}; it is tried again by the next run"));
        let home = self.names().unwrap_or_else(|error| {
            told(format!("list the runs at home: {error}"));
            Vec::new()
        });
        let mut target = elsewhere.mirror.list().await.unwrap_or_else(|error| {
            told(error.to_string());
            Vec::new()
        });
        let mirrored = target.clone();
        // The one that begins counts already.
        target.retain(|name| name != run);
        target.push(run.to_owned());
        // Most runs have none, and what has gone already is not looked for again.
        let with_evidence: Vec<String> =
            home.iter().filter(|name| self.evidence(name).exists()).cloned().collect();
        let own = BTreeSet::from([run.to_owned()]);
        let goes = [
            outdated(&home, RUNS, now, &own),
            outdated(&with_evidence, EVIDENCE, now, &own),
            outdated(&target, RUNS, now, &own),
        ];
        if goes.iter().all(Vec::is_empty) {
            return trouble;
        }
        let needed = match needed(run, &mirrored, elsewhere).await {
            Ok(needed) => needed,
            Err(error) => {
                told(format!("see which runs are still needed: {}", error.text));
                return trouble;
            }
        };
        let [runs, evidence, journals] = goes.map(|mut names| {
            names.retain(|name| !needed.contains(name));
            names
        });
        let at_home = runs.iter().map(|name| self.run(name));
        for folder in at_home.chain(evidence.iter().map(|name| self.evidence(name))) {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    told(format!("remove {}: {error}", folder.display()));
                }
                _ => {}
            }
        }
        for name in journals {
            if let Err(error) = elsewhere.mirror.remove(&name).await {
                told(error.to_string());
                // What one refuses, the next one refuses as well.
                break;
            }
        }
        trouble
    }
}

/// Returns the runs that must stay: the one that made the head, and the newest one that began, which `--resume` may
/// still carry on when this one dies before its first record.
async fn needed(
    run: &str,
    mirrored: &[String],
    elsewhere: Elsewhere<'_>,
) -> Result<BTreeSet<String>, CommandError> {
    let mut needed = BTreeSet::from([run.to_owned()]);
    for name in mirrored.iter().rev().filter(|name| *name != run) {
        if !matches!(kept_run(elsewhere.mirror, name).await?, None | Some(Kept::NeverBegan)) {
            needed.insert(name.clone());
            break;
        }
    }
    let head = elsewhere.orchestrator.observe().await?.head.map(|head| head.number);
    let releases = elsewhere.releases.list().await?;
    needed.extend(releases.into_iter().filter(|release| Some(release.number) == head).map(|r| r.run));
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use mlctl_core::sim::Sim;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn run(days: u32, nth: u128) -> String {
        let at = now().saturating_sub(DAY * days).unwrap();
        ulid::Ulid::from_parts(u64::try_from(at.as_millisecond()).unwrap(), nth).to_string()
    }

    fn store(folder: &Path, runs: &[String]) -> RunStore {
        let store = RunStore::new(folder, "local", "shop");
        for run in runs {
            store.begin(run).unwrap();
            std::fs::create_dir_all(store.evidence(run).join("1-step")).unwrap();
        }
        store
    }

    fn elsewhere(sim: &Sim) -> Elsewhere<'_> {
        Elsewhere { mirror: sim, releases: sim, orchestrator: sim }
    }

    #[tokio::test]
    async fn what_was_kept_long_enough_goes_and_what_is_needed_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (old, open, middle, young, own) = (run(120, 1), run(100, 2), run(20, 3), run(3, 4), run(0, 5));
        let sim = Sim::from_toml("").unwrap();
        for run in [&old, &open] {
            sim.append(run, "{}").await.unwrap();
        }
        let store =
            store(folder.path(), &[old.clone(), open.clone(), middle.clone(), young.clone(), own.clone()]);
        std::fs::create_dir(folder.path().join("runs/local/shop/notes")).unwrap();
        assert_eq!(store.prune(&own, elsewhere(&sim), now()).await, [""; 0]);
        // The newest one on the target may be resumed: nothing of it goes, however old it is.
        assert_eq!(store.names().unwrap(), [&open, &middle, &young, &own, "notes"]);
        let with_evidence = [&open, &middle, &young].map(|run| store.evidence(run).exists());
        assert_eq!(with_evidence, [true, false, true]);
        assert_eq!(RunMirror::list(&sim).await.unwrap(), [open]);
    }

    #[tokio::test]
    async fn evidence_goes_in_portions_and_then_costs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> =
            (0..300).map(|nth| run(15 + u32::try_from(nth % 70).unwrap(), nth)).collect();
        let own = run(0, 300);
        let store = store(folder.path(), &names);
        let left = || names.iter().filter(|name| store.evidence(name).exists()).count();
        let sim = Sim::from_toml("").unwrap();
        for expected in [100, 0] {
            assert_eq!(store.prune(&own, elsewhere(&sim), now()).await, [""; 0]);
            assert_eq!(left(), expected);
        }
        assert_eq!(store.names().unwrap().len(), 300, "the runs themselves stay");
        // With nothing to remove the target is not asked what is needed.
        let silent = Sim::from_toml("[[error]]\nport = 'observe'\nkind = 'denied'").unwrap();
        assert_eq!(store.prune(&own, elsewhere(&silent), now()).await, [""; 0]);
    }

    #[tokio::test]
    async fn what_cannot_be_removed_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let (old, own) = (run(120, 1), run(0, 2));
        let store = store(folder.path(), &[old.clone(), own.clone()]);
        for (script, words) in [
            ("[[error]]\nport = 'list_journals'\nkind = 'denied'", "list_journals runs"),
            ("[[error]]\nport = 'observe'\nkind = 'denied'", "see which runs are still needed"),
            ("[[error]]\nport = 'remove_journal'\nkind = 'denied'", "remove_journal"),
        ] {
            let sim = Sim::from_toml(script).unwrap();
            for nth in 1..=2 {
                sim.append(&run(120, nth), "{}").await.unwrap();
            }
            store.begin(&old).unwrap();
            let trouble = store.prune(&own, elsewhere(&sim), now()).await;
            assert!(trouble.len() == 1 && trouble[0].contains(words), "{script}: {trouble:?}");
        }
    }

    #[tokio::test]
    async fn a_thousand_runs_cost_a_listing() {
        let folder = tempfile::tempdir().unwrap();
        let sim = Sim::from_toml("").unwrap();
        let names: Vec<String> = (0..1_000).map(|nth| run(u32::try_from(nth % 14).unwrap(), nth)).collect();
        let store = store(folder.path(), &names);
        for name in &names {
            sim.append(name, "{}").await.unwrap();
        }
        let own = names.iter().max().unwrap();
        let began = std::time::Instant::now();
        assert_eq!(store.prune(own, elsewhere(&sim), now()).await, [""; 0]);
        let took = began.elapsed();
        assert_eq!(store.names().unwrap().len(), 1_000);
        // Generous: it is a few milliseconds, and this machine may be busy with something else.
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}
