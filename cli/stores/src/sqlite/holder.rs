//! Who holds the write lock of a database, as far as the kernel tells.

use std::path::{Path, PathBuf};

/// Returns the processes that hold a write lock on a database, as `name (pid N)`; empty where the system does not
/// tell (only Linux has `/proc/locks`, and containers may hide others' processes).
pub(super) fn writers(database: &Path) -> Vec<String> {
    // In WAL mode the write lock lies on the shared-memory file, otherwise on the database itself.
    let inodes: Vec<u64> =
        [database.to_owned(), beside(database, "-shm")].iter().filter_map(|path| inode(path)).collect();
    // The kernel's list may skip an entry while other locks come and go, so one look is not enough.
    (0..LOOKS)
        .filter_map(|_| std::fs::read_to_string("/proc/locks").ok())
        .map(|locks| writer_pids(&locks, &inodes))
        .find(|pids| !pids.is_empty())
        .unwrap_or_default()
        .into_iter()
        .map(describe)
        .collect()
}

/// How often the kernel's list is read before nobody is found in it.
const LOOKS: usize = 5;

fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(unix)]
fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|meta| meta.ino())
}

#[cfg(not(unix))]
fn inode(_path: &Path) -> Option<u64> {
    None
}

/// Reads lines such as `1: POSIX  ADVISORY  WRITE 4242 fd:00:777 120 120`. Waiters (`->`) hold nothing.
fn writer_pids(locks: &str, inodes: &[u64]) -> Vec<u32> {
    let mut pids: Vec<u32> = locks
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, _, _, "WRITE", pid, file, ..] = fields[..] else { return None };
            let inode: u64 = file.rsplit(':').next()?.parse().ok()?;
            inodes.contains(&inode).then(|| pid.parse().ok()).flatten()
        })
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn describe(pid: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (pid {pid})", name.trim()),
        Err(_) => format!("pid {pid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::writer_pids;

    #[test]
    fn only_holders_of_a_write_lock_on_the_file_are_named() {
        let locks = "1: POSIX  ADVISORY  WRITE 42 fd:00:777 120 120\n\
                     1: -> POSIX  ADVISORY  WRITE 43 fd:00:777 120 120\n\
                     2: POSIX  ADVISORY  READ  44 fd:00:777 123 123\n\
                     3: FLOCK  ADVISORY  WRITE 45 fd:00:888 0 EOF\n\
                     4: POSIX  ADVISORY  WRITE 42 fd:00:777 121 121\n\
                     nonsense\n";
        assert_eq!(writer_pids(locks, &[777]), [42]);
        assert_eq!(writer_pids(locks, &[777, 888]), [42, 45]);
        assert!(writer_pids(locks, &[]).is_empty());
    }
}
