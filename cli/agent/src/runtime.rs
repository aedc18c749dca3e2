//! The folder of the sockets: ours alone, or not used at all.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::{AgentError, disk};

/// Makes the runtime folder, or checks the one that is there: somebody else's folder under `/tmp` could hold
/// somebody else's sockets.
pub(crate) fn prepare(folder: &Path) -> Result<(), AgentError> {
    disk::make_private_folder(folder)?;
    let refuse = |reason: String| AgentError::Runtime { path: folder.to_owned(), reason };
    let metadata = fs::symlink_metadata(folder).map_err(AgentError::file("look at", folder))?;
    let own = nix::unistd::geteuid().as_raw();
    if !metadata.is_dir() {
        return Err(refuse("it is not a folder".to_owned()));
    }
    if metadata.uid() != own {
        return Err(refuse(format!("it belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refuse(format!("its mode is {:o}", metadata.mode() & 0o777)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn only_a_private_folder_is_taken() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("a/b");
        prepare(&folder).unwrap();
        prepare(&folder).unwrap();
        let link = temporary.path().join("link");
        symlink(&folder, &link).unwrap();
        assert!(prepare(&link).unwrap_err().to_string().contains("not a folder"));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(prepare(&folder).unwrap_err().to_string().contains("mode is 755"));
    }
}
