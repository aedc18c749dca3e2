//! Calls of the last minute, counted in twelve slices of five seconds.

use std::time::Duration;

use tokio::time::Instant;

const SLICES: usize = 12;
const SLICE: Duration = Duration::from_secs(5);

/// A ring of slices; each is emptied when its time comes round again.
pub(super) struct Window {
    origin: Instant,
    slices: [Slice; SLICES],
}

#[derive(Clone, Copy, Default)]
struct Slice {
    /// Which five seconds since the origin this counts.
    number: u64,
    calls: u32,
    bad: u32,
}

impl Window {
    pub(super) fn new(origin: Instant) -> Self {
        Self { origin, slices: [Slice::default(); SLICES] }
    }

    pub(super) fn record(&mut self, now: Instant, bad: bool) {
        let number = self.number(now);
        let slice = &mut self.slices[usize::try_from(number % SLICES as u64).unwrap_or(0)];
        if slice.number != number {
            *slice = Slice { number, ..Slice::default() };
        }
        slice.calls += 1;
        slice.bad += u32::from(bad);
    }

    /// Calls and bad calls of the last minute.
    pub(super) fn totals(&self, now: Instant) -> (u32, u32) {
        let oldest = (self.number(now) + 1).saturating_sub(SLICES as u64);
        let recent = self.slices.iter().filter(|slice| slice.number >= oldest);
        recent.fold((0, 0), |(calls, bad), slice| (calls + slice.calls, bad + slice.bad))
    }

    fn number(&self, now: Instant) -> u64 {
        (now - self.origin).as_secs() / SLICE.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_leave_the_window_after_a_minute() {
        let origin = Instant::now();
        let mut window = Window::new(origin);
        window.record(origin, true);
        window.record(origin + Duration::from_secs(30), false);
        assert_eq!(window.totals(origin + Duration::from_secs(59)), (2, 1));
        assert_eq!(window.totals(origin + Duration::from_secs(60)), (1, 0));
        window.record(origin + Duration::from_secs(61), true);
        assert_eq!(window.totals(origin + Duration::from_secs(61)), (2, 1));
        assert_eq!(window.totals(origin + Duration::from_secs(500)), (0, 0));
    }
}
