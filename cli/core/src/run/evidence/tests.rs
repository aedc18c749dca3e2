//! The tables of evidence: what is gathered about whom for which failure.

use jiff::Timestamp;

use super::*;
use crate::item::{Digest, Item, Tier};
use crate::ports::{ErrorKind, JournalError, LoadError, LoadFault, OrchestratorError, StoreError};
use crate::ports::{Through, Write};
use crate::status::{Cause, Status, WorkloadStatus};
use crate::steps::gate::{HealthCheck, HealthGate};
use crate::steps::{ClockKind, apply::Apply, load::Load, migrate::Migrate};
use crate::system::SystemFile;

fn item(kind: ItemKind, name: &str) -> Item {
    Item {
        id: ItemId::new(kind, name),
        tier: Tier::Applications,
        needs: Vec::new(),
        digest: Digest::of(b""),
        replicas: None,
        progress_deadline_ms: None,
        payload: serde_json::Value::Null,
    }
}

fn apply() -> Action {
    let write = Write::Put { item: item(ItemKind::Workload, "api"), replicas: Some(1) };
    Action::Apply(Apply { writes: vec![write], rewrite: Vec::new(), width: 1, stable_for_ms: 0 })
}

fn health() -> Action {
    let check = HealthCheck { service: "api".into(), through: Through::Replicas, path: "/h".into() };
    Action::Health(HealthGate { checks: vec![check], within_ms: 1 })
}

fn load() -> Action {
    let text = "apiVersion: mlctl/v1\nsystem: s\nservices: {web: {command: [web], port: 80, gateway: true}}\n\
        load: {l: {rate: 1/s, duration: 1s, mix: [{name: a, weight: 1, get: /}]}}";
    let system = SystemFile::parse("mlctl.yaml", text.as_bytes()).unwrap().system().unwrap();
    let profile = system.load["l"].clone();
    Action::Load(Box::new(Load { name: "l".into(), profile, own_thresholds: 0, secrets: Vec::new() }))
}

fn migrate() -> Action {
    Action::Migrate(Migrate { items: vec![item(ItemKind::Migration, "api")] })
}

fn gate(subject: &str) -> StepError {
    let result = |subject: &str, verdict| GateResult {
        subject: subject.into(),
        want: "2xx".into(),
        got: "503".into(),
        verdict,
    };
    StepError::GateFailed {
        results: vec![result(subject, Verdict::Fail), result("db each replica", Verdict::Pass)],
    }
}

fn target() -> StepError {
    OrchestratorError::new(ErrorKind::Denied, "apply", "workload/api", "no").into()
}

fn deadline() -> StepError {
    StepError::Deadline {
        clock: ClockKind::Step,
        since: Timestamp::UNIX_EPOCH,
        until: Timestamp::UNIX_EPOCH,
        waiting: "api".into(),
    }
}

fn terminal(name: &str) -> StepError {
    StepError::Terminal { item: ItemId::workload(name), cause: Cause::terminal("exited", "code 1") }
}

fn store() -> StepError {
    let (operation, subject, reason) = ("migrate", "api 1".to_owned(), "syntax".to_owned());
    StoreError { operation, subject, reason, unreachable: false }.into()
}

#[test]
fn each_failure_is_of_one_kind() {
    let journal =
        || JournalError { operation: "write", run: String::new(), reason: String::new(), source: None };
    let begin = || LoadError { base: String::new(), fault: LoadFault::Profile, reason: String::new() };
    for (error, action, kind) in [
        (terminal("api"), apply(), Some(Kind::Item)),
        (terminal("api"), health(), Some(Kind::Item)),
        (deadline(), apply(), Some(Kind::Deadline)),
        (deadline(), health(), Some(Kind::Gate)),
        (deadline(), migrate(), Some(Kind::Migration)),
        (gate("api each replica"), health(), Some(Kind::Gate)),
        (StepError::GateInconclusive { results: Vec::new() }, health(), Some(Kind::Gate)),
        (begin().into(), load(), Some(Kind::Load)),
        (gate("all"), load(), Some(Kind::Load)),
        (deadline(), load(), Some(Kind::Load)),
        (store(), migrate(), Some(Kind::Migration)),
        (target(), migrate(), Some(Kind::Migration)),
        (target(), apply(), Some(Kind::Refused)),
        (target(), health(), Some(Kind::Refused)),
        (StepError::Cancelled, apply(), None),
        (StepError::LeaseLost, apply(), None),
        (journal().into(), apply(), None),
    ] {
        assert_eq!(Kind::of(&error, &action), kind, "{error:?} of {action:?}");
    }
}

#[test]
fn what_a_bundle_holds_for_which_failure() {
    use ItemKind::{Migration, Store, Workload};
    let words = |kind: Kind, item| kind.sorts(item).into_iter().map(Sort::word).collect::<Vec<_>>().join(" ");
    for (kind, item, holds) in [
        (Kind::Item, Workload, "status replica log previous_log event probe plan"),
        (Kind::Item, Store, "status event plan"),
        (Kind::Deadline, Workload, "status replica log previous_log event probe plan"),
        (Kind::Gate, Workload, "status replica log previous_log event probe plan"),
        (Kind::Load, Workload, "status replica log previous_log event probe"),
        (Kind::Migration, Workload, "status replica log event plan"),
        (Kind::Migration, Migration, "status event plan"),
        (Kind::Refused, Workload, "status replica event plan"),
        (Kind::Refused, Store, "status event plan"),
    ] {
        assert_eq!(words(kind, item), holds, "{kind:?} {item:?}");
    }
}

#[test]
fn whom_a_bundle_is_about() {
    let live = |status| Live {
        digest: None,
        generation: 1,
        observed_generation: 1,
        replicas: None,
        status: WorkloadStatus::simple(status),
    };
    let lives = |down: &[&str]| -> BTreeMap<ItemId, Live> {
        let status = |name: &str| match name {
            _ if down.contains(&name) => Status::Failed,
            "later" => Status::NotFound,
            _ => Status::Current,
        };
        let mut lives: BTreeMap<_, _> = ["api", "db", "web"]
            .map(|name| (ItemId::workload(name), live(status(name))))
            .into_iter()
            .collect();
        for (kind, name) in [(ItemKind::Store, "pg"), (ItemKind::Migration, "later")] {
            lives.insert(ItemId::new(kind, name), live(status(name)));
        }
        lives
    };
    for (error, action, down, about) in [
        (terminal("api"), apply(), &["web"][..], "workload/api"),
        (deadline(), apply(), &["web", "db"], "workload/db workload/web"),
        (deadline(), apply(), &["pg"], "store/pg"),
        (deadline(), apply(), &[], "workload/api"),
        (gate("api each replica"), health(), &[], "workload/api"),
        (gate("api through the gateway"), health(), &["web"], "workload/api workload/web"),
        // A path or a KPI is nobody's: the whole system is looked at.
        (gate("/api/health"), health(), &[], "workload/api workload/db workload/web"),
        (gate("latency"), health(), &["db"], "workload/db"),
        (gate("all"), load(), &[], "workload/api workload/db workload/web"),
        (store(), migrate(), &[], "migration/api workload/api"),
        (target(), apply(), &["web"], "workload/api"),
        (target(), health(), &["web"], ""),
    ] {
        let kind = Kind::of(&error, &action).unwrap();
        let (subjects, named) = kind.subjects(&error, &action, &lives(down));
        assert_eq!(named, about.split(' ').count() < 3, "{error:?} with {down:?} down");
        let told: Vec<String> = subjects.iter().map(ToString::to_string).collect();
        assert_eq!(told.join(" "), about, "{error:?} with {down:?} down");
    }
}

#[test]
fn a_piece_is_bounded_and_says_what_was_cut() {
    let lines = |count: usize, length: usize| -> Vec<String> {
        (0..count).map(|n| format!("{n:0length$}")).collect()
    };
    let (kept, cut) = bounded(Sort::Log, lines(5, 10));
    assert_eq!((kept, cut), (lines(5, 10), None));
    let (kept, cut) = bounded(Sort::Log, lines(1_000, 99));
    assert_eq!((kept.len(), cut.as_deref()), (327, Some("673 earlier lines are left out")));
    assert_eq!(kept.last(), lines(1_000, 99).last(), "the last words of a log stay");
    let (kept, cut) = bounded(Sort::Plan, lines(1_000, 99));
    assert_eq!((kept.len(), cut.as_deref()), (327, Some("673 later lines are left out")));
    assert_eq!(kept.first(), lines(1_000, 99).first(), "of a plan its beginning");
    let long = vec!["é".repeat(5_000)];
    let (kept, cut) = bounded(Sort::Log, long);
    assert!(kept[0].ends_with("é (and 6000 more bytes)"), "{}", kept[0]);
    assert_eq!(cut.as_deref(), Some("1 lines are shortened"));
    assert!(bounded(Sort::Log, Vec::new()).0.is_empty());
}
