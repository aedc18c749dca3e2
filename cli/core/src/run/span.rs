//! What a clock allows: from when until when, and how that is told.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;

/// What one of the clocks allows.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) since: Instant,
    pub(super) until: Instant,
}

impl Span {
    pub(super) fn beginning_now(length: Duration) -> Self {
        let since = Instant::now();
        Self { since, until: since + length }
    }
}

/// Returns what a wall clock shows at a moment, to the second. Only for people: what is compared is the moment.
pub(crate) fn wall(clock: &dyn Clock, at: Instant) -> jiff::Timestamp {
    let (now, here) = (clock.now(), Instant::now());
    let there = if at >= here {
        now.saturating_add(at - here).unwrap_or(jiff::Timestamp::MAX)
    } else {
        now.saturating_sub(here - at).unwrap_or(jiff::Timestamp::MIN)
    };
    there.round(jiff::Unit::Second).unwrap_or(there)
}
