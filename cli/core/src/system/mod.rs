//! The system that is deployed, as `mlctl.yaml` describes it.
//!
//! [`SystemFile::parse`] reads and checks the file under every one of its profiles and tells all that is wrong at
//! once. [`SystemFile::system`] and [`SystemFile::with_profile`] then give the typed [`System`];
//! [`SystemFile::explain`] says of each effective value where it comes from.
//!
//! A profile wins over what the services say, and what it says of one service wins over what it says of all:
//! that is what lets one word scale a whole system down to a laptop.

mod cross;
mod explain;
mod file;
mod model;
mod shape;
pub mod template;
pub mod units;

pub use explain::{Explained, SaidBy};
pub use file::{ProfileError, SystemFile, reference, schema};
pub use model::*;

pub(crate) use shape::{ENV_NAME, NAME, SOME_TIME, TIME_SPAN, URL_PATH};
