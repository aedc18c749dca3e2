//! Which migrations are in, and what may be done next: the same for every kind of database.

use jiff::Timestamp;
use mlctl_core::ports::{MigrationFile, MigrationState, StoreError};

use crate::files::up_file_name;
use crate::migration::{MigrationSet, checksum};

/// One applied migration, as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) name: String,
    pub(crate) checksum: String,
    pub(crate) applied_at: Timestamp,
}

impl Record {
    /// Says whether the text that was applied is that of the file.
    fn is(&self, file: &MigrationFile) -> bool {
        self.name == file.name && self.checksum == checksum(file)
    }
}

/// Lays the applied records beside the files of a release: first the release's own, then those it does not know.
pub(crate) fn states(set: &MigrationSet, records: &[Record]) -> Vec<MigrationState> {
    let state = |version: u32, name: &str, record: Option<&Record>, changed: bool| MigrationState {
        service: set.service.clone(),
        version,
        name: name.to_owned(),
        applied_at: record.map(|r| r.applied_at),
        changed,
    };
    let known = set.files.iter().map(|file| {
        let record = records.iter().find(|record| record.version == file.version);
        state(file.version, &file.name, record, record.is_some_and(|record| !record.is(file)))
    });
    let unknown = records
        .iter()
        .filter(|record| set.file(record.version).is_none())
        .map(|record| state(record.version, &record.name, Some(record), false));
    known.chain(unknown).collect()
}

/// Returns the next migration to apply, if the history is one that may be continued.
///
/// # Errors
/// The sentence that says why not: an applied file was edited, or one was left out. Versions newer than the
/// release's own files are no reason.
pub(crate) fn next_pending<'a>(
    set: &'a MigrationSet,
    records: &[Record],
) -> Result<Option<&'a MigrationFile>, String> {
    check(set, records)?;
    Ok(set.files.get(records.len()))
}

/// Says whether the applied migrations are a beginning of the release's, or go on beyond its end.
///
/// # Errors
/// The sentence that says why not.
pub(crate) fn check(set: &MigrationSet, records: &[Record]) -> Result<(), String> {
    for (record, wanted) in records.iter().zip(1u32..) {
        if record.version != wanted {
            return Err(format!(
                "number {wanted:04} is not applied but {:04}_{} is: the history has a gap, so restore a backup or \
                 repair the table schema_migrations by hand",
                record.version, record.name
            ));
        }
        if let Some(file) = set.file(record.version).filter(|file| !record.is(file)) {
            return Err(format!(
                "`{}` was changed after it was applied on {}: put its old text back and write a new migration",
                up_file_name(file.version, &file.name),
                record.applied_at
            ));
        }
    }
    Ok(())
}

/// Returns the migrations to take back with their way back, newest first. All of them are looked at before the first
/// one acts: half a rollback helps nobody.
///
/// # Errors
/// The sentence that says why not.
pub(crate) fn plan_back<'a>(
    set: &'a MigrationSet,
    records: &[Record],
    steps: u32,
) -> Result<Vec<(&'a MigrationFile, &'a str)>, String> {
    check(set, records)?;
    let steps = usize::try_from(steps).unwrap_or(usize::MAX);
    if steps > records.len() {
        return Err(format!("{steps} steps back are asked for and {} are applied", records.len()));
    }
    let back = records.iter().rev().take(steps).map(|record| {
        let file = set.file(record.version).ok_or_else(|| {
            format!(
                "{:04}_{} is newer than this release: roll back with the release that brought it",
                record.version, record.name
            )
        })?;
        let down = file.down.as_deref().ok_or_else(|| {
            format!(
                "{:04}_{} has no way back: restore a backup, or add its .down.sql to the release",
                file.version, file.name
            )
        })?;
        Ok((file, down))
    });
    back.collect()
}

/// What is said to one who finds that the newest migration is no longer the one to take back.
pub(crate) const MEANWHILE: &str = "somebody else changed the history meanwhile: look at it and try again";

/// Adds to an error what had been done before it, since that stays done.
pub(crate) fn after(done: &[u32], mut error: StoreError) -> StoreError {
    if let [first, .., last] = done {
        error.reason = format!("{} (numbers {first:04} to {last:04} are done and stay so)", error.reason);
    } else if let [only] = done {
        error.reason = format!("{} (number {only:04} is done and stays so)", error.reason);
    }
    error
}
