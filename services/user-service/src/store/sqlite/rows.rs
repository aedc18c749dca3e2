//! How values are written in a row: ids as text, times as milliseconds since 1970-01-01 UTC.

use jiff::Timestamp;
use rusqlite::Row;
use rusqlite::types::Type;
use uuid::Uuid;

/// A column's text for an id.
pub(super) fn id(id: Uuid) -> String {
    id.hyphenated().to_string()
}

/// A column's number for a time.
pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// Reads an id.
pub(super) fn get_id(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    let text: String = row.get(column)?;
    Uuid::parse_str(&text).map_err(|error| unreadable(column, Type::Text, error))
}

/// Reads a time.
pub(super) fn get_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Timestamp::from_millisecond(row.get(column)?).map_err(|error| unreadable(column, Type::Integer, error))
}

/// A value in the database that no version of this service writes.
pub(super) fn unreadable(
    column: usize,
    kind: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}
