//! The gateway from outside: its table, its front, its reload, its process.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod front;
mod kept;
mod process;
mod reload;
mod support;
mod table;
