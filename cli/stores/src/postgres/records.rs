//! The table that remembers which migrations are in.

use jiff::Timestamp;
use mlctl_core::ports::MigrationFile;
use sqlx::PgConnection;

use crate::history::Record;
use crate::migration::checksum;

/// Creates the table. Several services share one database, so each row says whose it is.
pub(super) async fn create(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Asked first: one who may not create in the schema can still migrate where the table is.
    if is_there(connection).await? {
        return Ok(());
    }
    let sql = "CREATE TABLE schema_migrations (
            service    text        NOT NULL,
            version    integer     NOT NULL,
            name       text        NOT NULL,
            checksum   text        NOT NULL,
            applied_at timestamptz NOT NULL,
            PRIMARY KEY (service, version)
        )";
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}

async fn is_there(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // Not by `to_regclass`: it may remember from before a wait for the lock that there was none.
    let asked = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_tables
            WHERE tablename = 'schema_migrations' AND schemaname = ANY (current_schemas(false)))",
    );
    asked.fetch_one(connection).await
}

/// Returns what is applied of a service, by number; nothing where the table is not there yet.
pub(super) async fn read(connection: &mut PgConnection, service: &str) -> Result<Vec<Record>, sqlx::Error> {
    if !is_there(connection).await? {
        return Ok(Vec::new());
    }
    let sql = "SELECT version, name, checksum,
            to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
        FROM schema_migrations WHERE service = $1 ORDER BY version";
    let rows: Vec<(i32, String, String, String)> =
        sqlx::query_as(sql).bind(service).fetch_all(connection).await?;
    let record = |(version, name, checksum, at): (i32, String, String, String)| {
        let version = u32::try_from(version).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let applied_at: Timestamp =
            at.parse().map_err(|error: jiff::Error| sqlx::Error::Decode(error.into()))?;
        Ok(Record { version, name, checksum, applied_at })
    };
    rows.into_iter().map(record).collect()
}

/// Remembers a migration.
pub(super) async fn insert(
    connection: &mut PgConnection,
    service: &str,
    file: &MigrationFile,
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    let version = i32::try_from(file.version).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let sql = "INSERT INTO schema_migrations (service, version, name, checksum, applied_at)
        VALUES ($1, $2, $3, $4, $5::text::timestamptz)";
    let insert = sqlx::query(sql).bind(service).bind(version).bind(&file.name);
    insert.bind(checksum(file)).bind(at.to_string()).execute(connection).await.map(drop)
}

/// Forgets a migration.
pub(super) async fn delete(
    connection: &mut PgConnection,
    service: &str,
    version: u32,
) -> Result<(), sqlx::Error> {
    let version = i32::try_from(version).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let delete = sqlx::query("DELETE FROM schema_migrations WHERE service = $1 AND version = $2");
    delete.bind(service).bind(version).execute(connection).await.map(drop)
}

/// Returns which transaction this is.
pub(super) async fn transaction(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT txid_current()::text").fetch_one(connection).await
}
