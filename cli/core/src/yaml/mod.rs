//! YAML files that people write: read with positions, checked against a shape, completed with defaults.
//!
//! A file goes through four pure steps. [`read()`] turns text into a [`Node`] tree in which every value knows its
//! line and column. [`check()`] compares the tree with a [`Kind`] and tells every difference at once.
//! [`overlay()`] lays one tree over another (a profile over a service), and [`complete()`] adds the defaults; what
//! results is plain data that serde turns into typed structs. From the same [`Kind`] come the JSON Schema
//! ([`json_schema`]) and the list of keys for people ([`reference()`]), so that a key is described in one place.
//!
//! What YAML offers beyond data is refused with a clear line: anchors, aliases, merge keys, tags, several
//! documents. Scalars follow YAML 1.2: only `true` and `false` are booleans, and `1.10` stays `1.10`.
//!
//! A file has bounds (`limit.rs`): size, levels, values, entries of one map, length of a key, problems told. Whatever
//! the bytes, reading and checking end in bounded time and memory with a value or with problems.

mod check;
mod complete;
mod limit;
mod node;
mod overlay;
mod problem;
mod read;
mod reference;
mod schema;
pub mod shape;
mod slip;
mod syntax;
mod text;
pub mod typed;
mod unit;

pub use check::{Placeholders, check};
pub use complete::{complete, to_json};
pub use limit::LARGEST;
pub use node::{Entry, Node, Origin, Value, shown};
pub use overlay::overlay;
pub use problem::{KeyPath, Problem, Problems, did_you_mean};
pub use read::read;
pub use reference::reference;
pub use schema::json_schema;
pub use shape::Kind;
pub use unit::{Unit, UnitError};

#[cfg(test)]
mod tests;
