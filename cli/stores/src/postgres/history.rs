//! The table that remembers which migrations are in.

use jiff::Timestamp;
use mlctl_core::ports::MigrationFile;
use sqlx::postgres::PgConnection;
use sqlx::{Executor as _, Row as _};

use crate::history::Record;
use crate::migration::checksum;

/// Creates the table. Several services share one database, so each row says whose it is.
pub(super) async fn create(connection: &mut PgConnection) -> sqlx::Result<()> {
    if exists(connection).await? {
        return Ok(());
    }
    connection
        .execute(
            "CREATE TABLE schema_migrations (
                service    text        NOT NULL,
                version    integer     NOT NULL,
                name       text        NOT NULL,
                checksum   text        NOT NULL,
                applied_at timestamptz NOT NULL,
                PRIMARY KEY (service, version)
            )",
        )
        .await
        .map(drop)
}

async fn exists(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT to_regclass('schema_migrations') IS NOT NULL").fetch_one(connection).await
}

/// Returns what is applied of a service, by number; nothing where the table is not there yet.
pub(super) async fn read(connection: &mut PgConnection, service: &str) -> sqlx::Result<Vec<Record>> {
    if !exists(connection).await? {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "SELECT version, name, checksum, (extract(epoch FROM applied_at) * 1000000)::bigint AS applied_at
         FROM schema_migrations WHERE service = $1 ORDER BY version",
    )
    .bind(service)
    .fetch_all(connection)
    .await?;
    let record = |row: &sqlx::postgres::PgRow| {
        let corrupt = |column: &str, source| sqlx::Error::ColumnDecode { index: column.into(), source };
        let version: i32 = row.try_get("version")?;
        let applied_at = Timestamp::from_microsecond(row.try_get("applied_at")?);
        Ok(Record {
            version: u32::try_from(version).map_err(|error| corrupt("version", error.into()))?,
            name: row.try_get("name")?,
            checksum: row.try_get("checksum")?,
            applied_at: applied_at.map_err(|error| corrupt("applied_at", error.into()))?,
        })
    };
    rows.iter().map(record).collect()
}

/// Remembers a migration.
pub(super) async fn insert(
    connection: &mut PgConnection,
    service: &str,
    file: &MigrationFile,
    at: Timestamp,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO schema_migrations (service, version, name, checksum, applied_at)
         VALUES ($1, $2, $3, $4, timestamptz 'epoch' + $5 * interval '1 microsecond')",
    )
    .bind(service)
    .bind(number(file.version)?)
    .bind(&file.name)
    .bind(checksum(file))
    .bind(at.as_microsecond())
    .execute(connection)
    .await
    .map(drop)
}

/// Forgets a migration.
pub(super) async fn delete(connection: &mut PgConnection, service: &str, version: u32) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM schema_migrations WHERE service = $1 AND version = $2")
        .bind(service)
        .bind(number(version)?)
        .execute(connection)
        .await
        .map(drop)
}

fn number(version: u32) -> sqlx::Result<i32> {
    i32::try_from(version).map_err(|error| sqlx::Error::Encode(error.into()))
}
