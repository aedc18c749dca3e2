//! The way back: a plan toward the last verified release, made together with the way forward.

use super::order::groups;
use super::{Fallback, Operand, Phase, PlanError, PlanInput, PlannedRelease, Step};
use crate::item::{Desired, Item, ItemId, ItemKind, Tier};
use crate::playbook::StepFailure;
use crate::ports::Write;
use crate::release::{Release, ReleaseState};
use crate::status::Status;
use crate::steps::Action;
use crate::steps::apply::Apply;

/// A comment at the top of a migration that says older releases cannot read what it leaves.
pub const BREAKS_OLDER: &str = "-- mlctl: breaks-older";
/// A comment at the top of a migration that says it cannot be undone.
pub const IRREVERSIBLE: &str = "-- mlctl: irreversible";

/// How a warning begins that says why there is no way back.
pub(super) const BARRED: &str = "no automatic rollback";

/// Returns the warning that says so.
pub(super) fn barred(why: &str) -> String {
    format!("{BARRED}: {why}; a failure stops")
}

/// Plans the way back for a release, and says why there is none where a person would expect one.
pub(super) fn plan(
    input: &PlanInput<'_>,
    release: Option<&PlannedRelease>,
    width: usize,
) -> Result<(Option<Fallback>, Vec<String>), PlanError> {
    let Some(release) = release else { return Ok((None, Vec::new())) };
    let head_verified = input.snapshot.head.as_ref().is_some_and(|h| h.state == ReleaseState::Verified);
    if !release.creates && head_verified {
        return Ok((None, Vec::new()));
    }
    let verified =
        input.releases.iter().filter(|r| r.state == ReleaseState::Verified && r.number != release.number);
    let Some(target) = verified.max_by_key(|r| r.number) else { return Ok((None, Vec::new())) };
    // On other stores the older release meets none of what the newer one's migrations leave.
    let same_stores = release.desired.stores == target.desired.stores;
    if let Some(migration) = crossed(&release.desired, &target.desired).filter(|_| same_stores) {
        let number = target.number;
        let why = format!("release {number} cannot read what migration {migration} leaves");
        return Ok((None, vec![barred(&why)]));
    }
    let phase = Phase {
        name: crate::run::ROLLBACK.to_owned(),
        title: format!("back to release {}", target.number),
        deadline_ms: None,
        steps: steps(input, &release.desired, target, width)?,
    };
    Ok((Some(Fallback { release: target.number, phase }), Vec::new()))
}

fn steps(
    input: &PlanInput<'_>,
    new: &Desired,
    target: &Release,
    width: usize,
) -> Result<Vec<Step>, PlanError> {
    let application = |item: &&Item| item.id.kind == ItemKind::Workload && item.tier == Tier::Applications;
    let old: Vec<&Item> = target.desired.items.iter().filter(application).collect();
    let mut steps = Vec::new();
    for group in groups(&old)? {
        let names: Vec<&str> = group.iter().map(|item| item.id.name.as_str()).collect();
        let put = |item: &&Item| Write::Put { item: (*item).clone(), replicas: input.replicas(item) };
        let changes = group.iter().map(|item| way_back(new, item)).collect();
        let id = format!("rollback:{}", names.join("+"));
        let title = format!("bring back {}", names.join(", "));
        steps.push(step(id, title, group.iter().map(put).collect(), changes, width));
    }
    let added = new.items.iter().filter(application).filter(|item| target.desired.get(&item.id).is_none());
    let added: Vec<ItemId> = added.map(|item| item.id.clone()).filter(|id| was_missing(input, id)).collect();
    if !added.is_empty() {
        let names: Vec<&str> = added.iter().map(|id| id.name.as_str()).collect();
        let title = format!("remove {}", names.join(", "));
        let gone = |id: &ItemId| super::Change {
            item: id.clone(),
            op: Operand::Delete,
            differences: Vec::new(),
            replicas: None,
        };
        let changes = added.iter().map(gone).collect();
        let writes = added.iter().map(|id| Write::Remove { id: id.clone() }).collect();
        steps.push(step("rollback:remove".to_owned(), title, writes, changes, width));
    }
    Ok(steps)
}

/// Returns what going back does to an item, as seen from where the way forward leads.
fn way_back(new: &Desired, old: &Item) -> super::Change {
    let op = match new.get(&old.id) {
        None => Operand::Create,
        Some(item) if item.digest == old.digest => Operand::Keep,
        Some(_) => Operand::Update,
    };
    super::Change { item: old.id.clone(), op, differences: Vec::new(), replicas: None }
}

/// Only what this run brings is taken away again.
fn was_missing(input: &PlanInput<'_>, id: &ItemId) -> bool {
    input.snapshot.get(id).status.status == Status::NotFound
}

fn step(id: String, title: String, writes: Vec<Write>, changes: Vec<super::Change>, width: usize) -> Step {
    Step {
        id,
        title,
        // Everything goes back at once: each item was proven in this very revision.
        action: Action::Apply(Apply {
            width: writes.len().max(width),
            writes,
            rewrite: Vec::new(),
            stable_for_ms: 0,
        }),
        changes,
        timeout_ms: None,
        retries: 3,
        on_failure: StepFailure::Stop,
        skip: None,
    }
}

/// Returns the first migration of `new` that `old` lacks and could not live with.
fn crossed(new: &Desired, old: &Desired) -> Option<String> {
    let migrations = new.items.iter().filter(|item| item.id.kind == ItemKind::Migration);
    migrations.flat_map(|item| breaking(item).into_iter().map(move |m| (&item.id, m))).find_map(
        |(id, (version, name))| {
            let known = old.get(id).is_some_and(|item| versions(item).contains(&version));
            (!known).then(|| format!("{version:04}_{name} of {}", id.name))
        },
    )
}

fn files(item: &Item) -> Vec<crate::ports::MigrationFile> {
    let files = item.payload.get("files").cloned().unwrap_or_default();
    serde_json::from_value(files).unwrap_or_default()
}

fn versions(item: &Item) -> Vec<u32> {
    files(item).iter().map(|file| file.version).collect()
}

fn breaking(item: &Item) -> Vec<(u32, String)> {
    let marked =
        |text: &str| text.lines().map(str::trim).any(|line| [BREAKS_OLDER, IRREVERSIBLE].contains(&line));
    files(item).into_iter().filter(|file| marked(&file.up)).map(|file| (file.version, file.name)).collect()
}
