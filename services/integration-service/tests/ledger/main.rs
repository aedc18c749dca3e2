//! The provider's ledger: what three processes of the service did in a week of traffic, judged by MercadoLibre's own
//! books (the simulator's), while the two servers of Redis are killed, emptied, filled and paused.
//!
//! The week is made short by configuration: a window of two seconds for the hour, and the limits by a hundredth.
//! `MLCTL_TEST_LENGTH=short` runs 20 windows instead of 168.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise, also in what its parts share")]
#![expect(clippy::print_stdout, reason = "what was measured belongs into the log")]

mod disturb;
mod fleet;
mod judge;
mod traffic;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::disturb::Disturber;
use crate::fleet::Fleet;
use crate::traffic::Traffic;

/// The hour.
pub(crate) const WINDOW: Duration = Duration::from_secs(2);
/// The limits of the plan, by a hundredth.
pub(crate) const GLOBAL: usize = 500;
pub(crate) const USER: usize = 50;
pub(crate) const ML_API: usize = 450;
/// So many sellers ask for more than the API's limit together.
const USERS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn a_week_of_traffic_keeps_every_quota() {
    let short = std::env::var("MLCTL_TEST_LENGTH").is_ok_and(|length| length == "short");
    let windows = if short { 20 } else { 168 };
    let fleet = Arc::new(Fleet::start().await);
    fleet.logs_on_panic();
    let traffic = Traffic::connect(&fleet, USERS).await;
    let workers = traffic.start();
    let mut disturber = Disturber::new(&fleet, &traffic);
    let until = Instant::now() + WINDOW * windows;
    while Instant::now() < until {
        disturber.next().await;
    }
    traffic.stopped.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    println!("    | {windows} windows of {WINDOW:?}; {}", disturber.told());
    traffic.told();
    traffic.answers_are_as_they_should_be();

    fleet.drained().await;
    let entries = fleet.ledger().await;
    let tolerance = fleet.round_trip().await;
    judge::quotas(&entries, tolerance);
    judge::tokens(&fleet, &entries).await;
    judge::notifications(&entries);
    fleet.alarmed().await;
    judge::caches(&fleet, &traffic).await;
    judge::nothing_is_lost_or_doubled(&fleet, &traffic, &entries).await;
}
