//! The crate graph of docs/architecture.md: one way, and each heavy crate in its own corner.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use mlctl_tests::repository;
use serde_json::Value;

use crate::{assert_none, read};

/// A package of the workspace with what it names itself, dependencies for tests apart.
struct Package {
    /// `cli/core`.
    folder: String,
    normal: BTreeSet<String>,
    for_tests: BTreeSet<String>,
}

fn packages() -> BTreeMap<String, Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repository()).args(["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let package = |package: &Value| {
        let manifest = text(&package["manifest_path"]);
        let folder = manifest.strip_prefix(repository().to_str().unwrap()).unwrap();
        let folder = folder.trim_start_matches('/').trim_end_matches("/Cargo.toml").to_owned();
        let (mut normal, mut for_tests) = (BTreeSet::new(), BTreeSet::new());
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = text(&dependency["name"]);
            (if dependency["kind"] == "dev" { &mut for_tests } else { &mut normal }).insert(name);
        }
        (text(&package["name"]), Package { folder, normal, for_tests })
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

#[test]
fn packages_of_ours_depend_one_way() {
    let packages = packages();
    let (kit, core) = ("service-kit", "mlctl-core");
    let allowed = |name: &str, folder: &str| -> Vec<&str> {
        match name {
            "mlctl-core" | "service-kit" => Vec::new(),
            "mlctl-agent" | "mlctl-load" | "mlctl-stores" | "mlctl-targets" => vec![core],
            "mlctl" => vec![core, "mlctl-agent", "mlctl-load", "mlctl-stores", "mlctl-targets"],
            _ if folder.starts_with("services/") => vec![kit],
            _ => Vec::new(),
        }
    };
    let mut broken = Vec::new();
    for (name, package) in &packages {
        let allowed = allowed(name, &package.folder);
        let ours = package.normal.iter().filter(|name| packages.contains_key(*name));
        let wrong = ours.filter(|dependency| !allowed.contains(&dependency.as_str()));
        broken.extend(wrong.map(|dependency| format!("{name} depends on {dependency}")));
    }
    assert_none("mlctl -> targets, stores, load, agent -> core; services -> service-kit", &broken);
    assert!(packages.len() >= 14, "only {:?}: is this the workspace?", packages.keys());
}

#[test]
fn tests_of_a_package_stay_on_its_side() {
    let packages = packages();
    let mut broken = Vec::new();
    for (name, package) in packages.iter().filter(|(name, _)| *name != "mlctl-tests") {
        let side = package.folder.split('/').next();
        for dependency in package.for_tests.iter().filter_map(|name| packages.get_key_value(name)) {
            if dependency.1.folder.split('/').next() != side {
                broken.push(format!("{name} tests with {}", dependency.0));
            }
        }
    }
    assert_none("cli/ and services/ meet at HTTP, metrics and manifests only", &broken);
}

#[test]
fn heavy_crates_stay_in_their_corners() {
    let corners: [(&[&str], &[&str]); 5] = [
        (&["clap", "clap_complete", "clap_mangen", "ratatui"], &["cli/mlctl"]),
        (&["kube", "k8s-openapi", "bollard"], &["cli/targets"]),
        (&["rusqlite", "sqlx", "redis", "mongodb", "rdkafka"], &["cli/stores", "services/"]),
        (&["axum", "prometheus-client", "jsonwebtoken"], &["services/"]),
        (&["saphyr-parser"], &["cli/core"]),
    ];
    let mut broken = Vec::new();
    for (name, package) in packages() {
        for (crates, folders) in &corners {
            let heavy = crates.iter().find(|name| package.normal.contains(**name));
            if let Some(heavy) =
                heavy.filter(|_| !folders.iter().any(|folder| package.folder.starts_with(folder)))
            {
                broken.push(format!("{name} depends on {heavy}, which belongs under {}", folders.join(", ")));
            }
        }
    }
    assert_none("a heavy crate has one corner", &broken);
}

#[test]
fn core_knows_no_network_and_no_terminal() {
    let packages = packages();
    let core = &packages["mlctl-core"].normal;
    let banned = [
        "hyper",
        "hyper-util",
        "reqwest",
        "nix",
        "rustix",
        "tracing-subscriber",
        "terminal_size",
        "tempfile",
    ];
    let broken: Vec<String> =
        banned.iter().filter(|name| core.contains(**name)).map(|name| (*name).to_owned()).collect();
    assert_none("core decides and touches nothing", &broken);
}

#[test]
fn the_fuzzer_stays_out_of_the_build() {
    let lock = read(Path::new("Cargo.lock"));
    let mut broken: Vec<String> = ["libfuzzer-sys", "mlctl-fuzz", "arbitrary"]
        .iter()
        .filter(|name| lock.contains(&format!("name = \"{name}\"")))
        .map(|name| format!("Cargo.lock has {name}"))
        .collect();
    broken.extend(
        packages()
            .keys()
            .filter(|name| *name == "mlctl-fuzz")
            .map(|name| format!("the workspace has {name}")),
    );
    let own = read(Path::new("fuzz/Cargo.toml"));
    if !own.lines().any(|line| line == "[workspace]") {
        broken.push("fuzz/Cargo.toml begins no workspace of its own".to_owned());
    }
    assert_none("fuzz/ is a workspace of its own", &broken);
}
