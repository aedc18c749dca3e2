//! The table that remembers which migrations are in.

use jiff::Timestamp;
use mlctl_core::ports::MigrationFile;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::history::Record;
use crate::migration::checksum;

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
