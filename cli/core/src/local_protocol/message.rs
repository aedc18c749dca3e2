//! What is asked and answered over the agent's socket.

use serde::{Deserialize, Serialize};

use super::{FileSpec, ReplicaView, StateChange, WorkloadSpec, WorkloadView};
use crate::item::Digest;
use crate::ports::{ErrorKind, Fence, LockHolder, LockRequest, LockState, TargetEvent};
use crate::release::Operator;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub enum Request {
    /// First on every connection.
    Hello {
        /// The client's [`PROTOCOL`](super::PROTOCOL).
        protocol: u32,
        /// The client's build, to tell an agent of another build.
        build: String,
    },
    /// Make a workload run as described. The same spec and count again change nothing, unless replicas
    /// of it fail: then they are tried again.
    Put {
        /// The writer's lease.
        fence: Fence,
        /// Digest of the item.
        digest: Digest,
        /// What to run.
        spec: Box<WorkloadSpec>,
        /// How many.
        replicas: u32,
    },
    /// Stop a workload and forget it.
    Remove {
        /// The writer's lease.
        fence: Fence,
        /// Its name.
        name: String,
    },
    /// Change only the count.
    Scale {
        /// The writer's lease.
        fence: Fence,
        /// Its name.
        name: String,
        /// How many.
        replicas: u32,
    },
    /// Roll every replica; the same token again changes nothing.
    Restart {
        /// The writer's lease.
        fence: Fence,
        /// Its name.
        name: String,
        /// Names this restart.
        token: String,
    },
    /// Write a live file of a workload, without rolling it.
    File {
        /// The writer's lease.
        fence: Fence,
        /// The workload.
        name: String,
        /// The file.
        file: FileSpec,
    },
    /// Change files of the state folder, in order: what clients keep there changes behind the fence like all else.
    Keep {
        /// The writer's lease.
        fence: Fence,
        /// The changes.
        changes: Vec<StateChange>,
    },
    /// Tell all workloads.
    Observe,
    /// Stream the workloads named (all when empty), each at once and at every change.
    Watch {
        /// Their names.
        names: Vec<String>,
    },
    /// Tell the replicas of one workload, or of all.
    Replicas {
        /// Its name.
        name: Option<String>,
    },
    /// Tell what happened since then.
    Events {
        /// Since when.
        since: Option<jiff::Timestamp>,
    },
    /// Take the lease.
    Lock {
        /// By whom and for how long.
        lock: LockRequest,
    },
    /// Take the lease when it is this one's turn; else take, or keep, a place in line.
    StandInLine {
        /// By whom and for how long.
        lock: LockRequest,
    },
    /// Give up the place in line, and the lease if it was given meanwhile.
    LeaveLine {
        /// As it was asked for.
        lock: LockRequest,
    },
    /// Prolong the lease.
    Renew {
        /// The holder's fence.
        fence: Fence,
        /// The run it is held for, when it is not the one named at first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<String>,
    },
    /// Give the lease back.
    Unlock {
        /// The holder's fence.
        fence: Fence,
    },
    /// Free the lease of that fence.
    BreakLock {
        /// Its fence.
        fence: Fence,
        /// Who frees it.
        by: Operator,
        /// Although its holder renews it.
        force: bool,
    },
    /// Tell who holds the lease and who waits for it.
    LockState,
    /// End the agent. Replicas go on serving unless `stop_replicas`.
    Shutdown {
        /// Stop every replica and the relay too.
        stop_replicas: bool,
        /// The lease of whoever stops the replicas, who needs it; it ends with them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fence: Option<Fence>,
    },
}

impl Request {
    /// Reads a request from its line.
    ///
    /// # Errors
    /// The answer to a line that is no request.
    pub fn decode(line: &str) -> Result<Self, Box<Response>> {
        serde_json::from_str(line).map_err(|error| Box::new(Response::not_a_request(&error)))
    }

    /// Says whether it may be asked again when its answer got lost: a question, or what has the same result twice.
    #[must_use]
    pub const fn may_repeat(&self) -> bool {
        matches!(
            self,
            Self::Observe
                | Self::Replicas { .. }
                | Self::Events { .. }
                | Self::LockState
                | Self::StandInLine { .. }
                | Self::LeaveLine { .. }
                | Self::Renew { .. }
        )
    }
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "response")]
pub enum Response {
    /// To `Hello`.
    Hello {
        /// The agent's [`PROTOCOL`](super::PROTOCOL).
        protocol: u32,
        /// The agent's build.
        build: String,
        /// Its process.
        pid: u32,
    },
    /// To a write.
    Applied {
        /// The workload's generation after it.
        generation: u64,
    },
    /// To `Observe`.
    Workloads {
        /// All of them.
        workloads: Vec<WorkloadView>,
    },
    /// To `Watch`, one a change.
    Workload {
        /// The one that changed.
        workload: WorkloadView,
    },
    /// To `Replicas`.
    Replicas {
        /// Them.
        replicas: Vec<ReplicaView>,
    },
    /// To `Events`.
    Events {
        /// Oldest first.
        events: Vec<TargetEvent>,
    },
    /// To `Lock`, and to `StandInLine` of the one whose turn it is.
    Locked {
        /// The new holder.
        holder: LockHolder,
    },
    /// To `LockState`, and to `StandInLine` of everybody else.
    Line {
        /// Who holds it and who waits.
        state: LockState,
    },
    /// To what has no other answer.
    Done,
    /// To anything that failed.
    Refused {
        /// What sort.
        kind: ErrorKind,
        /// One sentence.
        reason: String,
        /// The present holder, when the lease is what is missing.
        holder: Option<LockHolder>,
    },
}

impl Response {
    /// Returns the answer to what is no request.
    pub fn not_a_request(error: &dyn std::fmt::Display) -> Self {
        let reason = format!("not a request of this protocol: {error}");
        Self::Refused { kind: ErrorKind::Invalid, reason, holder: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let request = Request::Scale { fence: Fence(3), name: "api".to_owned(), replicas: 2 };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"request":"scale","fence":3,"name":"api","replicas":2}"#);
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }
}
