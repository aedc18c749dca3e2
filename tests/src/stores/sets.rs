//! Several stores at once.

use super::{Kafka, Mongodb, Postgresql, Redis, Store, kafka, mongodb};

/// The kinds of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL.
    Postgresql,
    /// Redis.
    Redis,
    /// Kafka.
    Kafka,
    /// What stands in for MongoDB.
    Mongodb,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Postgresql, Self::Redis, Self::Kafka, Self::Mongodb];

    /// Returns the kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Redis => "redis",
            Self::Kafka => "kafka",
            Self::Mongodb => "mongodb",
        }
    }
}

/// Makes what a store of that kind needs and the machine has not.
///
/// # Errors
/// It cannot be had.
pub fn prepare(kind: Kind) -> Result<(), String> {
    match kind {
        Kind::Postgresql | Kind::Redis => Ok(()),
        Kind::Kafka => kafka::prepare().map(|_| ()),
        Kind::Mongodb => mongodb::prepare().map(|_| ()),
    }
}

/// Starts one store.
///
/// # Errors
/// It cannot be had, or does not answer.
pub fn start(kind: Kind) -> Result<Box<dyn Store>, String> {
    Ok(match kind {
        Kind::Postgresql => Box::new(Postgresql::start()?),
        Kind::Redis => Box::new(Redis::start()?),
        Kind::Kafka => Box::new(Kafka::start()?),
        Kind::Mongodb => Box::new(Mongodb::start()?),
    })
}

/// Starts stores side by side; when one fails, those that started end again.
///
/// # Errors
/// Every one that cannot be had or does not answer.
pub fn start_all(kinds: &[Kind]) -> Result<Vec<Box<dyn Store>>, String> {
    together(kinds, start)
}

/// Does the same for several kinds at once.
///
/// # Errors
/// All that went wrong.
pub fn together<T: Send>(
    kinds: &[Kind],
    act: impl Fn(Kind) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let results: Vec<Result<T, String>> = std::thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = kinds.iter().map(|kind| scope.spawn(move || act(*kind))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("panicked".to_owned())))
            .collect()
    });
    let mut done = Vec::new();
    let mut failed = Vec::new();
    for result in results {
        match result {
            Ok(one) => done.push(one),
            Err(reason) => failed.push(reason),
        }
    }
    if failed.is_empty() { Ok(done) } else { Err(failed.join("\n")) }
}
