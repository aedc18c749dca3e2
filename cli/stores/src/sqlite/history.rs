//! The table that remembers which migrations are in.

use jiff::Timestamp;
use mlctl_core::ports::{MigrationFile, MigrationState};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::files::up_file_name;
use crate::migration::{MigrationSet, checksum};

/// One applied migration, as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) name: String,
    pub(super) checksum: String,
    pub(super) applied_at: Timestamp,
}

impl Record {
    /// Says whether the text that was applied is that of the file.
    fn is(&self, file: &MigrationFile) -> bool {
        self.name == file.name && self.checksum == checksum(file)
    }
}

/// Creates the table. Several services share one database, so each row says whose it is.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
            service    TEXT    NOT NULL,
            version    INTEGER NOT NULL,
            name       TEXT    NOT NULL,
            checksum   TEXT    NOT NULL,
            applied_at TEXT    NOT NULL,
            PRIMARY KEY (service, version)
        )",
    )
}

/// Returns what is applied of a service, by number; nothing where the table is not there yet.
pub(super) fn read(connection: &Connection, service: &str) -> rusqlite::Result<Vec<Record>> {
    let there = connection
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_migrations'",
            [],
            |_| Ok(()),
        )
        .optional()?;
    if there.is_none() {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare(
        "SELECT version, name, checksum, applied_at FROM schema_migrations WHERE service = ?1 ORDER BY version",
    )?;
    let rows = statement.query_map([service], |row| {
        let text: String = row.get(3)?;
        let applied_at = text.parse().map_err(|error: jiff::Error| {
            rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, Box::new(error))
        })?;
        Ok(Record { version: row.get(0)?, name: row.get(1)?, checksum: row.get(2)?, applied_at })
    })?;
    rows.collect()
}

/// Remembers a migration.
pub(super) fn insert(
    connection: &Connection,
    service: &str,
    file: &MigrationFile,
    at: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT INTO schema_migrations (service, version, name, checksum, applied_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![service, file.version, file.name, checksum(file), at.to_string()],
        )
        .map(drop)
}

/// Forgets a migration.
pub(super) fn delete(connection: &Connection, service: &str, version: u32) -> rusqlite::Result<()> {
    connection
        .execute(
            "DELETE FROM schema_migrations WHERE service = ?1 AND version = ?2",
            params![service, version],
        )
        .map(drop)
}

/// Lays the applied records beside the files of a release: first the release's own, then those it does not know.
pub(super) fn states(set: &MigrationSet, records: &[Record]) -> Vec<MigrationState> {
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
pub(super) fn next_pending<'a>(
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
pub(super) fn check(set: &MigrationSet, records: &[Record]) -> Result<(), String> {
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
