//! Changes to files that clients keep in the state folder.

use serde::{Deserialize, Serialize};

/// Entries of the state folder that belong to clients; everything else is the agent's own.
const OF_CLIENTS: [&str; 6] = ["artifacts", "head.json", "items", "overrides.json", "releases", "secrets"];

/// One change. Paths are relative to the state folder and separated by `/`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum StateChange {
    /// Write a file, which is whole or as before.
    Write {
        /// Which.
        path: String,
        /// What it holds then.
        content: String,
    },
    /// Make a symbolic link to a name beside it.
    Link {
        /// Where.
        path: String,
        /// To which name.
        to: String,
    },
    /// Remove a file, or a folder with everything in it. One that is not there is fine.
    Remove {
        /// Which.
        path: String,
    },
}

/// What a file holds may be a secret: only its length is shown.
impl std::fmt::Debug for StateChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write { path, content } => write!(f, "Write({path}, {} bytes)", content.len()),
            Self::Link { path, to } => write!(f, "Link({path}, {to})"),
            Self::Remove { path } => write!(f, "Remove({path})"),
        }
    }
}

impl StateChange {
    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Write { path, .. } | Self::Link { path, .. } | Self::Remove { path } => path,
        }
    }

    /// Says whether it stays among what clients may change.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        let mut names = self.path().split('/');
        let first = names.next().unwrap_or_default();
        let link = match self {
            Self::Link { to, .. } => is_plain(to),
            _ => true,
        };
        OF_CLIENTS.contains(&first) && link && names.all(is_plain)
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_content() {
        let change = StateChange::Write { path: "secrets/key/1".to_owned(), content: "hunter2".to_owned() };
        assert_eq!(format!("{change:?}"), "Write(secrets/key/1, 7 bytes)");
    }

    #[test]
    fn nothing_leads_out_of_what_clients_keep() {
        for (path, allowed) in [
            ("head.json", true),
            ("releases/1.json", true),
            ("items/secret/my.key.json", true),
            ("artifacts/0123", true),
            ("lease.json", false),
            ("workloads/api.json", false),
            ("releases/../lease.json", false),
            ("releases//x", false),
            ("/etc/passwd", false),
            ("", false),
        ] {
            assert_eq!(StateChange::Remove { path: path.to_owned() }.is_allowed(), allowed, "{path:?}");
        }
        let link = |to: &str| StateChange::Link { path: "secrets/key/current".to_owned(), to: to.to_owned() };
        assert!(link("3").is_allowed());
        assert!(!link("../../lease.json").is_allowed());
    }
}
