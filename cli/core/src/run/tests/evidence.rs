//! Evidence of whole runs: before anything is undone, without a secret, whatever the target does meanwhile.

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::rig::{Rig, Told};
use crate::event::{EventKind, Outcome, RunOutcome};
use crate::ports::{
    Inspector, LogLine, LogQuery, ProbeAnswer, ProbeRequest, Replica, Result, Scrape, TargetEvent,
};
use crate::secret::Secret;
use crate::sim::Sim;

/// `simulated-jwt`, as the simulation calls the value of the secret, in base64.
const ENCODED: &str = "c2ltdWxhdGVkLWp3dA==";

/// Deploys the first version, then the second under a fault.
async fn update(script: &str) -> Told {
    let mut rig = Rig::running(&format!("[[fault]]\nitem = 'user'\ncontains = 'user-2'\n{script}")).await;
    rig.edit("VERSION: 'user-1'", "VERSION: 'user-2', SIGNING_KEY: 'correct-horse'");
    rig.deploy().await
}

/// Returns the evidence of a phase: item, what, lines.
fn evidence(told: &Told, of_phase: &str) -> Vec<(String, String, String)> {
    let piece = |kind: &EventKind| match kind {
        EventKind::Evidence { phase, item, what, lines, .. } if phase == of_phase => {
            Some((item.to_string(), what.clone(), lines.join("\n")))
        }
        _ => None,
    };
    told.events.iter().filter_map(|event| piece(&event.kind)).collect()
}

fn lines<'a>(pieces: &'a [(String, String, String)], item: &str, what: &str) -> Option<&'a str> {
    let found = pieces.iter().find(|(about, sort, _)| about == item && sort == what);
    found.map(|(_, _, lines)| lines.as_str())
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_a_program_prints_is_starred() {
    let log = format!("log = ['jwt=simulated-jwt', 'Basic {ENCODED}', 'with correct-horse', 'harmless']");
    let told = update(&format!("crash = '0s'\n{log}")).await;
    assert_eq!(told.report.outcome, RunOutcome::RolledBack);
    let pieces = evidence(&told, "applications");
    let log = lines(&pieces, "workload/user", "log").unwrap();
    for line in ["jwt=***", "Basic ***", "with ***", "harmless"] {
        assert!(log.contains(line), "{line} is not in:\n{log}");
    }
    let plan = lines(&pieces, "workload/user", "plan").unwrap();
    assert!(plan.contains("\"SIGNING_KEY\": \"***\"") && plan.contains("secret jwt"), "{plan}");
    for (item, what, text) in &pieces {
        for canary in ["simulated-jwt", ENCODED.trim_end_matches('='), "correct-horse"] {
            assert!(!text.contains(canary), "{canary} is in {what} of {item}:\n{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn why_a_step_failed_is_kept_without_a_secret() {
    let fault =
        "[[fault]]\nitem = 'user'\ncontains = 'user-2'\nhealth = 503\nbody = 'key simulated-jwt is stale'";
    let mut rig = Rig::running(fault).await;
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    let notes = told.events.iter().filter_map(|event| match &event.kind {
        EventKind::StepFinished { outcome: Outcome::Failed, note, .. } => Some(note.clone()),
        _ => None,
    });
    let note = rig.sim.world().releases[1].note.clone().unwrap();
    let kept = notes.chain([told.report.reason, note, rig.sim.journal_text("run-2")]);
    for text in kept {
        assert!(text.contains("key *** is stale") && !text.contains("simulated-jwt"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_program_says_is_left_out_where_a_secret_cannot_be_read() {
    let script =
        "crash = '0s'\nlog = ['jwt=simulated-jwt']\n[[error]]\nport = 'secret'\nkind = 'denied'\ncount = 99";
    let told = update(script).await;
    assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
    let pieces = evidence(&told, "applications");
    let log = lines(&pieces, "workload/user", "log").unwrap();
    assert!(log.starts_with("left out, since it may hold a secret"), "{log}");
    assert!(lines(&pieces, "workload/user", "replica").is_some(), "what is not of the program stays");
    assert!(!told.text().contains("simulated-jwt"), "{}", told.text());
}

#[tokio::test(start_paused = true)]
async fn evidence_comes_before_the_way_back_and_a_failed_way_back_has_its_own() {
    let refused = "[[error]]\nport = 'apply'\nitem = 'user'\nskip = 2\nkind = 'denied'";
    let told = update(&format!("crash = '0s'\n{refused}")).await;
    assert_eq!(told.report.outcome, RunOutcome::RollbackFailed, "{}", told.text());
    let last = told.place(|kind| matches!(kind, EventKind::Evidence { phase, what, .. } if phase == "applications" && what == "plan"));
    let back =
        told.place(|kind| matches!(kind, EventKind::PhaseStarted { phase, .. } if phase == "rollback"));
    assert!(last.unwrap() < back.unwrap(), "{}", told.text());
    let pieces = evidence(&told, "rollback");
    let failure = lines(&pieces, "namespace/shop", "failure").unwrap();
    assert!(failure.starts_with("apply workload/user"), "{failure}");
    let plan = lines(&pieces, "workload/user", "plan").unwrap();
    assert!(plan.contains("user-1"), "the item as the way back has it: {plan}");
}

#[tokio::test(start_paused = true)]
async fn a_gate_keeps_all_it_said() {
    let told = update("health = 503\nbody = 'the database is away'").await;
    let pieces = evidence(&told, "verification");
    let said = lines(&pieces, "namespace/shop", "gate").unwrap();
    assert!(said.contains("fail: user each replica wants 2xx on /health, got 503"), "{said}");
    assert!(said.contains("pass: catalog each replica"), "{said}");
    let answers = lines(&pieces, "workload/user", "probe").unwrap();
    assert!(answers.contains("user-1: 503") && answers.contains("  the database is away"), "{answers}");
    assert!(lines(&pieces, "workload/catalog", "status").is_none(), "it is not about those that pass");
}

#[tokio::test(start_paused = true)]
async fn a_kpi_is_about_every_workload_and_a_migration_about_its_service() {
    let told = update("p99 = '900ms'").await;
    let pieces = evidence(&told, "verification");
    for name in ["user", "catalog", "gateway"] {
        assert!(lines(&pieces, &format!("workload/{name}"), "status").is_some(), "{name}");
    }
    assert!(lines(&pieces, "namespace/shop", "gate").unwrap().contains("latency wants p99<500ms"));

    let mut rig = Rig::running("[[error]]\nport = 'migrate'\nskip = 1\nkind = 'invalid'").await;
    rig.add_migration();
    let told = rig.deploy().await;
    let pieces = evidence(&told, "applications");
    let plan = lines(&pieces, "migration/user", "plan").unwrap();
    assert!(plan.contains("create table t2"), "{plan}");
    assert!(lines(&pieces, "workload/user", "status").is_some());
    assert!(lines(&pieces, "workload/catalog", "status").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_target_that_tells_nothing_changes_no_outcome() {
    let errors = ["events", "logs", "replicas", "probe", "observe", "secret"].map(|port| {
        let skip = if port == "observe" || port == "probe" { 99 } else { 0 };
        format!("\n[[error]]\nport = '{port}'\nskip = {skip}\ncount = 999\nkind = 'timeout'")
    });
    let told = update(&format!("never-ready = true{}", errors.concat())).await;
    assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
    let pieces = evidence(&told, "applications");
    assert!(lines(&pieces, "workload/user", "status").is_some(), "what is known here is kept");
    assert!(lines(&pieces, "workload/user", "replica").is_none());
}

/// A simulation that never answers who asks for logs, or for secrets.
struct Hangs {
    sim: Sim,
    secrets: bool,
}

#[async_trait]
impl Inspector for Hangs {
    async fn logs(&self, _: &LogQuery) -> Result<BoxStream<'static, Result<LogLine>>> {
        std::future::pending().await
    }

    async fn events(&self, since: Option<jiff::Timestamp>) -> Result<Vec<TargetEvent>> {
        self.sim.events(since).await
    }

    async fn replicas(&self, service: Option<&str>) -> Result<Vec<Replica>> {
        self.sim.replicas(service).await
    }

    async fn probe(&self, request: &ProbeRequest) -> Result<Vec<ProbeAnswer>> {
        self.sim.probe(request).await
    }

    async fn scrape(&self, service: &str) -> Result<Vec<Scrape>> {
        self.sim.scrape(service).await
    }

    async fn address(&self, service: Option<&str>) -> Result<Option<String>> {
        self.sim.address(service).await
    }

    async fn secret(&self, name: &str) -> Result<Option<Secret>> {
        if self.secrets {
            return std::future::pending().await;
        }
        self.sim.secret(name).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_does_not_answer_holds_the_way_back_up_for_its_patience_only() {
    let back_at = |told: &Told| {
        let back =
            |kind: &EventKind| matches!(kind, EventKind::PhaseStarted { phase, .. } if phase == "rollback");
        told.events[told.place(back).unwrap()].elapsed_ms
    };
    let undisturbed = back_at(&update("crash = '0s'").await);
    for secrets in [false, true] {
        let mut rig = Rig::running("[[fault]]\nitem = 'user'\ncontains = 'user-2'\ncrash = '0s'").await;
        rig.edit("user-1", "user-2");
        rig.inspector = Some(Box::new(Hangs { sim: rig.sim.clone(), secrets }));
        let told = rig.deploy().await;
        assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
        // Secrets are read before the end of the step is told, everything else after it.
        let longer = back_at(&told) - undisturbed;
        assert!((2_900..3_100).contains(&longer), "{longer} ms");
        let pieces = evidence(&told, "applications");
        // What came in time is kept; without the secrets nothing of the program is even asked for.
        assert!(lines(&pieces, "workload/user", "replica").is_some(), "{}", told.text());
        assert_eq!(lines(&pieces, "workload/user", "log").is_some(), secrets);
        let incomplete = "evidence about workload/user is incomplete: the target took over 3s";
        assert_eq!(told.state().warnings.iter().any(|text| text == incomplete), !secrets);
    }
}
