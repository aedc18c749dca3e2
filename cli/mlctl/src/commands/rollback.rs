//! `mlctl rollback`: makes the target run an earlier release.

use std::path::PathBuf;

use clap::Args;
use mlctl_core::item::ItemId;
use mlctl_core::plan::{Operation, Plan, PlanError, PlanInput, Selection, plan, rollback_desired};
use mlctl_core::playbook::{self, Action, AllWord, Apply, Class, ItemKind, Migrate, Order, Step};
use mlctl_core::release::{Release, ReleaseState, default_rollback_target};
use mlctl_core::status::Status;
use mlctl_core::system::ServicePhase;
use mlctl_core::system::units::TimeSpan;

use super::{LockArgs, prepare};
use crate::conduct::Conduct;
use crate::error::{CommandError, ExitStatus};
use crate::output::Printer;
use crate::session::{self, Session};
use crate::settings::Settings;

/// Go back to the last release that passed verification, or to one by number
///
/// A rollback is a plan toward an earlier release, recorded as a new one and verified like any other. Configuration
/// comes from that release; secrets keep today's values.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// Only these services; all of the release when none is named
    services: Vec<String>,
    /// The release to go to
    #[arg(long, value_name = "N")]
    to_revision: Option<u32>,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: end with 10 when there is something to do
    #[arg(long, requires = "dry_run")]
    exit_code: bool,
    /// With --dry-run: save the plan
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    out: Option<PathBuf>,
    /// Take infrastructure back too
    #[arg(long)]
    include_infra: bool,
    /// Bring back that release's secret values too
    #[arg(long)]
    with_secrets: bool,
    #[command(flatten)]
    lock: LockArgs,
}

pub(super) async fn run(
    args: RollbackArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    if args.with_secrets {
        return Err(CommandError::not_yet("bringing back old secret values (--with-secrets)"));
    }
    let session = Session::open(settings, printer).await?;
    // A dry run waits for nobody.
    let conduct = Conduct::new(&session, settings, printer, args.lock.wait().filter(|_| !args.dry_run))?;
    let work = async {
        let plan = conduct.unless_asked("rollback", make_plan(&args, &session, settings, printer)).await?;
        if args.dry_run {
            return prepare::finish_dry_run(printer, &plan, args.out.as_deref(), args.exit_code);
        }
        prepare::ask(&conduct, &plan).await?;
        conduct.carry_out(&plan).await
    };
    conduct.in_line("rollback", work).await
}

async fn make_plan(
    args: &RollbackArgs,
    session: &Session,
    settings: &Settings,
    printer: &Printer,
) -> Result<Plan, CommandError> {
    let snapshot = session.observe().await?;
    for name in &args.services {
        if snapshot.get(&ItemId::workload(name)).status.status == Status::NotFound {
            session.known_service("roll back", name)?;
        }
    }
    let (releases, head) = session.releases(&snapshot).await?;
    let head_runs = head.as_ref().is_none_or(|head| snapshot.strays(&head.desired).is_empty());
    let target = choose(args.to_revision, &releases, head.as_ref(), head_runs)?;
    let desired = rollback_desired(head.as_ref(), target, &args.services, args.include_infra, head_runs)?;
    let mut playbook = session::playbook(settings, printer, &session.system, "rollback")?;
    let other_stores = prepare::other_stores(head.as_ref(), &desired);
    if let Some(phase) = playbook.phases.first_mut().filter(|_| other_stores.is_some()) {
        phase.steps.splice(0..0, stores_steps());
    }
    let operation = Operation {
        verb: "rollback".to_owned(),
        tag: None,
        rollback_of: Some(target.number),
        on_failure: None,
    };
    let previews = prepare::previews(session, &desired, &snapshot).await?;
    let unproven = (target.state != ReleaseState::Verified).then(|| {
        format!("release {} did not pass verification: it is {}", target.number, target.state.word())
    });
    let mut made = plan(&PlanInput {
        operation: &operation,
        target: &session.target.name,
        system: &session.system,
        playbook: &playbook,
        desired: &desired,
        snapshot: &snapshot,
        previews: &previews,
        releases: &releases,
        next_number: session.target.releases.next_number().await?,
        selection: &Selection::All,
    })?;
    made.warnings.extend(unproven.into_iter().chain(other_stores));
    prepare::prove_way_back(session, &mut made).await?;
    Ok(made)
}

/// The steps that come first when the earlier release has its stores elsewhere: its services stand on them, and find
/// there what the migrations of that release made.
fn stores_steps() -> [Step; 2] {
    let step = |id: &str, action| Step {
        id: id.to_owned(),
        action,
        class: Class::Change,
        verify: None,
        on_failure: None,
        timeout: None,
        retries: 2,
    };
    let apply = Apply {
        items: vec![ItemKind::Secrets, ItemKind::Stores],
        phase: ServicePhase::Infrastructure,
        order: Order::Needs,
        width: 4,
        stable_for: TimeSpan::from_secs(1),
        deadline: Some(TimeSpan::from_secs(300)),
    };
    let migrate = Migrate { services: playbook::Selection::All(AllWord::All) };
    [step("stores", Action::Apply(apply)), step("migrate", Action::Migrate(migrate))]
}

/// Chooses the release to go to; the head itself is refused where it runs as it should.
fn choose<'a>(
    asked: Option<u32>,
    releases: &'a [Release],
    head: Option<&Release>,
    head_runs: bool,
) -> Result<&'a Release, PlanError> {
    let Some(number) = asked else {
        return default_rollback_target(releases, head, head_runs).ok_or_else(|| {
            PlanError::NothingVerified {
                head: head.map(|head| head.number),
                restores: head.and_then(|head| head.rollback_of),
            }
        });
    };
    if head_runs && head.is_some_and(|head| head.number == number) {
        return Err(PlanError::AlreadyThere { release: number });
    }
    releases.iter().find(|release| release.number == number).ok_or_else(|| PlanError::NoSuchRelease {
        release: number,
        kept_numbers: releases.iter().map(|release| release.number).collect(),
    })
}
