//! Why a plan was refused.

use crate::item::ItemId;

/// A plan that cannot be made. Nothing has been changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// A selected phase stands on one that was left out and is not there.
    #[error("plan phase {phase}: phase {missing} is not in place: {}", list(items))]
    EarlierPhase {
        /// The phase asked for.
        phase: String,
        /// The phase it stands on.
        missing: String,
        /// Items of it with their status.
        items: Vec<(ItemId, String)>,
    },
    /// No phase has that name or number.
    #[error("plan phase {asked}: no such phase; the playbook has {}", known.join(", "))]
    NoSuchPhase {
        /// What was asked.
        asked: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A step names a service, profile or step that the system does not have.
    #[error("plan step {step}: {reason}")]
    BadStep {
        /// The step.
        step: String,
        /// Why.
        reason: String,
    },
    /// Items need each other in a circle.
    #[error("plan the order of {}: they need each other", items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Cycle {
        /// The items of the circle.
        items: Vec<ItemId>,
    },
    /// What runs is not the release that is to be verified.
    #[error("plan the verification of release {release}: something else runs: {}", list(items))]
    Mixed {
        /// The release.
        release: u32,
        /// The items with what is wrong about each.
        items: Vec<(ItemId, String)>,
    },
    /// The rollback would change nothing.
    #[error("plan a rollback to release {release}: it is what runs now")]
    AlreadyThere {
        /// The release.
        release: u32,
    },
    /// There is no verified release to go back to by itself.
    #[error("plan a rollback: {}", nothing_verified(*head, *restores))]
    NothingVerified {
        /// The release that runs.
        head: Option<u32>,
        /// The release that it is a rollback of.
        restores: Option<u32>,
    },
    /// Some services cannot go back to other stores than the rest.
    #[error(
        "plan a rollback of single services to release {release}: it runs on {stores} stores, and the others would not"
    )]
    OtherStores {
        /// The release.
        release: u32,
        /// How it has its stores.
        stores: &'static str,
    },
    /// There is no such release.
    #[error(
        "plan a rollback to release {release}: the target keeps no such release ({})",
        kept(kept_numbers)
    )]
    NoSuchRelease {
        /// What was asked.
        release: u32,
        /// What there is.
        kept_numbers: Vec<u32>,
    },
    /// There is no such service.
    #[error("plan for service {name}: no such service; there are {}", known.join(", "))]
    NoSuchService {
        /// What was asked.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Nothing runs, and no release is kept.
    #[error("plan for service {name}: nothing is deployed")]
    NothingDeployed {
        /// The service.
        name: String,
    },
    /// The service is in the release, and stopped.
    #[error("plan for service {name}: it does not run")]
    NotRunning {
        /// The service.
        name: String,
    },
    /// A scale beyond what mlctl.yaml allows.
    #[error("plan {replicas} replicas of {service}: outside {min} to {max} (replicas in mlctl.yaml)")]
    OutOfRange {
        /// The service.
        service: String,
        /// What was asked.
        replicas: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
}

fn list(items: &[(ItemId, String)]) -> String {
    items.iter().map(|(id, status)| format!("{id} is {status}")).collect::<Vec<_>>().join(", ")
}

fn nothing_verified(head: Option<u32>, restores: Option<u32>) -> String {
    match (head, restores) {
        (Some(head), Some(restored)) => format!(
            "release {head} restores release {restored}, and none before that passed verification; later ones were \
             rolled away from"
        ),
        (Some(head), None) => format!("no release before {head}, which runs, passed verification"),
        (None, _) => "no release passed verification".to_owned(),
    }
}

fn kept(numbers: &[u32]) -> String {
    if numbers.is_empty() {
        return "it keeps none".to_owned();
    }
    format!(
        "it keeps the last ten and those that are needed: {}",
        numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )
}
