//! How values are written in a row: times as milliseconds since 1970-01-01 UTC, hashes as bytes.

use jiff::Timestamp;
use service_kit::postgres::PostgresError;

use crate::random::TokenHash;

/// A column's number for a time.
pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// Reads a time.
pub(super) fn time(millis: i64) -> Result<Timestamp, PostgresError> {
    Timestamp::from_millisecond(millis).map_err(|error| corrupt("a time", error))
}

/// Reads the hash of a token.
pub(super) fn hash(bytes: &[u8]) -> Result<TokenHash, PostgresError> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|error| corrupt("the hash of a token", error))?;
    Ok(TokenHash::stored(bytes))
}

/// A value in the database that no version of this service writes.
pub(super) fn corrupt(
    what: &'static str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> PostgresError {
    PostgresError::Corrupt { what, source: Box::new(error) }
}
