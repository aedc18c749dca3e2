//! Every exit code that a simulated target can lead to, by the shortest way there.

use mlctl::error::ExitStatus;

use crate::seal::{Seal, Told};

#[track_caller]
fn ends(told: &Told, status: ExitStatus) {
    assert_eq!(told.status, status, "{}", told.whole());
}

#[tokio::test]
async fn done_and_nothing_left_to_do() {
    let seal = Seal::new("healthy.toml");
    ends(&seal.mlctl(&["deploy", "--dry-run", "--exit-code"]).await, ExitStatus::Pending);
    ends(&seal.mlctl(&["deploy"]).await, ExitStatus::Done);
    let again = seal.mlctl(&["deploy"]).await;
    ends(&again, ExitStatus::Done);
    assert!(again.stdout.contains("nothing to change"), "{}", again.whole());
    ends(&seal.mlctl(&["deploy", "--dry-run", "--exit-code"]).await, ExitStatus::Done);
    ends(&seal.mlctl(&["diff"]).await, ExitStatus::Done);
    seal.edit("LEVEL: info", "LEVEL: warn");
    ends(&seal.mlctl(&["deploy"]).await, ExitStatus::Done);
    ends(&seal.mlctl(&["diff", "1"]).await, ExitStatus::Pending);
    ends(&seal.mlctl(&["rollback"]).await, ExitStatus::Done);
    ends(&seal.mlctl(&["health"]).await, ExitStatus::Done);
}

#[tokio::test]
async fn usage() {
    let seal = Seal::new("healthy.toml");
    for args in [
        &["deploy", "--nonsense"][..],
        &["deplyo"],
        &["scale", "api"],
        &["deploy", "--resume", "--phase", "1"],
        &["deploy", "--phase", "nine"],
        &["deploy", "--timeout", "soon"],
        &["deploy", "--plan", "p", "--set-image", "api=x"],
        &["deploy", "--plan", "p", "--on-failure", "stop"],
        &["deploy", "--resume", "--stores", "embedded"],
        &["scale", "api=2", "api=3"],
        &["restart", "api", "web", "api"],
        &["db", "rollback", "api", "--steps", "0"],
        &["loadtest", "http://127.0.0.1:port"],
        &["loadtest", "nowhere"],
    ] {
        ends(&seal.mlctl(args).await, ExitStatus::Usage);
    }
}

#[tokio::test]
async fn invalid_input() {
    let seal = Seal::new("healthy.toml");
    std::fs::write(seal.path("healthy.toml"), "[pace]\nobserve = 12\n").unwrap();
    ends(&seal.mlctl(&["status"]).await, ExitStatus::InvalidInput);
    std::fs::write(seal.path("plan.json"), "{}").unwrap();
    let seal = Seal::new("healthy.toml");
    ends(&seal.mlctl(&["deploy", "--plan", "plan.json"]).await, ExitStatus::InvalidInput);
    seal.edit("min: 2", "min: 9");
    ends(&seal.mlctl(&["deploy"]).await, ExitStatus::InvalidInput);
    ends(&seal.mlctl(&["config", "validate"]).await, ExitStatus::InvalidInput);
    std::fs::remove_file(seal.path("mlctl.yaml")).unwrap();
    ends(&seal.mlctl(&["status"]).await, ExitStatus::InvalidInput);
}

#[tokio::test]
async fn unreachable_and_locked() {
    let seal = Seal::new("unreachable.toml");
    ends(&seal.mlctl(&["status"]).await, ExitStatus::Unreachable);
    ends(&seal.mlctl(&["deploy"]).await, ExitStatus::Unreachable);
    let seal = Seal::new("locked.toml");
    ends(&seal.mlctl(&["deploy"]).await, ExitStatus::Locked);
    ends(&seal.mlctl(&["maintenance", "on"]).await, ExitStatus::Locked);
    assert!(!seal.path("state/runs").join("sim_locked_toml/shop").read_dir().unwrap().any(|_| true));
}

#[tokio::test]
async fn not_found() {
    let seal = Seal::new("healthy.toml");
    ends(&seal.mlctl(&["deploy"]).await, ExitStatus::Done);
    for args in [
        &["status", "nobody"][..],
        &["logs", "nobody"],
        &["health", "nobody"],
        &["rollback", "--to-revision", "9"],
        &["diff", "9"],
        &["runs", "show", "nobody"],
        &["deploy", "--resume"],
        &["loadtest", "--profile", "nobody"],
        &["deploy", "--set-image", "nobody=x"],
    ] {
        ends(&seal.mlctl(args).await, ExitStatus::NotFound);
    }
    ends(&seal.plain(&["status", "--target", "nobody"]).await, ExitStatus::NotFound);
}

#[tokio::test]
async fn failed_and_kept() {
    ends(&Seal::new("first-crash.toml").mlctl(&["deploy"]).await, ExitStatus::Failed);
    let seal = Seal::new("crash.toml");
    ends(&seal.mlctl(&["deploy"]).await, ExitStatus::Done);
    seal.edit("LEVEL: info", "LEVEL: loud");
    ends(&seal.mlctl(&["deploy", "--on-failure", "stop"]).await, ExitStatus::Failed);
}

#[tokio::test]
async fn rolled_back_and_rollback_failed() {
    for (scenario, status) in
        [("crash.toml", ExitStatus::RolledBack), ("no-way-back.toml", ExitStatus::RollbackFailed)]
    {
        let seal = Seal::new(scenario);
        ends(&seal.mlctl(&["deploy"]).await, ExitStatus::Done);
        seal.edit("LEVEL: info", "LEVEL: loud");
        ends(&seal.mlctl(&["deploy"]).await, status);
    }
}

#[tokio::test]
async fn a_wait_without_a_way_back_ends_in_its_deadline() {
    ends(&Seal::new("stuck-store.toml").mlctl(&["deploy"]).await, ExitStatus::TimedOut);
}

#[tokio::test]
async fn gates() {
    let (slow, unhealthy) = (Seal::new("slow-page.toml"), Seal::new("unhealthy.toml"));
    ends(&slow.mlctl(&["deploy", "--on-failure", "stop"]).await, ExitStatus::GateFailed);
    // Told to go back, with nothing to go back to.
    ends(&unhealthy.mlctl(&["deploy"]).await, ExitStatus::Failed);
    ends(&unhealthy.mlctl(&["health"]).await, ExitStatus::GateFailed);
    ends(&Seal::new("late-client.toml").mlctl(&["deploy"]).await, ExitStatus::GateInconclusive);
}

#[tokio::test]
async fn refused() {
    let seal = Seal::new("healthy.toml");
    for args in [
        &["deploy", "--phase", "2"][..],
        &["rollback"],
        &["rollback", "--with-secrets"],
        &["dash"],
        &["down", "--purge"],
        &["loadtest", "http://192.0.2.7/"],
    ] {
        ends(&seal.mlctl(args).await, ExitStatus::Refused);
    }
    ends(&seal.plain(&["deploy", "--target", "prod"]).await, ExitStatus::Refused);
    ends(&seal.plain(&["deploy", "--set-image", "api=x"]).await, ExitStatus::Refused);
    ends(&seal.mlctl(&["deploy"]).await, ExitStatus::Done);
    ends(&seal.mlctl(&["down"]).await, ExitStatus::Refused);
    ends(&seal.mlctl(&["rollback", "--to-revision", "1"]).await, ExitStatus::Refused);
    ends(&seal.mlctl(&["scale", "api=9"]).await, ExitStatus::Refused);
}
