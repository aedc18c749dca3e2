//! What others cannot do without: it outlives them, and runs for them alone where nothing else asks for it.

use super::replica::{Replica, State};
use super::supervisor::Supervisor;
use super::workload::Workload;
use crate::record::Intent;

impl Supervisor {
    /// Returns how many replicas a workload is to have: none once it was removed, or where it runs for others only and
    /// there are none. As long as one of those is left that cannot do without it, it stays.
    pub(super) fn wanted(&self, name: &str) -> u32 {
        let Some(record) = self.workloads.get(name).map(|workload| &workload.record) else { return 0 };
        let by_itself = !record.removed && !record.spec.while_needed;
        let asks = |w: &Workload| !w.record.removed && w.record.spec.needs.iter().any(|need| need == name);
        if by_itself || self.is_used(name) || self.workloads.values().any(asks) { record.replicas } else { 0 }
    }

    /// Says whether a replica is left, on its way out or not, that cannot do without a workload.
    fn is_used(&self, name: &str) -> bool {
        let uses = |r: &Replica| r.record.spec.needs.iter().any(|need| need == name);
        self.replicas.values().any(|replica| replica.state != State::Ended && uses(replica))
    }

    /// Asks every replica to end that nobody who is left needs; the others have their turn after those.
    pub(super) fn stop_unneeded(&mut self) {
        let runs = |r: &&Replica| r.record.intent == Intent::Run && r.state != State::Ended;
        let free = self.replicas.values().filter(runs).filter(|r| !self.is_used(&r.record.service));
        let free: Vec<String> = free.map(|replica| replica.name.clone()).collect();
        for name in free {
            let Some(replica) = self.replicas.get_mut(&name) else { continue };
            match replica.state {
                State::BackOff { .. } => replica.leave(),
                _ => replica.stop(),
            }
        }
    }
}
