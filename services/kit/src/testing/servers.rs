//! Real servers for tests, started by whoever runs the suite (`make e2e-services`) and told by the environment.
//!
//! A test that needs one is marked `#[ignore = "needs a real server: make e2e-services"]`, so that a run without servers
//! counts it as ignored and never as passed; asked for without its server, it fails.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::Failure;

/// Variable with the address of a PostgreSQL server whose user may make databases.
pub const POSTGRESQL: &str = "MLCTL_TEST_POSTGRESQL_URL";
/// Variable with the address of a Redis server with 10,000 databases.
pub const REDIS: &str = "MLCTL_TEST_REDIS_URL";
/// Variable with the address of a MongoDB server.
pub const MONGODB: &str = "MLCTL_TEST_MONGODB_URL";
/// Variable with the brokers of Kafka.
pub const KAFKA: &str = "MLCTL_TEST_KAFKA_BROKERS";

/// Databases that the test server of Redis has.
const REDIS_DATABASES: u128 = 10_000;

/// The value of one of the variables of this module.
///
/// # Panics
/// When it is not set.
#[must_use]
pub fn address(variable: &str) -> String {
    match std::env::var(variable) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("{variable} is not set: this test needs a real server, make e2e-services starts one"),
    }
}

/// A new database of the PostgreSQL server with the `*.up.sql` of a folder applied; it goes with the server.
///
/// # Errors
/// What the server or the folder refused.
pub async fn postgresql(migrations: &Path) -> Result<SecretString, Failure> {
    use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
    let server = address(POSTGRESQL);
    let name = format!("test_{}", Uuid::new_v4().simple());
    let mut maintenance = PgConnection::connect(&server).await?;
    maintenance.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
    maintenance.close().await?;
    let url = replaced_path(&server, &name);
    run_scripts(&url, super::scripts(migrations, ".up.sql")?).await?;
    Ok(url)
}

/// Applies every `*.down.sql` of a folder to such a database, the newest first.
///
/// # Errors
/// What the server or the folder refused.
pub async fn postgresql_down(database: &SecretString, migrations: &Path) -> Result<(), Failure> {
    let mut files = super::scripts(migrations, ".down.sql")?;
    files.reverse();
    run_scripts(database, files).await
}

async fn run_scripts(database: &SecretString, files: Vec<PathBuf>) -> Result<(), Failure> {
    use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
    let mut connection = PgConnection::connect(database.expose_secret()).await?;
    for file in files {
        let script = std::fs::read_to_string(&file)?;
        connection
            .execute(AssertSqlSafe(script))
            .await
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    connection.close().await?;
    Ok(())
}

/// One of the Redis server's databases, most probably nobody else's.
#[must_use]
pub fn redis() -> SecretString {
    replaced_path(&address(REDIS), &(Uuid::new_v4().as_u128() % REDIS_DATABASES).to_string())
}

/// A database of the MongoDB server that nobody else has.
#[must_use]
pub fn mongodb() -> SecretString {
    replaced_path(&address(MONGODB), &format!("test_{}", Uuid::new_v4().simple()))
}

/// The address with another path; what stands behind a question mark stays.
fn replaced_path(url: &str, path: &str) -> SecretString {
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let authority_end = address.find("://").map_or(0, |scheme| scheme + 3);
    let end = address[authority_end..].find('/').map_or(address.len(), |slash| authority_end + slash);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    SecretString::from(format!("{}/{path}{query}", &address[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_replaced_and_a_query_stays() {
        for (url, want) in [
            ("postgresql://p@127.0.0.1:5432/postgres", "postgresql://p@127.0.0.1:5432/new"),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379/new"),
            ("mongodb://h:1/?replicaSet=rs0", "mongodb://h:1/new?replicaSet=rs0"),
        ] {
            assert_eq!(replaced_path(url, "new").expose_secret(), want);
        }
    }
}
