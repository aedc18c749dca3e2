//! Real servers: the harness that disturbs them, and the services on all of them.
//!
//! `make e2e-services` runs it, one test at a time. `cargo test -p mlctl-tests --test services -- NAME` runs one.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bson;
mod disturbed;
mod ended;
mod journey;
mod system;

use std::process::{Command, Stdio};

/// Runs a client that gives up after some seconds, and returns what it printed or why it did not.
fn client(seconds: u32, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new("timeout");
    command.arg(seconds.to_string()).args(words).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{words:?}: {}: {}{}", output.status, text(&output.stdout), text(&output.stderr)))
    }
}

/// Asks PostgreSQL.
fn sql(url: &str, text: &str) -> Result<String, String> {
    client(3, &["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", url, "-c", text])
}

/// Asks Redis. An error that it answers is an error.
fn redis(url: &str, words: &[&str]) -> Result<String, String> {
    client(2, &[&["redis-cli", "-e", "-u", url], words].concat())
}

/// Returns all values of a topic in Kafka.
fn records(brokers: &str, topic: &str) -> Result<String, String> {
    client(5, &["kcat", "-b", brokers, "-t", topic, "-C", "-o", "beginning", "-e", "-q"])
}
