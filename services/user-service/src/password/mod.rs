//! Password hashing with a bound on its cost.
//!
//! One argon2id hash costs as much as about 1,500 ordinary requests and 19 MiB, so a login flood on an unbounded
//! thread pool is an out-of-memory kill. [`Hasher`] therefore has fewer workers than cores, each with a block buffer
//! that is kept between hashes (half of the cost of a fresh one is page faults), and a short queue before them; a
//! caller beyond the queue is told to come back.

mod workers;

use std::sync::Arc;

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version};
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::workers::Workers;

use crate::account::Password;
use crate::metrics::{HashOutcome, Metrics};
use crate::random::{Entropy, NoEntropy};

/// Bytes of salt (RFC 9106 section 3.1).
const SALT_BYTES: usize = 16;

/// Bytes of hash.
const HASH_BYTES: usize = 32;

/// How dear one hash is. The default is the least that OWASP recommends for argon2id: 19 MiB, 2 passes, 1 lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
}

impl Default for Cost {
    fn default() -> Self {
        Self { memory_kib: 19_456, passes: 2 }
    }
}

/// A password could not be hashed or compared.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Every worker is busy and the queue is full: nothing was computed.
    #[error("cannot hash a password now: {waiting} others wait already")]
    Overloaded {
        /// Hashes under way and waiting.
        waiting: usize,
    },
    /// No salt could be made.
    #[error("cannot make a salt")]
    Entropy(#[from] NoEntropy),
    /// The parameters are out of argon2's range, or a stored hash is not one of ours.
    #[error("cannot compute an argon2id hash: {0}")]
    Argon2(String),
    /// A worker's thread could not be started.
    #[error("cannot start a thread for hashing passwords")]
    Thread(#[source] std::io::Error),
    /// The worker ended without an answer.
    #[error("the password worker stopped before it answered")]
    WorkerLost,
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right. `outdated` says that the stored hash is cheaper than today's cost and should be made anew.
    Match {
        /// Hash the password again and store that.
        outdated: bool,
    },
    /// The password is wrong, or there is no such account.
    Mismatch,
}

/// The bounded hashing service; clones share workers, queue and buffers.
#[derive(Clone)]
pub struct Hasher {
    shared: Arc<Shared>,
}

struct Shared {
    params: Params,
    /// One permit per hash under way or waiting: taken without waiting, so a full queue is known at once.
    places: Arc<Semaphore>,
    capacity: usize,
    /// One permit per worker.
    workers: Arc<Semaphore>,
    threads: Workers,
    buffers: Mutex<Vec<Vec<Block>>>,
    /// Compared against when there is no account, so that the answer takes as long.
    dummy: PasswordHash,
    entropy: Arc<dyn Entropy>,
    metrics: Metrics,
}

/// The right to compute one hash. Moves into the worker thread, so a caller who goes away frees nothing early.
struct Turn {
    _place: OwnedSemaphorePermit,
    _worker: OwnedSemaphorePermit,
}

impl Hasher {
    /// Makes a hasher of `workers` parallel hashes (at least 1) and room for `queue` waiting ones.
    ///
    /// # Errors
    /// [`HashError::Argon2`] for a cost out of argon2's range, [`HashError::Entropy`].
    pub fn new(
        cost: Cost,
        workers: usize,
        queue: usize,
        entropy: Arc<dyn Entropy>,
        metrics: Metrics,
    ) -> Result<Self, HashError> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, Some(HASH_BYTES)).map_err(argon2_error)?;
        let workers = workers.max(1);
        // Its "hash" is random, so no password matches; only its parameters matter.
        let mut noise = [0; HASH_BYTES];
        entropy.fill(&mut noise)?;
        let dummy = encode(&params, &noise[..SALT_BYTES], &noise)?;
        let threads = Workers::start(workers).map_err(HashError::Thread)?;
        Ok(Self {
            shared: Arc::new(Shared {
                params,
                places: Arc::new(Semaphore::new(workers + queue)),
                capacity: workers + queue,
                workers: Arc::new(Semaphore::new(workers)),
                threads,
                buffers: Mutex::new(Vec::with_capacity(workers)),
                dummy,
                entropy,
                metrics,
            }),
        })
    }

    /// Hashes a new password into a PHC string.
    ///
    /// # Errors
    /// [`HashError`]; `Overloaded` asks the caller to come back.
    pub async fn hash(&self, password: &Password) -> Result<String, HashError> {
        let mut salt = [0; SALT_BYTES];
        self.shared.entropy.fill(&mut salt)?;
        let turn = self.turn().await?;
        let (shared, password) = (Arc::clone(&self.shared), password.clone());
        self.shared
            .threads
            .compute(move || {
                let hash = shared.argon2id(turn, &shared.params, &salt, &password, HASH_BYTES)?;
                encode(&shared.params, &salt, &hash).map(|phc| phc.to_string())
            })
            .await
    }

    /// Compares a password with a stored PHC string. Without one (no such account) the same work is done for nothing,
    /// and the answer is [`Verdict::Mismatch`].
    ///
    /// # Errors
    /// [`HashError`]; `Overloaded` asks the caller to come back.
    pub async fn verify(&self, password: &Password, stored: Option<&str>) -> Result<Verdict, HashError> {
        let expected = match stored {
            Some(text) => PasswordHash::new(text).map_err(|error| HashError::Argon2(error.to_string()))?,
            None => self.shared.dummy.clone(),
        };
        let account_exists = stored.is_some();
        let turn = self.turn().await?;
        let (shared, password) = (Arc::clone(&self.shared), password.clone());
        self.shared.threads.compute(move || shared.compare(turn, &password, &expected, account_exists)).await
    }

    /// Waits for a worker, unless the queue is full.
    async fn turn(&self) -> Result<Turn, HashError> {
        let Ok(place) = Arc::clone(&self.shared.places).try_acquire_owned() else {
            self.shared.metrics.password_hash(HashOutcome::Refused);
            return Err(HashError::Overloaded { waiting: self.shared.capacity });
        };
        let worker =
            Arc::clone(&self.shared.workers).acquire_owned().await.map_err(|_| HashError::WorkerLost)?;
        Ok(Turn { _place: place, _worker: worker })
    }
}

impl Shared {
    fn compare(
        &self,
        turn: Turn,
        password: &Password,
        expected: &PasswordHash,
        account_exists: bool,
    ) -> Result<Verdict, HashError> {
        let params = Params::try_from(expected).map_err(|error| HashError::Argon2(error.to_string()))?;
        let (Some(salt), Some(want)) = (&expected.salt, &expected.hash) else {
            return Err(HashError::Argon2("the stored hash has no salt or no hash".to_owned()));
        };
        if expected.algorithm.as_str() != "argon2id" || expected.version != Some(Version::V0x13.into()) {
            return Err(HashError::Argon2("the stored hash is not argon2id version 19".to_owned()));
        }
        let got = self.argon2id(turn, &params, salt.as_ref(), password, want.len())?;
        let equal = bool::from(got.ct_eq(want.as_bytes()));
        if !(equal && account_exists) {
            return Ok(Verdict::Mismatch);
        }
        let outdated = params.m_cost() < self.params.m_cost() || params.t_cost() < self.params.t_cost();
        Ok(Verdict::Match { outdated })
    }

    /// Computes one hash on this thread, in a buffer that an earlier one left.
    fn argon2id(
        &self,
        turn: Turn,
        params: &Params,
        salt: &[u8],
        password: &Password,
        length: usize,
    ) -> Result<Vec<u8>, HashError> {
        let blocks = params.block_count();
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        if buffer.len() < blocks {
            buffer.resize(blocks, Block::new());
        }
        let mut out = vec![0; length];
        let outcome = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
            .hash_password_into_with_memory(password.as_bytes(), salt, &mut out, &mut buffer[..blocks]);
        // A hash dearer than today's must not leave its size behind.
        buffer.truncate(self.params.block_count());
        buffer.shrink_to_fit();
        self.buffers.lock().push(buffer);
        drop(turn);
        outcome.map_err(argon2_error)?;
        self.metrics.password_hash(HashOutcome::Computed);
        Ok(out)
    }
}

/// Writes a hash as `$argon2id$v=19$m=..,t=..,p=..$salt$hash`.
fn encode(params: &Params, salt: &[u8], hash: &[u8]) -> Result<PasswordHash, HashError> {
    let phc_error = |error: phc::Error| HashError::Argon2(error.to_string());
    Ok(PasswordHash {
        algorithm: argon2::ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: phc::ParamsString::try_from(params).map_err(|error| HashError::Argon2(error.to_string()))?,
        salt: Some(phc::Salt::new(salt).map_err(phc_error)?),
        hash: Some(phc::Output::new(hash).map_err(phc_error)?),
    })
}

fn argon2_error(error: argon2::Error) -> HashError {
    HashError::Argon2(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemEntropy;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    fn hasher(cost: Cost, workers: usize, queue: usize) -> Hasher {
        Hasher::new(cost, workers, queue, Arc::new(SystemEntropy), Metrics::new(&service_kit::Metrics::new()))
            .unwrap()
    }

    fn password(text: &str) -> Password {
        Password::parse(text.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn the_right_password_matches_its_own_hash_only() {
        let hasher = hasher(CHEAP, 2, 2);
        let (right, wrong) = (password("correct horse"), password("correct hors\u{e9}"));
        let one = hasher.hash(&right).await.unwrap();
        let two = hasher.hash(&right).await.unwrap();
        assert!(one.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{one}");
        assert_ne!(one, two, "each hash has its own salt");
        assert_eq!(hasher.verify(&right, Some(&one)).await.unwrap(), Verdict::Match { outdated: false });
        assert_eq!(hasher.verify(&wrong, Some(&one)).await.unwrap(), Verdict::Mismatch);
    }

    #[tokio::test]
    async fn a_cheaper_hash_still_matches_and_is_outdated() {
        let right = password("correct horse");
        let old = hasher(CHEAP, 1, 0).hash(&right).await.unwrap();
        for (cost, outdated) in [
            (Cost { memory_kib: 128, passes: 1 }, true),
            (Cost { memory_kib: 64, passes: 2 }, true),
            (Cost { memory_kib: 32, passes: 1 }, false),
        ] {
            let verdict = hasher(cost, 1, 0).verify(&right, Some(&old)).await.unwrap();
            assert_eq!(verdict, Verdict::Match { outdated }, "{cost:?}");
        }
    }

    #[tokio::test]
    async fn a_hash_of_the_reference_implementation_is_understood() {
        // From the test suite of the reference C code: argon2id, m=256, t=2, p=1, "password", "somesalt".
        let reference =
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let hasher = hasher(CHEAP, 1, 0);
        let verdict = hasher.verify(&password("password"), Some(reference)).await.unwrap();
        assert_eq!(verdict, Verdict::Match { outdated: false });
        assert_eq!(hasher.verify(&password("passwore"), Some(reference)).await.unwrap(), Verdict::Mismatch);
    }

    #[tokio::test]
    async fn an_unknown_account_costs_the_same_hash() {
        let hasher = hasher(CHEAP, 1, 0);
        assert_eq!(hasher.verify(&password("whatever it is"), None).await.unwrap(), Verdict::Mismatch);
        assert_eq!(hasher.shared.metrics.password_hashes(HashOutcome::Computed), 1);
        assert_eq!(Params::try_from(&hasher.shared.dummy).unwrap().m_cost(), CHEAP.memory_kib);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_recovers() {
        let hasher = hasher(CHEAP, 1, 1);
        let running = hasher.turn().await.unwrap();
        let waiting = tokio::spawn({
            let hasher = hasher.clone();
            async move { hasher.verify(&password("in the queue"), None).await }
        });
        while hasher.shared.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = hasher.verify(&password("one too many"), None).await;
        assert!(matches!(refused, Err(HashError::Overloaded { waiting: 2 })), "{refused:?}");
        assert_eq!(hasher.shared.metrics.password_hashes(HashOutcome::Refused), 1);
        drop(running);
        assert_eq!(waiting.await.unwrap().unwrap(), Verdict::Mismatch);
        assert!(hasher.verify(&password("room again"), None).await.is_ok());
    }

    #[tokio::test]
    async fn buffers_are_kept_one_per_worker_and_never_larger_than_today() {
        let hasher = hasher(CHEAP, 2, 16);
        let dear = self::hasher(Cost { memory_kib: 256, passes: 1 }, 1, 0);
        let old = dear.hash(&password("correct horse")).await.unwrap();
        let jobs = (0..8).map(|_| {
            let (hasher, old) = (hasher.clone(), old.clone());
            tokio::spawn(async move { hasher.verify(&password("correct horse"), Some(&old)).await })
        });
        for job in futures::future::join_all(jobs).await {
            assert_eq!(job.unwrap().unwrap(), Verdict::Match { outdated: false });
        }
        let buffers = hasher.shared.buffers.lock();
        assert!((1..=2).contains(&buffers.len()), "{} buffers", buffers.len());
        assert!(buffers.iter().all(|buffer| buffer.capacity() <= 64));
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_frees_nothing_early() {
        let hasher = hasher(CHEAP, 1, 0);
        let turn = hasher.turn().await.unwrap();
        let shared = Arc::clone(&hasher.shared);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (started, begun) = tokio::sync::oneshot::channel();
        let abandoned = tokio::spawn({
            let crew = Arc::clone(&shared);
            async move {
                let password = password("abandoned");
                let hash = move || {
                    let _ = started.send(());
                    let _ = wait.recv();
                    shared.argon2id(turn, &shared.params, &[1; SALT_BYTES], &password, HASH_BYTES)
                };
                crew.threads.compute(hash).await
            }
        });
        begun.await.unwrap();
        abandoned.abort();
        let _ = abandoned.await;
        assert_eq!(hasher.shared.places.available_permits(), 0, "still being computed");
        let _ = go.send(());
        while hasher.shared.places.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_stored_text_that_is_no_hash_is_an_error_not_a_mismatch() {
        let hasher = hasher(CHEAP, 1, 0);
        for stored in [
            "",
            "plain",
            "$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$GVMFSYCPE1F5ImLDo1iLCpo6PS8Q1xFr7XQlN8ZGEsI",
        ] {
            let outcome = hasher.verify(&password("correct horse"), Some(stored)).await;
            assert!(matches!(outcome, Err(HashError::Argon2(_))), "{stored:?}: {outcome:?}");
        }
    }
}
