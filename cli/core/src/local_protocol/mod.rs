//! What mlctl and the agent of the local target say to each other, and where both find things in the state folder.
//! Types, names and how a line is read from whatever gives bytes; the sockets are others'.
//!
//! One JSON object a line in each direction over the agent's Unix socket. A connection carries any number of
//! [`Request`]s, each answered by one [`Response`] in order; after [`Request::Watch`] the connection carries
//! [`Response::Workload`] lines until the client closes it.

mod layout;
pub mod line;
mod log;
mod message;
mod state_file;
mod view;
mod workload;

pub use layout::Layout;
pub use log::{LOG_FILES, split_log_line};
pub use message::{Request, Response};
pub use state_file::StateChange;
pub use view::{ReplicaView, WorkloadView};
pub use workload::{
    ArtifactRef, EnvSource, FileSpec, HealthSpec, LaterContent, Limits, ProbeProtocol, SocketMode,
    UpdateSpec, WorkloadSpec,
};

/// Raised whenever a message changes its meaning. A client that meets another number asks the agent to hand over.
pub const PROTOCOL: u32 = 2;
