//! What a run and the commands around it say: plans, lines, JSON, rollback, errors with hints.

use mlctl::error::ExitStatus;
use serde_json::Value;

use crate::seal::{Seal, assert_told};

#[tokio::test]
async fn a_plan_and_its_run() {
    let seal = Seal::new("healthy.toml");
    assert_told("plan", &seal.mlctl(&["deploy", "--dry-run"]).await);
    assert_told("deploy", &seal.mlctl(&["deploy", "--release", "spring"]).await);
    assert_told("status", &seal.mlctl(&["status"]).await);
    assert_told("nothing-to-change", &seal.mlctl(&["deploy"]).await);
    seal.edit("LEVEL: info", "LEVEL: warn");
    assert_told("plan-of-an-update", &seal.mlctl(&["deploy", "--dry-run"]).await);
    assert_told("deploy-quiet", &seal.mlctl(&["deploy", "--quiet"]).await);
    assert_told("rollback", &seal.mlctl(&["rollback"]).await);
    assert_told("history", &seal.mlctl(&["history"]).await);
    assert_told("runs", &seal.mlctl(&["runs"]).await);
    assert_told("health", &seal.mlctl(&["health"]).await);
    assert_told("scale", &seal.mlctl(&["scale", "api=3"]).await);
}

#[tokio::test]
async fn a_failure_is_told_with_evidence_and_taken_back() {
    let seal = Seal::new("crash.toml");
    seal.mlctl(&["deploy"]).await;
    seal.edit("LEVEL: info", "LEVEL: loud");
    assert_told("rolled-back", &seal.mlctl(&["deploy"]).await);
    assert_told("history-after-a-failure", &seal.mlctl(&["history"]).await);
}

#[tokio::test]
async fn a_gate_says_what_it_wanted_and_what_it_got() {
    assert_told("gate-failed", &Seal::new("unhealthy.toml").mlctl(&["deploy"]).await);
}

#[tokio::test]
async fn a_kpi_that_fails_names_the_endpoints() {
    let slow = Seal::new("slow-page.toml");
    assert_told("kpi-failed", &slow.mlctl(&["deploy", "--on-failure", "stop"]).await);
}

#[tokio::test]
async fn json_is_one_event_a_line_and_the_last_is_the_outcome() {
    let seal = Seal::new("healthy.toml");
    let told = seal.mlctl(&["deploy", "-o", "json"]).await;
    let events: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("run_started", "run_finished"));
    assert_eq!(kinds.iter().filter(|kind| **kind == "run_finished").count(), 1);
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(told.stderr, "", "nothing but data is said");

    let plan = seal.mlctl(&["rollback", "--to-revision", "9", "-o", "json"]).await;
    assert_eq!(plan.stdout, "");
    let error: Value = serde_json::from_str(&plan.stderr).unwrap();
    assert_eq!(error["error"]["code"], 6);

    seal.edit("LEVEL: info", "LEVEL: warn");
    let plan: Value =
        serde_json::from_str(&seal.mlctl(&["deploy", "--dry-run", "-o", "json"]).await.stdout).unwrap();
    let names: Vec<&str> =
        plan["phases"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["infrastructure", "applications", "verification"]);
    assert_eq!((&plan["from"], &plan["release"]["number"]), (&1.into(), &2.into()));
}

#[tokio::test]
async fn nothing_to_do_is_a_run_too() {
    let seal = Seal::new("healthy.toml");
    seal.mlctl(&["deploy"]).await;
    for args in
        [&["deploy", "-o", "json"][..], &["down", "-o", "json", "--yes"], &["down", "-o", "json", "--yes"]]
    {
        let told = seal.mlctl(args).await;
        let events: Vec<Value> =
            told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (first, last) = (&events[0], &events[events.len() - 1]);
        assert_eq!((&first["kind"], &first["operation"]), (&"run_started".into(), &args[0].into()));
        assert_eq!(
            (&last["kind"], &last["exit"], &last["head"]),
            (&"run_finished".into(), &0.into(), &1.into())
        );
    }
    let told = seal.mlctl(&["status"]).await;
    assert!(told.stdout.contains("nothing runs (release 1 is kept)"), "{}", told.whole());
    seal.mlctl(&["deploy"]).await;
    let told = seal.mlctl(&["deploy", "--release", "spring"]).await;
    assert!(told.stderr.contains("the tag spring is not used"), "{}", told.whole());
}

#[tokio::test]
async fn a_run_is_named_by_the_beginning_of_its_id() {
    let seal = Seal::new("healthy.toml");
    for act in [&["deploy"][..], &["scale", "api=3"]] {
        seal.mlctl(act).await;
    }
    let mut runs = Vec::new();
    seal.journals(|journals| {
        runs.extend(journals.keys().cloned());
        // The second loses its end, as a kill would have it.
        journals.values_mut().last().unwrap().pop();
    });
    let told = seal.mlctl(&["runs", "show", "0"]).await;
    assert_eq!(told.status, ExitStatus::NotFound);
    assert!(runs.iter().all(|run| told.stderr.contains(run)), "{}", told.whole());
    let told = seal.mlctl(&["runs", "show", &runs[1]]).await;
    assert!(told.stdout.contains("scale succeeded"), "the events are here: {}", told.whole());
    let listed: Value = serde_json::from_str(&seal.mlctl(&["runs", "-o", "json"]).await.stdout).unwrap();
    let states: Vec<&str> =
        listed["runs"].as_array().unwrap().iter().map(|run| run["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["cut off", "ended"]);

    seal.journals(|journals| {
        let line = journals.values_mut().next().unwrap().get_mut(1).unwrap();
        *line = line.replace("\"seq\":2", "\"seq\":7");
    });
    let told = seal.mlctl(&["runs", "show", &runs[0]]).await;
    assert_eq!(told.status, ExitStatus::InvalidInput);
    assert!(told.stderr.contains("line 2"), "{}", told.whole());
}

#[tokio::test]
async fn github_gets_groups_and_masks() {
    let seal = Seal::new("healthy.toml");
    let told = seal.mlctl(&["deploy"]).await;
    assert!(!told.whole().contains("::group::"), "the reader is chosen by the environment");
    let on_github: &[_] = &[("GITHUB_ACTIONS", "true"), ("SHOP_TOKEN", "sesame\n100%")];
    let target = "sim:healthy.toml";
    let told = seal.with_env(on_github, &["deploy", "--phase", "verification", "--target", target]).await;
    assert!(told.stderr.contains("::group::verification"), "{}", told.whole());
    seal.edit("token: {generate: token}", "token: {env: SHOP_TOKEN}");
    let told = seal.with_env(on_github, &["history"]).await;
    assert_eq!(
        (told.status, told.stderr.as_str()),
        (ExitStatus::Done, "::add-mask::sesame\n::add-mask::100%25\n")
    );
}

#[tokio::test]
async fn a_mirror_that_refuses_stops_the_run_and_leaves_both_copies_alike() {
    let seal = Seal::new("mirror-refuses.toml");
    let told = seal.mlctl(&["deploy"]).await;
    assert_eq!(told.status, ExitStatus::Failed, "{}", told.whole());
    assert!(told.stdout.contains("read-only file system"), "{}", told.whole());
    // Had the copy at home kept the refused record, the next one would have had the same number.
    let told = seal.mlctl(&["audit", "verify"]).await;
    assert_eq!(told.status, ExitStatus::Done, "{}", told.whole());
    assert!(told.stdout.contains("all hold together"), "{}", told.whole());
    let told = seal.mlctl(&["deploy", "--resume"]).await;
    assert_eq!(told.status, ExitStatus::Done, "{}", told.whole());
    let told = seal.mlctl(&["audit", "verify"]).await;
    assert_eq!(told.stdout, "1 journal checked: all hold together\n", "{}", told.whole());
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_a_finding_and_hides_no_other() {
    let seal = Seal::new("unreadable-journal.toml");
    seal.mlctl(&["deploy"]).await;
    seal.mlctl(&["scale", "api=3"]).await;
    let told = seal.mlctl(&["audit", "verify"]).await;
    assert_eq!(told.status, ExitStatus::GateFailed, "{}", told.whole());
    assert!(told.stdout.contains("the target's copy: read_journal "), "{}", told.whole());
    assert!(told.stdout.ends_with("2 journals checked: 1 not as written\n"), "{}", told.whole());
    let told = seal.mlctl(&["audit", "export"]).await;
    assert_eq!(told.status, ExitStatus::GateFailed, "{}", told.whole());
    let lines: Vec<Value> = told.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["broken"]["what"], "unreadable");
    assert!(
        lines.len() > 2 && lines[1..].iter().all(|line| line["record"]["seq"].is_u64()),
        "{}",
        told.whole()
    );
}

#[tokio::test]
async fn evidence_is_listed_where_it_lies() {
    let seal = Seal::new("crash.toml");
    seal.mlctl(&["deploy"]).await;
    seal.edit("LEVEL: info", "LEVEL: loud");
    let told = seal.mlctl(&["deploy"]).await;
    assert_eq!(told.status, ExitStatus::RolledBack, "{}", told.whole());
    let listed: Value = serde_json::from_str(&seal.mlctl(&["runs", "-o", "json"]).await.stdout).unwrap();
    let folder = listed["runs"][0]["evidence"].as_str().unwrap();
    assert!(told.stdout.contains(&format!("evidence: {folder}\n")), "{}", told.whole());
    let run = listed["runs"][0]["run"].as_str().unwrap();
    let told = seal.mlctl(&["runs", "show", run]).await;
    assert!(told.stdout.contains(&format!("Evidence in {folder}:")), "{}", told.whole());
    for file in ["workload.api.log.txt", "workload.api.plan.txt", "namespace.shop.failure.txt"] {
        assert!(told.stdout.contains(file), "{}", told.whole());
    }
}
