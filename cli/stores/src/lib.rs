//! What mlctl does to stores: today the migrations of SQLite databases, the stores of the embedded target.
//!
//! [`files`] reads a release's migrations from a folder, [`migration`] says what a migration item holds and when an
//! older release cannot read a newer schema, and each kind of store is one more module that implements
//! [`StoreAdmin`](mlctl_core::ports::StoreAdmin): [`sqlite`]. No service is known here and nothing prints.

pub mod files;
pub mod migration;
pub mod sqlite;

pub use files::{Dialect, FilesError};
pub use migration::{MigrationSet, Newer, schema_too_new};
pub use sqlite::SqliteStore;
