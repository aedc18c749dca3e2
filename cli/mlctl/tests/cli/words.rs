//! Help, usage errors, and errors with their causes and hints.

use mlctl::error::ExitStatus;

use crate::seal::{Seal, assert_told};

#[tokio::test]
async fn help() {
    let seal = Seal::new("healthy.toml");
    assert_told("help", &seal.plain(&["--help"]).await);
    for verb in ["deploy", "rollback", "loadtest", "lock", "db"] {
        assert_told(&format!("help-{verb}"), &seal.plain(&[verb, "--help"]).await);
    }
}

#[tokio::test]
async fn errors() {
    let seal = Seal::new("healthy.toml");
    for (name, args) in [
        ("error-unknown-verb", &["deplyo"][..]),
        ("error-later-verb", &["dash"]),
        ("error-unknown-flag", &["deploy", "--phse", "2"]),
        ("error-earlier-phase", &["deploy", "--phase", "2"]),
        ("error-unknown-phase", &["deploy", "--phase", "nine"]),
        ("error-unknown-service", &["health", "apy"]),
        ("error-nothing-verified", &["rollback"]),
        ("error-no-confirmation", &["down", "--purge"]),
        ("error-other-machine", &["loadtest", "http://192.0.2.7/"]),
        ("error-unknown-release", &["diff", "99"]),
    ] {
        assert_told(name, &seal.mlctl(args).await);
    }
    assert_told("error-unknown-target", &seal.plain(&["status", "--target", "nobody"]).await);
    assert_told("error-cluster-target", &seal.plain(&["status", "--target", "prod"]).await);
    assert_told("error-unreachable", &Seal::new("unreachable.toml").mlctl(&["status"]).await);
    assert_told("error-locked", &Seal::new("locked.toml").mlctl(&["deploy"]).await);
    seal.edit("needs: [api]", "needs: [apy]");
    seal.edit("min: 2, max: 4", "min: 2, max: four");
    assert_told("error-invalid-file", &seal.mlctl(&["config", "validate"]).await);
}

#[tokio::test]
async fn completions_and_manual_pages_are_made() {
    let seal = Seal::new("healthy.toml");
    for shell in ["bash", "zsh", "fish"] {
        let told = seal.plain(&["completion", shell]).await;
        assert_eq!(told.status, ExitStatus::Done);
        assert!(
            told.stdout.contains("mlctl") && told.stdout.contains("rollback"),
            "{shell}: {}",
            told.stdout
        );
    }
    assert_eq!(seal.plain(&["man", "pages"]).await.status, ExitStatus::Done);
    for page in ["mlctl.1", "mlctl-deploy.1", "mlctl-lock-release.1"] {
        let text = std::fs::read_to_string(seal.path("pages").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
}

#[tokio::test]
async fn version_opens_nothing() {
    let seal = Seal::new("healthy.toml");
    std::fs::remove_file(seal.path("mlctl.yaml")).unwrap();
    let told = seal.plain(&["version", "-o", "json"]).await;
    assert_eq!(told.status, ExitStatus::Done);
    let version: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}
