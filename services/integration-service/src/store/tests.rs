//! What tests of the shared state stand on: an empty embedded store, a clock that they move, metrics.

use std::sync::Arc;

use jiff::Timestamp;
use service_kit::Clock;
use service_kit::clock::ManualClock;

use super::SqliteState;
use crate::metrics::Metrics;

pub(crate) struct Bench {
    _folder: tempfile::TempDir,
    pub(crate) state: Arc<SqliteState>,
    pub(crate) clock: Clock,
    pub(crate) hand: ManualClock,
    pub(crate) metrics: Metrics,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(Timestamp::from_second(1_800_000_000).unwrap());
        let state = SqliteState::open(SqliteState::pool(folder.path()), clock.clone()).await.unwrap();
        let metrics = Metrics::register(&service_kit::Metrics::new());
        Self { _folder: folder, state: Arc::new(state), clock, hand, metrics }
    }
}
