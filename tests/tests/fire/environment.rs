//! A hostile environment: full disks, missing homes, closed streams, signals, terminals that change or go away, output
//! without end. Each has a clear end: a documented exit code, what failed on what, what to do next, never a panic.
//!
//! What is about the process itself runs on a simulated target ([`mlctl_tests::Seal`]); what is about replicas and the
//! agent on the embedded one. Faults are real where they can be had (a small tmpfs, `/dev/full`, a pseudo terminal);
//! elsewhere strace injects the error that the kernel would give.

mod disk;
mod disk_local;
mod homes;
mod interruptions;
mod output;
mod panics;
mod streams;
mod terminal;
mod version;

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own at a folder, for as long as this lives.
struct Mount(PathBuf);

impl Mount {
    /// Mounts a tmpfs with those options, such as `size=64k`.
    #[track_caller]
    fn tmpfs(folder: &Path, options: &str) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test mounts file systems: run it as root");
        let mount = Self(folder.to_path_buf());
        mount.run("mount", &["-t", "tmpfs", "-o", options, "tmpfs"]);
        mount
    }

    /// Changes its options.
    #[track_caller]
    fn remount(&self, options: &str) {
        self.run("mount", &["-o", &format!("remount,{options}")]);
    }

    #[track_caller]
    fn run(&self, program: &str, args: &[&str]) {
        let told = Command::new(program).args(args).arg(&self.0).output().unwrap();
        assert!(told.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&told.stderr));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there keeps it until then.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
