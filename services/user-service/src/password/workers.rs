//! Threads that hash, and yield to all others.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::HashError;

/// How far a worker yields to other threads, as nice(1) counts: it gets a tenth of a core that others want, and all of
/// one that nobody wants.
const YIELDING: i32 = 10;

/// What a worker does next.
type Job = Box<dyn FnOnce() + Send>;

/// The threads; they end when this is dropped.
pub(super) struct Workers {
    jobs: mpsc::Sender<Job>,
}

impl Workers {
    /// Starts so many threads.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for worker in 0..count {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name(format!("argon2-{worker}"));
            thread.spawn(move || work(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Has one hash computed. The queue is not bounded here: the caller has taken a place before.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let (answer, answered) = oneshot::channel();
        // Nobody waits for the answer of a caller who went away.
        let job = Box::new(move || drop(answer.send(work())));
        self.jobs.send(job).map_err(|_| HashError::WorkerLost)?;
        answered.await.map_err(|_| HashError::WorkerLost)?
    }
}

/// Does what comes, until nobody can send more.
fn work(queue: &Mutex<mpsc::Receiver<Job>>) {
    // nice(2) is of the calling thread on Linux. Where it is refused, the worker is as good as any.
    let _ = rustix::process::nice(YIELDING);
    loop {
        let next = queue.lock().recv();
        let Ok(job) = next else { return };
        // A hash that panics loses its answer and no worker.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_that_panics_loses_its_answer_and_no_worker() {
        let workers = Workers::start(1).unwrap();
        let lost = workers.compute(|| -> Result<(), HashError> { panic!("a bug in a hash") }).await;
        assert!(matches!(lost, Err(HashError::WorkerLost)), "{lost:?}");
        assert_eq!(workers.compute(|| Ok(1)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn only_the_workers_yield() {
        let niceness = || rustix::process::nice(0).map_err(|error| HashError::Thread(error.into()));
        let workers = Workers::start(1).unwrap();
        let (ours, theirs) = (niceness().unwrap(), workers.compute(niceness).await.unwrap());
        assert_eq!(theirs, (ours + YIELDING).min(19));
    }
}
