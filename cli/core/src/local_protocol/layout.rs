//! Names in the state folder and of the sockets.

use std::path::{Path, PathBuf};

use super::ArtifactRef;
use crate::item::Digest;

/// Where things are in the state folder of a local target. Everything below it is private to its owner (0700).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Returns the layout of that folder, which should be absolute.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Held by the one agent of the folder for as long as it lives.
    #[must_use]
    pub fn agent_lock(&self) -> PathBuf {
        self.root.join("agent.lock")
    }

    /// What the agent itself has to say.
    #[must_use]
    pub fn agent_log(&self) -> PathBuf {
        self.root.join("agent.log")
    }

    /// The lease and the highest fence ever given.
    #[must_use]
    pub fn lease(&self) -> PathBuf {
        self.root.join("lease.json")
    }

    /// What happened lately, one JSON object a line.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.root.join("events.jsonl")
    }

    /// One file per workload: what was last asked of it.
    #[must_use]
    pub fn workloads(&self) -> PathBuf {
        self.root.join("workloads")
    }

    /// The last generation of each workload that was removed: one made again under its name counts on from it.
    #[must_use]
    pub fn generations(&self) -> PathBuf {
        self.root.join("generations.json")
    }

    /// One folder per replica, called `SERVICE-ID`, those that ended lately included.
    #[must_use]
    pub fn replicas(&self) -> PathBuf {
        self.root.join("replicas")
    }

    /// The relay's own replica folder.
    #[must_use]
    pub fn relay(&self) -> PathBuf {
        self.root.join("relay")
    }

    /// Files that replicas of a service read.
    #[must_use]
    pub fn files(&self, service: &str) -> PathBuf {
        self.root.join("files").join(service)
    }

    /// The program of that digest.
    #[must_use]
    pub fn artifact(&self, artifact: &ArtifactRef) -> PathBuf {
        self.root.join("artifacts").join(artifact.digest.as_str()).join(&artifact.file)
    }

    /// What `{data}` stands for: the files of the embedded stores.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Where the server of a store keeps its data, when it is one of this machine's.
    #[must_use]
    pub fn server_data(&self, store: &str) -> PathBuf {
        self.data().join(store)
    }

    /// The folder of a secret's versions; `current` in it is the one in use.
    #[must_use]
    pub fn secret(&self, name: &str) -> PathBuf {
        self.root.join("secrets").join(name)
    }

    /// The file that holds the value of a secret now.
    #[must_use]
    pub fn secret_value(&self, name: &str) -> PathBuf {
        self.secret(name).join("current")
    }

    /// Returns the name of this folder's sockets under the runtime folder, without ending: a short digest, because
    /// paths of Unix sockets end at 108 bytes.
    #[must_use]
    pub fn socket_stem(&self) -> String {
        Digest::of(self.root.as_os_str().as_encoded_bytes()).short().to_owned()
    }

    /// The agent's socket.
    #[must_use]
    pub fn agent_socket(&self, runtime: &Path) -> PathBuf {
        runtime.join(format!("{}.agent", self.socket_stem()))
    }

    /// The relay's control socket.
    #[must_use]
    pub fn relay_socket(&self, runtime: &Path) -> PathBuf {
        runtime.join(format!("{}.relay", self.socket_stem()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_paths_stay_short_however_deep_the_folder() {
        let layout = Layout::new(format!("/{}", "deep/".repeat(100)));
        let socket = layout.agent_socket(Path::new("/run/user/1000/mlctl"));
        assert!(socket.as_os_str().len() < 60, "{}", socket.display());
        assert_ne!(layout.socket_stem(), Layout::new("/other").socket_stem());
    }
}
