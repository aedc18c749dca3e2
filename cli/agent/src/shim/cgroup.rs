//! A control group (version 2) for one replica, where this process may make one.

use std::fs;
use std::path::{Path, PathBuf};

use mlctl_core::local_protocol::Limits;

/// Length of the kernel's accounting period for processor time, in microseconds; its default.
const CPU_PERIOD_US: u64 = 100_000;

/// A control group that is removed again when dropped.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group below our own with these limits; none without limits, or where that is not allowed.
    pub(super) fn create(limits: &Limits) -> Option<Self> {
        if *limits == Limits::default() {
            return None;
        }
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = Path::new("/sys/fs/cgroup").join(own_path(&groups)?);
        Self::create_below(&own, std::process::id(), limits)
    }

    fn create_below(parent: &Path, shim: u32, limits: &Limits) -> Option<Self> {
        // The kernel makes these files; without them this is no control group, and a folder made here limits nothing.
        let controllers = fs::read_to_string(parent.join("cgroup.subtree_control")).ok()?;
        let wanted = [("memory", limits.memory_bytes.is_some()), ("cpu", limits.cpu_millis.is_some())];
        for (controller, _) in wanted.iter().filter(|(_, wanted)| *wanted) {
            if !controllers.split_whitespace().any(|c| c == *controller) {
                fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}")).ok()?;
            }
        }
        let path = parent.join(format!("mlctl-{shim}"));
        fs::create_dir(&path).ok()?;
        let group = Self { path };
        if let Some(bytes) = limits.memory_bytes {
            fs::write(group.path.join("memory.max"), bytes.to_string()).ok()?;
        }
        if let Some(millis) = limits.cpu_millis {
            let quota = millis * CPU_PERIOD_US / 1000;
            fs::write(group.path.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}")).ok()?;
        }
        Some(group)
    }

    /// Its folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Says whether the kernel killed a process of it for its memory.
    pub(super) fn was_exceeded(&self) -> bool {
        fs::read_to_string(self.path.join("memory.events")).is_ok_and(|text| oom_kills(&text) > 0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A group that still has members stays, empty ones go; there is nothing else to do about it here.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Reads our own group from `/proc/self/cgroup`; only the unified hierarchy counts.
fn own_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::/"))
}

fn oom_kills(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { cpu_millis: Some(250), memory_bytes: Some(1 << 20) };

    #[test]
    fn a_plain_folder_is_no_control_group() {
        let parent = tempfile::tempdir().unwrap();
        assert!(Cgroup::create_below(parent.path(), 7, &LIMITS).is_none());
        assert!(Cgroup::create(&Limits::default()).is_none());
    }

    #[test]
    fn limits_are_written_in_the_kernels_words() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("cgroup.subtree_control"), "cpu memory pids\n").unwrap();
        let group = Cgroup::create_below(parent.path(), 7, &LIMITS).unwrap();
        let read = |name: &str| fs::read_to_string(group.path().join(name)).unwrap();
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("cpu.max"), "25000 100000");
        assert!(!group.was_exceeded());
        fs::write(group.path().join("memory.events"), "low 0\noom 1\noom_kill 1\n").unwrap();
        assert!(group.was_exceeded());
    }

    #[test]
    fn our_own_group_is_that_of_the_unified_hierarchy() {
        assert_eq!(own_path("4:memory:/x\n0::/user.slice/a.scope\n"), Some("user.slice/a.scope"));
        assert_eq!(own_path("4:memory:/x\n"), None);
    }
}
