//! Release: an immutable, numbered set of what should run, with what became of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::item::{Desired, Digest};

/// Who acts: the CI actor, or the user of the operating system and the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// User or CI actor.
    pub name: String,
    /// Host the command ran on.
    pub host: String,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.host)
    }
}

/// What became of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseState {
    /// Its deploy has begun and not ended.
    Pending,
    /// It runs, or ran, and no verification has passed.
    Unverified,
    /// It passed the verification phase: a rollback may go there.
    Verified,
    /// Its deploy or its verification failed.
    Failed,
}

impl ReleaseState {
    /// Returns the word people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Unverified => "unverified",
            Self::Verified => "verified",
            Self::Failed => "failed",
        }
    }
}

/// A release as the target keeps it. Only `state` and `note` change after it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Our own number, from 1, never reused.
    pub number: u32,
    /// A name given by `--release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The system it belongs to.
    pub system: String,
    /// When its deploy began.
    pub created_at: jiff::Timestamp,
    /// Who deployed it.
    pub author: Operator,
    /// The run that made it.
    pub run: String,
    /// What became of it.
    pub state: ReleaseState,
    /// The release it restores, when it is a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u32>,
    /// One line on why it failed or what was done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What should run, complete: a rollback reads this and never today's files.
    pub desired: Desired,
}

impl Release {
    /// Returns the few facts a snapshot carries.
    #[must_use]
    pub fn head(&self) -> ReleaseHead {
        ReleaseHead {
            number: self.number,
            tag: self.tag.clone(),
            state: self.state,
            digest: self.desired.digest(),
        }
    }
}

/// The release a target runs, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseHead {
    /// Its number.
    pub number: u32,
    /// Its name, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// What became of it.
    pub state: ReleaseState,
    /// Digest over its items.
    pub digest: Digest,
}

/// Returns the release that a rollback goes to when none is named.
///
/// A verified head that does not fully run (a deploy was stopped or cut off half-way) is itself the answer. Else it is
/// the newest verified release before the head whose applications differ from the head's; before what the head
/// restores, when the head is a rollback.
///
/// "The one before" is not enough: it may never have worked, and after a rollback it is the bad one
/// (kubectl's `rollout undo` takes it all the same).
#[must_use]
pub fn default_rollback_target<'a>(
    releases: &'a [Release],
    head: Option<&Release>,
    head_runs: bool,
) -> Option<&'a Release> {
    let find = |number: u32| releases.iter().find(|release| release.number == number);
    if let Some(head) = head.filter(|head| !head_runs && head.state == ReleaseState::Verified) {
        return find(head.number);
    }
    let mut before = head.map_or(u32::MAX, |head| head.number);
    let mut restored = head.and_then(|head| head.rollback_of);
    while let Some(number) = restored.filter(|number| *number < before) {
        before = number;
        restored = find(number).and_then(|release| release.rollback_of);
    }
    releases
        .iter()
        .filter(|release| release.state == ReleaseState::Verified && release.number < before)
        .filter(|release| head.is_none_or(|head| !release.desired.same_applications(&head.desired)))
        .max_by_key(|release| release.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Item, ItemId, Tier};

    fn release(number: u32, content: &str, state: ReleaseState, rollback_of: Option<u32>) -> Release {
        let item = Item {
            id: ItemId::workload("web"),
            tier: Tier::Applications,
            needs: Vec::new(),
            digest: Digest::of(content.as_bytes()),
            replicas: None,
            progress_deadline_ms: None,
            payload: serde_json::Value::Null,
        };
        Release {
            number,
            tag: None,
            system: "shop".into(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            author: Operator { name: "ana".into(), host: "desk".into() },
            run: "r".into(),
            state,
            rollback_of,
            note: None,
            desired: Desired { items: vec![item], ..Desired::default() },
        }
    }

    #[test]
    fn a_rollback_goes_to_what_worked_and_never_forward() {
        use ReleaseState::{Failed, Unverified, Verified};
        let kept = [
            release(1, "a", Verified, None),
            release(2, "b", Verified, None),
            release(3, "c", Failed, None),
            release(4, "b", Verified, None),
            release(5, "d", Unverified, None),
            release(6, "a", Verified, Some(1)),
            release(7, "b", Verified, Some(2)),
        ];
        for (head, runs, target) in [
            (None, true, Some(7)),
            (Some(1), true, None),
            (Some(1), false, Some(1)),
            (Some(2), true, Some(1)),
            (Some(4), true, Some(1)),
            (Some(4), false, Some(4)),
            (Some(5), true, Some(4)),
            (Some(5), false, Some(4)),
            (Some(6), true, None),
            (Some(7), true, Some(1)),
        ] {
            let head_release = head.and_then(|number| kept.iter().find(|release| release.number == number));
            let found = default_rollback_target(&kept, head_release, runs).map(|release| release.number);
            assert_eq!(found, target, "head {head:?}, runs {runs}");
        }
    }
}
