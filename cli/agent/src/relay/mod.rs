//! Owns the listening addresses and passes connections on to ready replicas.
//!
//! The relay knows ports and counts, no protocol: a connection goes to one replica, whole, and is counted from the
//! moment the replica is chosen. So "no open connection" is exact, and a drained replica may be stopped.
//!
//! A service with a passed socket is bound here and accepted elsewhere: the descriptor goes to each of its shims. The
//! queue of new connections is shared by them, so a replica that ends takes none of it along; two listeners on one
//! port (SO_REUSEPORT) would reset what is queued at the one that closes.

mod control;
mod forward;
mod last;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use mlctl_core::local_protocol::SocketMode;
use serde::{Deserialize, Serialize};

pub(crate) use control::{ask, attend, await_socket, keep_socket};

use crate::AgentError;

/// Raised whenever a message changes its meaning. Apart from the agent's protocol, because a relay outlives agents:
/// replacing one closes every listening address for a moment.
pub(crate) const RELAY_PROTOCOL: u32 = 2;

/// One listening address and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Front {
    /// The service.
    pub(crate) service: String,
    /// The port on 127.0.0.1.
    pub(crate) port: u16,
    /// Whether the relay accepts itself.
    pub(crate) mode: SocketMode,
    /// The ready replicas.
    pub(crate) backends: Vec<Backend>,
}

/// One ready replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Backend {
    /// Its name.
    pub(crate) replica: String,
    /// Its own port on 127.0.0.1.
    pub(crate) port: u16,
}

/// What the agent and shims ask, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "request")]
pub(crate) enum RelayRequest {
    /// This is the whole table from now on.
    Table {
        /// All listening addresses.
        fronts: Vec<Front>,
    },
    /// How many connections are open?
    Open,
    /// Send me the listening socket of that service, beside the answer. Refused while it listens on another port.
    Hand {
        /// The service.
        service: String,
        /// Its port.
        port: u16,
    },
    /// I want to know when you end: do not close this conversation before.
    Attend,
    /// Here, beside this, is the listening socket of that service: an earlier relay had bound it, and replicas accept
    /// from it still, so that its port cannot be bound again.
    Take {
        /// The service.
        service: String,
        /// Its port.
        port: u16,
    },
}

/// What the relay answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "response")]
pub(crate) enum RelayResponse {
    /// To `Attend`.
    Hello {
        /// Its [`RELAY_PROTOCOL`].
        protocol: u32,
    },
    /// To `Table`: all of it is in force but these.
    Table {
        /// Why a service's port could not be taken.
        failed: BTreeMap<String, String>,
    },
    /// To `Open`.
    Open {
        /// Open connections by replica; one without is not named.
        open: BTreeMap<String, usize>,
    },
    /// To `Hand`, the descriptor comes along; to `Take`.
    Handed,
    /// To anything that failed.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Serves as the relay until the process is ended. `last` is where the table is kept for the next relay, which so can
/// do without an agent.
///
/// # Errors
/// The control socket cannot be bound.
pub fn run(socket: &Path, last: &Path) -> Result<(), AgentError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(AgentError::process("start", "the relay's runtime"))?;
    let result = runtime.block_on(control::serve(socket, last));
    // Connections that are open end with the process; nobody waits for their tasks.
    runtime.shutdown_background();
    result
}
