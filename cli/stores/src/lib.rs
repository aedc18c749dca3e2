//! What mlctl does to stores: the migrations of SQLite databases, the stores of the embedded target, and of PostgreSQL.
//!
//! [`files`] reads a release's migrations from a folder, [`migration`] says what a migration item holds and when an
//! older release cannot read a newer schema, and each kind of store is one more module that implements
//! [`StoreAdmin`](mlctl_core::ports::StoreAdmin): [`sqlite`] and [`postgres`]. No service is known here and nothing
//! prints.

pub mod files;
mod history;
pub mod migration;
pub mod postgres;
pub mod sqlite;

pub use files::{Dialect, FilesError};
pub use migration::{MigrationSet, Newer, schema_too_new};
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;
