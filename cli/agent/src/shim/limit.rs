//! The memory limit where the kernel cannot enforce it: looked at now and then, so it is approximate.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::process::{Process, memory_below};

/// Between two looks at the program itself.
const PERIOD: Duration = Duration::from_millis(250);
/// Every how many looks the program's children are counted too: that reads all of `/proc`.
const WITH_CHILDREN: u32 = 8;

/// Watches the memory of a program and of all that it has started.
pub(super) struct MemoryWatch {
    limit: Option<u64>,
    pid: u32,
    ticks: Interval,
    looks: u32,
    exceeded: Option<Excess>,
}

/// A limit that was exceeded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Excess {
    /// What was in use, in bytes.
    used: u64,
    /// What was allowed.
    limit: u64,
}

impl Excess {
    /// Returns what people should know about it.
    pub(super) fn words(self) -> String {
        format!(
            "{} MiB in use of at most {} MiB; approximate, for no control group can be made here",
            self.used >> 20,
            self.limit >> 20
        )
    }
}

impl MemoryWatch {
    /// Returns a watch over the program `pid` and over everything below this process, which adopts what leaves the
    /// program; without a limit it never fires.
    pub(super) fn new(limit: Option<u64>, pid: u32) -> Self {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { limit, pid, ticks, looks: 0, exceeded: None }
    }

    /// Waits until the limit is exceeded. Safe to drop and call again.
    pub(super) async fn exceeded(&mut self) {
        let Some(limit) = self.limit else { return std::future::pending().await };
        loop {
            self.ticks.tick().await;
            self.looks += 1;
            let used = if self.looks.is_multiple_of(WITH_CHILDREN) {
                memory_below(std::process::id())
            } else {
                Process::find(self.pid).and_then(Process::usage).map_or(0, |u| u.memory_bytes)
            };
            if used > limit {
                self.exceeded = Some(Excess { used, limit });
                return;
            }
        }
    }

    /// Returns what was exceeded, if it ever was.
    pub(super) const fn excess(&self) -> Option<Excess> {
        self.exceeded
    }
}
