//! user-service on a real PostgreSQL: several replicas at once, killed connections, a server that goes and comes.

mod replicas;
mod server;
mod wire;

use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use service_kit::testing::servers;
use sqlx::{Connection as _, PgConnection};

/// The folder of the migrations.
fn migrations() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres"))
}

/// A migrated database of one's own.
async fn database() -> SecretString {
    servers::postgresql(migrations()).await.unwrap()
}

/// One number that the database answers.
async fn number(database: &SecretString, sql: &'static str) -> i64 {
    let mut connection = PgConnection::connect(database.expose_secret()).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
}
