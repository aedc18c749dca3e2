//! Runs as the target keeps them: what their mirrored journals say, and which of them `--resume` carries on.

use std::path::Path;

use mlctl_core::ports::{ErrorKind, RunMirror};
use mlctl_core::run::journal::{self, ReadError, Replay};

use super::{RunStore, home};
use crate::error::{CommandError, ExitStatus};

/// One run as its mirrored journal tells it.
#[derive(Debug, Clone)]
pub struct KeptRun {
    /// What the journal says.
    pub replay: Replay,
    /// Its text, whole lines only.
    pub text: String,
}

/// What the target has of a run.
#[derive(Debug, Clone)]
pub enum Kept {
    /// A journal that holds together.
    Run(Box<KeptRun>),
    /// No whole record: the process died before its first one, and so before any effect.
    NeverBegan,
    /// A journal that does not hold together, and why.
    Broken(String),
}

/// Reads what the target keeps of one run; none when it keeps nothing.
///
/// # Errors
/// A target that cannot be read.
pub async fn kept_run(mirror: &dyn RunMirror, run: &str) -> Result<Option<Kept>, CommandError> {
    match mirror.read(run).await {
        Ok(text) => Ok(text.map(|text| keep(&text))),
        // One journal that cannot be read hides no other.
        Err(error) if error.kind == ErrorKind::Invalid => Ok(Some(Kept::Broken(error.to_string()))),
        Err(error) => Err(error.into()),
    }
}

fn keep(text: &str) -> Kept {
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    match journal::read(whole).and_then(Replay::of) {
        Ok(replay) => Kept::Run(Box::new(KeptRun { replay, text: whole.to_owned() })),
        Err(ReadError::Empty) => Kept::NeverBegan,
        Err(error) => Kept::Broken(error.to_string()),
    }
}

/// Returns the run that `--resume` carries on: the newest one, when it did not end.
///
/// A run that another one came after is not carried on: its plan is for a world that is gone. One that died before its
/// first record changed nothing and is passed over.
///
/// # Errors
/// No run is open, the open one was overtaken, or the newest one's journal does not hold together: what it did cannot
/// be known, so nothing is carried on.
pub async fn unfinished(mirror: &dyn RunMirror, operations: &[&str]) -> Result<KeptRun, CommandError> {
    let mut newest: Option<Replay> = None;
    for run in mirror.list().await?.iter().rev() {
        let kept = match kept_run(mirror, run).await? {
            Some(Kept::Run(kept)) => kept,
            Some(Kept::Broken(reason)) if newest.is_none() => return Err(broken(run, &reason)),
            _ => continue,
        };
        let open = &kept.replay;
        if open.closed.is_none() && operations.contains(&open.plan.operation.as_str()) {
            let Some(later) = newest else { return Ok(*kept) };
            let text = format!(
                "resume run {}: {} by {} (run {}) came after it",
                open.run, later.plan.operation, later.operator, later.run
            );
            return Err(
                CommandError::refused(text).hint("`mlctl deploy` brings the present files to the target")
            );
        }
        newest.get_or_insert(kept.replay);
    }
    Err(CommandError::new(ExitStatus::NotFound, "resume: no interrupted run on this target")
        .hint("`mlctl runs` lists the runs and how they ended"))
}

/// Returns the newest run when it is over and nobody wrote its end: it was stopped, or killed. `at_work` is the run
/// that holds the lease.
///
/// # Errors
/// A target that does not answer.
pub async fn left_open(
    mirror: &dyn RunMirror,
    at_work: Option<&str>,
) -> Result<Option<Replay>, CommandError> {
    for run in mirror.list().await?.iter().rev() {
        return Ok(match kept_run(mirror, run).await? {
            None | Some(Kept::NeverBegan) => continue,
            Some(Kept::Run(kept)) if kept.replay.closed.is_none() && at_work != Some(run) => {
                Some(kept.replay)
            }
            Some(_) => None,
        });
    }
    Ok(None)
}

fn broken(run: &str, reason: &str) -> CommandError {
    let text = format!("resume run {run}: its journal does not hold together: {reason}; nothing was done");
    CommandError::new(ExitStatus::InvalidInput, text)
        .hint(format!("`mlctl audit verify {run}` says what is wrong with it"))
        .hint("`mlctl deploy` plans anew from what runs, and needs no journal")
}

impl RunStore {
    /// Sees that a run's journal on the target has lost nothing that this machine knows was there.
    ///
    /// The target is written first: a record that only the copy at home has was acknowledged there and is gone. Carried
    /// on without it, an effect could happen twice.
    ///
    /// # Errors
    /// A target's copy that is short of records.
    pub fn agrees(&self, run: &str, mirrored: &str) -> Result<(), CommandError> {
        let path = self.journal_path(run);
        let (lost, differs) = lost(&path, mirrored);
        if lost == 0 {
            return Ok(());
        }
        if differs {
            let text = format!(
                "resume run {run}: the target's copy of its journal and {} went different ways; nothing was done",
                path.display()
            );
            return Err(CommandError::new(ExitStatus::InvalidInput, text)
                .hint(format!("`mlctl audit verify {run}` says from which record on"))
                .hint("`mlctl deploy` plans anew from what runs, and needs no journal"));
        }
        let records = if lost == 1 { "1 record".to_owned() } else { format!("{lost} records") };
        let text = format!(
            "resume run {run}: the target's copy of its journal lacks {records} that {} has; nothing was done",
            path.display()
        );
        Err(CommandError::new(ExitStatus::InvalidInput, text)
            .hint(format!("`mlctl audit verify {run} --repair` brings them back, then resume")))
    }
}

/// Returns how many records the copy at home has behind the last one that both have, and whether the target has others
/// there.
fn lost(home: &Path, mirrored: &str) -> (usize, bool) {
    // A home folder that has no such file, or cannot be read, knows nothing better.
    let Ok(home) = home::inspect_file(home) else { return (0, false) };
    let target = journal::inspect(mirrored.as_bytes());
    let same = home.intact.iter().zip(&target.intact).take_while(|(a, b)| a.hash == b.hash).count();
    (home.intact.len() - same, target.intact.len() > same)
}
