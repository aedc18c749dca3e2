//! The start of one run of a replica: its ports, and what its shim is told.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use mlctl_core::local_protocol::{EnvSource, Layout, SocketMode};
use tokio::process::Child;

use super::fill::{Values, wants_metrics_port};
use super::ports::free_port;
use super::replica::Replica;
use super::shims::start_shim;
use crate::process::Process;
use crate::record::{PassedSocket, Ports, ShimSpec};
use crate::{AgentError, disk};

/// Variables of the agent's own environment that every program gets.
const INHERITED: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

impl Replica {
    /// Starts its shim. Ports are chosen anew unless the last run was ready with them.
    pub(super) fn start(
        &mut self,
        layout: &Layout,
        relay: &Path,
        taken: &BTreeSet<u16>,
    ) -> Result<Child, AgentError> {
        self.run += 1;
        self.choose_ports(taken)?;
        if let Some(artifact) = &self.record.spec.artifact {
            let path = layout.artifact(artifact);
            if !path.exists() {
                return Err(AgentError::file("start", &path)(io::ErrorKind::NotFound.into()));
            }
        }
        disk::make_private_folder(&self.folder.work())?;
        // What the last run has left says nothing about this one, should we die before its shim begins.
        for old in [self.folder.exit(), self.folder.status()] {
            disk::remove(&old)?;
        }
        disk::write_json(
            &self.folder.shim_spec(),
            &self.shim_spec(layout, relay),
            disk::Durability::Process,
        )?;
        self.save()?;
        let child = start_shim(&self.folder)?;
        self.begin(child.id().map(Process::of_child));
        Ok(child)
    }

    fn choose_ports(&mut self, taken: &BTreeSet<u16>) -> Result<(), AgentError> {
        if self.record.proven {
            return Ok(());
        }
        let spec = &self.record.spec;
        let own = spec.port.is_some() && spec.socket == SocketMode::Relay;
        let stable = spec.port.filter(|_| spec.socket == SocketMode::Own);
        let metrics = wants_metrics_port(spec);
        let mut taken = taken.clone();
        let mut next = |wanted: bool| {
            if !wanted {
                return Ok(None);
            }
            let port = free_port(&mut rand::rng(), &taken)
                .map_err(AgentError::process("find a free port for", self.name.clone()))?;
            taken.insert(port);
            Ok(Some(port))
        };
        (self.record.port, self.record.metrics_port) = (next(own)?.or(stable), next(metrics)?);
        Ok(())
    }

    fn shim_spec(&self, layout: &Layout, relay: &Path) -> ShimSpec {
        let spec = &self.record.spec;
        // A passed socket keeps the stable port: the program shows it, and a health check from outside asks there.
        let port = self.record.port.or(spec.port);
        let values = Values { layout, spec, port, metrics_port: self.record.metrics_port };
        let inherited = INHERITED.into_iter().filter_map(|name| {
            std::env::var(name).ok().map(|value| (name.to_owned(), EnvSource::Text(value)))
        });
        let own = spec.env.iter().map(|(name, source)| {
            let source = match source {
                EnvSource::Text(text) => EnvSource::Text(values.fill(text)),
                secret => secret.clone(),
            };
            (name.clone(), source)
        });
        let env: BTreeMap<String, EnvSource> = inherited.chain(own).collect();
        ShimSpec {
            argv: spec.argv.iter().map(|word| values.fill(word)).collect(),
            env,
            directory: match &spec.directory {
                Some(directory) => values.fill(directory).into(),
                None => self.folder.work(),
            },
            root: layout.root().to_owned(),
            limits: spec.limits,
            stop_signal: spec.update.stop_signal.clone(),
            grace_ms: self.grace_ms(),
            passed: spec.port.filter(|_| spec.socket == SocketMode::Passed).map(|port| PassedSocket {
                relay: relay.to_owned(),
                service: self.record.service.clone(),
                port,
            }),
            ports: Ports { own: self.record.port, metrics: self.record.metrics_port },
            restart: false,
        }
    }
}
