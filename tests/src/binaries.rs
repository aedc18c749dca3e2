//! The binaries under test: built by cargo when they are stale, so that no suite ever tests yesterday's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Services that the shipped system is made of; their artifacts have to be there.
const PACKAGES: [&str; 7] = [
    "mlctl",
    "user-service",
    "integration-service",
    "catalog-service",
    "analytics-service",
    "gateway",
    "ml-api-sim",
];

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
        // One by one, as a deploy builds them: together, cargo would choose other features and build everything anew.
        for package in PACKAGES {
            let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            build.current_dir(repository()).args(["build", "--quiet", "-p", package]);
            if !debug {
                build.arg("--release");
            }
            let built = build.status().unwrap();
            assert!(built.success(), "building {package} failed: {built}");
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
