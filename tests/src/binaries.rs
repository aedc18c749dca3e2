//! The binaries under test: built by cargo when they are stale, so that no suite ever tests yesterday's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What is built together, in the words of `mlctl.yaml`: in other groups cargo would choose other features for the
/// crates they share, and build everything anew.
const GROUPS: [&[&str]; 2] = [&["-p", "mlctl"], &["-p", "*-service", "-p", "gateway", "-p", "ml-api-sim"]];

/// Returns the root of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf())
}

/// Returns the folder of the binaries: freshly built in release mode, unless the environment says otherwise.
///
/// `MLCTL_TEST_PROFILE=debug` builds and tests the debug build. `MLCTL_TEST_BINARIES=FOLDER` builds nothing and tests
/// what lies there, for instance while the source tree is being worked on.
pub(crate) fn built() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("MLCTL_TEST_BINARIES") {
            return std::fs::canonicalize(folder).unwrap();
        }
        let debug = std::env::var("MLCTL_TEST_PROFILE").is_ok_and(|profile| profile == "debug");
        for group in GROUPS {
            let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            build.current_dir(repository()).args(["build", "--quiet"]).args(group);
            if !debug {
                build.arg("--release");
            }
            let built = build.status().unwrap();
            assert!(built.success(), "building {group:?} failed: {built}");
        }
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        repository().join(target).join(if debug { "debug" } else { "release" })
    })
}

/// Returns the mlctl binary under test.
#[must_use]
pub fn mlctl() -> PathBuf {
    built().join("mlctl")
}

/// Returns the binary of a service under test.
#[must_use]
pub fn service(name: &str) -> PathBuf {
    built().join(name)
}
