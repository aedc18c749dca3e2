//! What clients ask, carried out.

use jiff::Timestamp;
use mlctl_core::item::Digest;
use mlctl_core::local_protocol::{EnvSource, PROTOCOL, Request, Response, WorkloadSpec};
use mlctl_core::ports::{ErrorKind, Fence, LockRequest};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::lease::{Answer, LeaseBook, Moment, Refusal};
use super::replica::Replica;
use super::supervisor::Supervisor;
use super::workload::Workload;
use crate::record::WorkloadRecord;
use crate::{AgentError, disk};

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { kind: refusal.kind, reason: refusal.reason, holder: refusal.holder.map(|h| *h) }
    }
}

impl From<AgentError> for Refusal {
    /// The agent cannot write its own folder: nothing a client can do differently, but it may pass.
    fn from(error: AgentError) -> Self {
        let reason = match &error {
            AgentError::File { source, .. } => format!("{error}: {source}"),
            other => other.to_string(),
        };
        Self { kind: ErrorKind::Unavailable, reason, holder: None }
    }
}

pub(super) fn refusal(kind: ErrorKind, reason: impl Into<String>) -> Refusal {
    Refusal { kind, reason: reason.into(), holder: None }
}

impl Supervisor {
    /// Answers one request; a client that has gone is no matter.
    pub(super) fn answer(&mut self, request: Request, reply: oneshot::Sender<Response>) {
        let response = match request {
            Request::Shutdown { fence, .. } => match self.check_stop(fence) {
                Ok(fence) => {
                    self.begin_stop(fence, reply);
                    return;
                }
                Err(refusal) => refusal.into(),
            },
            other => self.carry_out(other).unwrap_or_else(Response::from),
        };
        let _ = reply.send(response);
    }

    fn carry_out(&mut self, request: Request) -> Result<Response, Refusal> {
        let now = Moment::now();
        Ok(match request {
            Request::Hello { .. } => {
                Response::Hello { protocol: PROTOCOL, build: self.build.clone(), pid: std::process::id() }
            }
            Request::Put { fence, digest, spec, replicas } => {
                self.lease.check(fence)?;
                applied(self.put(*spec, digest, replicas)?)
            }
            Request::Remove { fence, name } => {
                applied(self.change(fence, &name, true, |r| r.removed = true)?)
            }
            Request::Scale { fence, name, replicas } => {
                applied(self.change(fence, &name, false, |r| r.replicas = replicas)?)
            }
            Request::Restart { fence, name, token } => {
                applied(self.change(fence, &name, false, |r| r.restart = Some(token))?)
            }
            Request::File { fence, name, file } => {
                self.lease.check(fence)?;
                self.put_file(&name, file)?;
                Response::Done
            }
            Request::Keep { fence, changes } => {
                self.lease.check(fence)?;
                self.keep(&changes)?;
                Response::Done
            }
            Request::Observe => {
                let views = self.workload_views(Instant::now());
                Response::Workloads { workloads: views.into_values().collect() }
            }
            Request::Replicas { name } => {
                Response::Replicas { replicas: self.replica_views(name.as_deref()) }
            }
            Request::Events { since } => Response::Events { events: self.events.since(since) },
            Request::Lock { lock } => {
                let holder = self.with_lease(|lease, is_dead| lease.take(&lock, now, is_dead))?;
                Response::Locked { holder }
            }
            Request::StandInLine { lock } => {
                match self.with_lease(|lease, is_dead| Ok(lease.stand_in_line(&lock, now, is_dead)))? {
                    Answer::Ours(holder) => Response::Locked { holder },
                    Answer::Waits(state) => Response::Line { state },
                }
            }
            Request::LeaveLine { lock } => {
                self.with_lease(|lease, _| {
                    lease.leave_line(&lock);
                    Ok(())
                })?;
                Response::Done
            }
            Request::Renew { fence, run } => {
                self.renew(fence, run, now)?;
                Response::Done
            }
            Request::Unlock { fence } => {
                self.with_lease(|lease, _| Ok(lease.release(fence)))?;
                Response::Done
            }
            Request::BreakLock { fence, by, force } => {
                self.with_lease(|lease, is_dead| lease.take_away(fence, &by, force, now, is_dead))?;
                Response::Done
            }
            Request::LockState => {
                let host = self.host.clone();
                Response::Line { state: self.lease.state(now, |request| Self::is_dead(&host, request)) }
            }
            Request::Watch { .. } | Request::Shutdown { .. } => {
                return Err(refusal(ErrorKind::Invalid, "this request has a way of its own"));
            }
        })
    }

    /// Changes the lease, on disk first: a fence that was given must never be given again.
    fn with_lease<T>(
        &mut self,
        change: impl FnOnce(&mut LeaseBook, &dyn Fn(&LockRequest) -> bool) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let host = self.host.clone();
        let mut lease = self.lease.clone();
        let result = change(&mut lease, &|request| Self::is_dead(&host, request))?;
        let kept = lease.kept();
        if kept != self.lease.kept() {
            disk::write_json(&self.layout.lease(), &kept, disk::Durability::Power)?;
        }
        self.lease = lease;
        Ok(result)
    }

    /// Renews the lease. Synced like every write of this file, which holds the highest fence too: it must not be empty
    /// after a loss of power. A disk that is full costs what the next agent knows of it, not the lease: its holder could
    /// renew late all the same.
    fn renew(&mut self, fence: Fence, run: Option<String>, now: Moment) -> Result<(), Refusal> {
        self.lease.renew(fence, run, now)?;
        let _ = disk::write_json(&self.layout.lease(), &self.lease.kept(), disk::Durability::Power);
        Ok(())
    }

    /// Ends the lease of whoever asked to end everything.
    pub(super) fn end_lease(&mut self) {
        if let Some(fence) = self.ending {
            // One that stays on disk is that of a process which is about to end.
            let _ = self.with_lease(|lease, _| Ok(lease.release(fence)));
        }
    }

    fn put(&mut self, mut spec: WorkloadSpec, digest: Digest, replicas: u32) -> Result<u64, Refusal> {
        self.check_spec(&spec)?;
        let now = Timestamp::now();
        for file in &mut spec.files {
            file.advance(now);
        }
        let name = spec.name.clone();
        let before = self.workloads.get(&name);
        let last = before.map(|w| w.record.generation).or_else(|| self.retired.get(&name).copied());
        // Asked for again, what failed is tried again: what it failed for (a full disk, a taken port) may be gone.
        let failing = before.is_some_and(|workload| {
            let mut newest = self.replicas.values().filter(|replica| replica.is_of(workload));
            newest.any(|replica| replica.record.failing)
        });
        if let Some(workload) = before {
            let known = &workload.record;
            let same =
                known.spec == spec && known.digest == digest && known.replicas == replicas && !known.removed;
            if same && !failing {
                return Ok(known.generation);
            }
        }
        for file in &spec.files {
            self.write_file(&name, file)?;
        }
        let record = WorkloadRecord {
            generation: last.unwrap_or_default() + 1,
            restart: before.and_then(|w| w.record.restart.clone()),
            removed: false,
            spec,
            digest,
            replicas,
        };
        let generation = record.generation;
        match self.workloads.get_mut(&name) {
            Some(workload) => workload.change(&self.layout, record)?,
            None => {
                let workload = Workload::create(&self.layout, record)?;
                self.workloads.insert(name.clone(), workload);
            }
        }
        self.relay.begin_anew(&name);
        if let Some(workload) = self.workloads.get(&name) {
            // What another revision failed for is not asked for again.
            self.replicas.values_mut().filter(|r| r.is_of(workload)).for_each(Replica::try_again);
        }
        self.events.note(&name, None, "put", format!("generation {generation}, {replicas} replicas"));
        Ok(generation)
    }

    /// Refuses what could never run, before anything has changed.
    fn check_spec(&self, spec: &WorkloadSpec) -> Result<(), Refusal> {
        let name = &spec.name;
        let invalid = |reason: String| Err(refusal(ErrorKind::Invalid, reason));
        if !is_plain(name) {
            return invalid(format!(
                "{name:?} is no name: letters, digits, dots, dashes and underscores only"
            ));
        }
        if spec.argv.is_empty() {
            return invalid(format!("{name} has no program to run"));
        }
        if spec.update.surge == 0 && spec.update.unavailable == 0 {
            return invalid(format!(
                "{name}: surge and unavailable are both 0, so nothing could ever be replaced"
            ));
        }
        if let Some(file) = spec.files.iter().find(|f| !is_plain(&f.name)) {
            return invalid(format!("{name}: {:?} is no file name", file.name));
        }
        if let Some(artifact) = &spec.artifact {
            let path = self.layout.artifact(artifact);
            if !is_plain(&artifact.file) || !path.exists() {
                return invalid(format!(
                    "artifact_missing: {name} runs {}, which is not there",
                    path.display()
                ));
            }
        }
        let secrets = spec.env.values().filter_map(EnvSource::secret);
        for secret in secrets {
            if !is_plain(secret) || !self.layout.secret_value(secret).exists() {
                return invalid(format!("{name} needs secret {secret}, which has no value on this target"));
            }
        }
        if let Some(port) = spec.port {
            let other = self
                .workloads
                .iter()
                .find(|(other, w)| *other != name && !w.record.removed && w.record.spec.port == Some(port));
            if let Some((other, _)) = other {
                return invalid(format!("{name} and {other} both want port {port}"));
            }
        }
        Ok(())
    }

    /// Changes one thing of a workload; changing it to what it is changes nothing.
    fn change(
        &mut self,
        fence: Fence,
        name: &str,
        absent_is_fine: bool,
        change: impl FnOnce(&mut WorkloadRecord),
    ) -> Result<u64, Refusal> {
        self.lease.check(fence)?;
        let Some(workload) = self.workloads.get_mut(name).filter(|w| absent_is_fine || !w.record.removed)
        else {
            if absent_is_fine {
                return Ok(self.retired.get(name).copied().unwrap_or_default());
            }
            return Err(refusal(ErrorKind::NotFound, format!("there is no workload {name}")));
        };
        let mut record = workload.record.clone();
        change(&mut record);
        if record != workload.record {
            record.generation += 1;
            workload.change(&self.layout, record)?;
        }
        Ok(workload.record.generation)
    }

    /// Refuses to end everything for one without the lease: another's deploy may have begun since it looked.
    fn check_stop(&self, fence: Option<Fence>) -> Result<Fence, Refusal> {
        let without = || refusal(ErrorKind::Invalid, "only the holder of the lease may stop the replicas");
        let fence = fence.ok_or_else(without)?;
        self.lease.check(fence)?;
        Ok(fence)
    }

    /// Begins to end everything. What was asked stays on disk: the next agent of this folder starts it again. The
    /// lease of whoever asks ends with it: no agent will be there to give it back to.
    fn begin_stop(&mut self, fence: Fence, reply: oneshot::Sender<Response>) {
        self.ending.get_or_insert(fence);
        self.stopping.push(reply);
        self.stop_unneeded();
    }
}

const fn applied(generation: u64) -> Response {
    Response::Applied { generation }
}

/// Says whether a name may be part of a path: nothing in it leads elsewhere.
pub(super) fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && !name.starts_with('.') && name.len() <= 128 && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn names_lead_nowhere() {
        for good in ["api", "api-two", "a_b.c", "9"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "é", "a\0"] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }
}
