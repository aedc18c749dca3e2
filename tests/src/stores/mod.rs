//! Real servers: each store of this module starts one of its own, in a temporary folder and on a free port of
//! 127.0.0.1, and ends it with all its processes when it is dropped.
//!
//! | store | is | comes from |
//! | --- | --- | --- |
//! | [`Postgresql`] | the PostgreSQL of this machine | Debian's `postgresql` |
//! | [`Redis`] | the Redis of this machine | Debian's `redis-server` |
//! | [`Kafka`] | Apache Kafka, one node, KRaft | Maven, `tests/stores/kafka/pom.xml` |
//! | [`Mongodb`] | FerretDB 2, a stand-in for MongoDB | Go, over PostgreSQL with DocumentDB in a chroot of Debian sid |
//!
//! MongoDB itself is in no registry of packages. The stand-in speaks its protocol and has no replica set, transactions
//! or change streams: what needs those is not tested here.
//!
//! What is downloaded or built goes to a folder below `target/` ([`cache`]) and is made once. Everything waits with a
//! bound and says what it waited for; what fails says so as text, with the end of the server's own log.

use std::path::PathBuf;

mod cache;
mod folder;
mod kafka;
mod mongodb;
mod postgresql;
mod program;
mod redis;
mod sets;

pub use cache::{interrupt, place};
pub use folder::sweep;
pub use kafka::Kafka;
pub use mongodb::Mongodb;
pub use postgresql::Postgresql;
pub use program::{Program, wrapped};
pub use redis::Redis;
pub use sets::{Kind, prepare, start, start_all, together};

/// Where the tests of the services look for a server, as `service_kit::testing::servers` names it.
pub const POSTGRESQL_URL: &str = "MLCTL_TEST_POSTGRESQL_URL";
/// The same for Redis.
pub const REDIS_URL: &str = "MLCTL_TEST_REDIS_URL";
/// The same for MongoDB.
pub const MONGODB_URL: &str = "MLCTL_TEST_MONGODB_URL";
/// The same for Kafka.
pub const KAFKA_BROKERS: &str = "MLCTL_TEST_KAFKA_BROKERS";

/// A server that can be disturbed: killed, paused, stopped, and brought back on the same port with the same data.
pub trait Store: Send {
    /// What it is called, with its version where that matters.
    fn name(&self) -> String;

    /// Its programs, in the order they start.
    fn programs(&mut self) -> Vec<&mut Program>;

    /// The folders that hold all it keeps; they go with it.
    fn folders(&self) -> Vec<PathBuf>;

    /// Variables that tell its address: those of the tests, then those of the services.
    fn variables(&self) -> Vec<(&'static str, String)>;

    /// Kills all its processes at once, as `kill -9` and a power cut of the machine's programs do.
    fn kill(&mut self) {
        for program in self.programs().into_iter().rev() {
            program.kill();
        }
    }

    /// Stops all its processes where they are: connections stay, answers do not come.
    fn pause(&mut self) {
        for program in self.programs().into_iter().rev() {
            program.pause();
        }
    }

    /// Lets them go on.
    fn resume(&mut self) {
        for program in self.programs() {
            program.resume();
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It did not end in time; it is killed then.
    fn stop(&mut self) -> Result<(), String> {
        self.programs().into_iter().rev().try_for_each(Program::stop)
    }

    /// Starts it again on the same port and data, and waits until it answers; one that runs is stopped before.
    ///
    /// # Errors
    /// It did not end, or did not come back in time.
    fn restart(&mut self) -> Result<(), String> {
        self.stop()?;
        self.programs().into_iter().try_for_each(Program::start)
    }

    /// Ids of all its processes.
    fn processes(&mut self) -> Vec<i32> {
        self.programs().iter().flat_map(|program| program.processes()).collect()
    }

    /// Says whether all its programs run.
    fn runs(&mut self) -> bool {
        self.programs().into_iter().all(Program::runs)
    }
}

/// Tells the person at the terminal what takes so long, or what is not as it should be.
#[expect(clippy::print_stderr, reason = "stdout belongs to whoever reads the addresses")]
pub(crate) fn say(text: &str) {
    eprintln!("stores: {text}");
}
