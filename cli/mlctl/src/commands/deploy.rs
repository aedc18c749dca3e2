//! `mlctl deploy`: makes the target run what mlctl.yaml says, in phases.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mlctl_core::plan::{Operation, Plan, PlanInput, Selection, plan};
use mlctl_core::playbook::OnFailure;
use mlctl_core::ports::{Artifact, BuildLine, Builder as _, MigrationFile, ReleaseInput, StoreMode};
use mlctl_core::release::{Release, ReleaseState};
use mlctl_core::system::System;
use mlctl_stores::Dialect;
use mlctl_stores::files::{dialect_folder, read};

use super::{LockArgs, known, prepare};
use crate::build_log::BuildLog;
use crate::conduct::Conduct;
use crate::error::{CommandError, ExitStatus};
use crate::output::report::duration;
use crate::output::text::{shortened, strip_control};
use crate::output::{Printer, Style, report};
use crate::session::{Session, playbook};
use crate::settings::Settings;
use crate::store::unfinished;

/// Characters of a build's line that are shown while it runs.
const BUILD_LINE: usize = 160;

/// Deploy the system in phases: infrastructure, applications, verification
///
/// Builds what is stale, plans, shows the plan, and carries it out. A failed application phase or verification goes
/// back to the last release that passed verification. Running it again changes nothing.
#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// Only this phase, by name or number; may be repeated
    #[arg(long = "phase", value_name = "N|NAME")]
    phases: Vec<String>,
    /// Where the stores come from; as in the release that runs when left away, at first embedded
    #[arg(long, value_enum)]
    stores: Option<StoresFrom>,
    /// A name for the release
    #[arg(long, value_name = "TAG")]
    release: Option<String>,
    /// Another image for a service (clusters)
    #[arg(long, value_name = "SVC=REF")]
    set_image: Vec<String>,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: end with 10 when there is something to do
    #[arg(long, requires = "dry_run")]
    exit_code: bool,
    /// With --dry-run: save the plan
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    out: Option<PathBuf>,
    /// Run a saved plan; refused when the world has moved since
    #[arg(long, value_name = "FILE", conflicts_with_all = ["phases", "dry_run", "release", "set_image", "on_failure", "stores"])]
    plan: Option<PathBuf>,
    /// Carry on the run that was interrupted or killed
    #[arg(long, conflicts_with_all = ["phases", "dry_run", "plan", "release", "set_image", "on_failure", "stores"])]
    resume: bool,
    /// What a failure leads to
    #[arg(long, value_enum)]
    on_failure: Option<FailurePolicy>,
    #[command(flatten)]
    lock: LockArgs,
}

/// Where the stores come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoresFrom {
    /// The embedded adapters of the services
    Embedded,
    /// PostgreSQL and Redis found on the machine, started under supervision
    Real,
}

impl From<StoresFrom> for StoreMode {
    fn from(from: StoresFrom) -> Self {
        match from {
            StoresFrom::Embedded => Self::Embedded,
            StoresFrom::Real => Self::Real,
        }
    }
}

/// What a failure leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailurePolicy {
    /// Back to the last verified release
    Rollback,
    /// Everything stays as it is
    Stop,
}

pub(super) async fn run(
    args: DeployArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    let images = images(&args.set_image, &session)?;
    // A dry run waits for nobody.
    let conduct = Conduct::new(&session, settings, printer, args.lock.wait().filter(|_| !args.dry_run))?;
    conduct.in_line("deploy", deploy(&args, images, &conduct)).await
}

async fn deploy(
    args: &DeployArgs,
    images: BTreeMap<String, String>,
    conduct: &Conduct<'_>,
) -> Result<ExitStatus, CommandError> {
    let Conduct { session, settings, printer, .. } = conduct;
    if args.resume {
        let kept = unfinished(session.target.mirror.as_ref(), &["deploy", "rollback"]).await?;
        return conduct.resume(&kept).await;
    }
    if let Some(path) = &args.plan {
        let plan = prepare::load(path)?;
        let here = (session.system.name.as_str(), session.target.name.as_str());
        if (plan.system.as_str(), plan.target.as_str()) != here {
            let text =
                format!("run the plan {}: it is for {} on {}", path.display(), plan.system, plan.target);
            return Err(CommandError::refused(text).hint(format!("this is {} on {}", here.0, here.1)));
        }
        prepare::ask(conduct, &plan).await?;
        return conduct.carry_out(&plan).await;
    }
    let make = make_plan(args, images, session, settings, printer);
    let plan = conduct.unless_asked("deploy", make).await?;
    if let Some(tag) = args.release.as_ref().filter(|_| !plan.release.as_ref().is_some_and(|r| r.creates)) {
        printer.warning(&format!("the tag {tag} is not used: no release is made"));
    }
    if args.dry_run {
        return prepare::finish_dry_run(printer, &plan, args.out.as_deref(), args.exit_code);
    }
    if plan.is_empty() {
        plan.warnings.iter().for_each(|text| printer.warning(text));
        return Ok(nothing_to_do(settings, printer, &plan));
    }
    prepare::ask(conduct, &plan).await?;
    conduct.carry_out(&plan).await
}

fn nothing_to_do(settings: &Settings, printer: &Printer, plan: &Plan) -> ExitStatus {
    if printer.is_json() {
        report::nothing_to_do(printer, &settings.operator, plan);
        return ExitStatus::Done;
    }
    let what = match plan.from {
        None => "no release runs yet".to_owned(),
        Some(number) if plan.from_verified => format!("release {number} runs and is verified"),
        Some(number) => {
            format!("release {number} runs, not verified yet (mlctl deploy --phase verification)")
        }
    };
    printer.data(&format!("{} on {}: nothing to change, {what}", plan.system, plan.target));
    ExitStatus::Done
}

async fn make_plan(
    args: &DeployArgs,
    images: BTreeMap<String, String>,
    session: &Session,
    settings: &Settings,
    printer: &Printer,
) -> Result<Plan, CommandError> {
    let system = &session.system;
    let playbook = playbook(settings, printer, system, "deploy")?;
    let head = session.releases(&session.observe().await?).await?.1;
    let stores = stores_of(args.stores, head.as_ref());
    if let (StoreMode::Real, Some(local)) = (stores, &session.target.local) {
        // Before the build: it takes longer than anybody likes to wait for a no.
        local.check_servers(system).await?;
    }
    let input = ReleaseInput {
        migrations: migrations(system, settings, stores)?,
        artifacts: build(system, settings, printer).await?,
        images,
        stores,
    };
    let desired = session.target.orchestrator.resolve(system, &input).await?;
    let snapshot = session.observe().await?;
    let operation = Operation {
        verb: "deploy".to_owned(),
        tag: args.release.clone(),
        rollback_of: None,
        on_failure: args.on_failure.map(|policy| match policy {
            FailurePolicy::Rollback => OnFailure::Rollback,
            FailurePolicy::Stop => OnFailure::Stop,
        }),
    };
    let selection =
        if args.phases.is_empty() { Selection::All } else { Selection::Phases(args.phases.clone()) };
    let (releases, _) = session.releases(&snapshot).await?;
    let at_work = session.target.orchestrator.lock_holder().await?.map(|holder| holder.request.run);
    let cut_off = |r: &Release| r.state == ReleaseState::Pending && Some(&r.run) != at_work.as_ref();
    if releases.iter().any(cut_off) {
        let text =
            "an earlier run on this target was cut off; `mlctl deploy --resume` would carry it on instead";
        printer.warning(text);
    }
    let previews = prepare::previews(session, &desired, &snapshot).await?;
    let mut plan = plan(&PlanInput {
        operation: &operation,
        target: &session.target.name,
        system,
        playbook: &playbook,
        desired: &desired,
        snapshot: &snapshot,
        previews: &previews,
        releases: &releases,
        next_number: session.target.releases.next_number().await?,
        selection: &selection,
    })?;
    plan.warnings.extend(prepare::other_stores(head.as_ref(), &desired));
    prepare::prove_way_back(session, &mut plan).await?;
    Ok(plan)
}

/// Returns how the stores are to be had: as asked, else as the release that runs has them.
fn stores_of(asked: Option<StoresFrom>, head: Option<&Release>) -> StoreMode {
    let remembered = || head.map(|head| head.desired.stores).unwrap_or_default();
    asked.map_or_else(remembered, StoreMode::from)
}

/// Builds what is stale, with progress, before anything is planned.
async fn build(
    system: &System,
    settings: &Settings,
    printer: &Printer,
) -> Result<BTreeMap<String, Artifact>, CommandError> {
    let builder = mlctl_targets::build::ProcessBuilder::new(settings.system_folder());
    let services: Vec<String> = system.services.keys().cloned().collect();
    let quiet_until = std::sync::Mutex::new(None::<std::time::Instant>);
    let log = BuildLog::new(settings.state_folder().ok(), &system.name);
    let tell = |line: BuildLine| match line {
        BuildLine::Started { command, services } => {
            log.line(&format!("$ {command}"));
            let command = printer.err_styles().paint(Style::Dim, &command);
            printer.status(&format!("building {}: {command}", services.join(", ")));
        }
        BuildLine::Output(text) => {
            log.line(&text);
            if printer.is_verbose() {
                return printer.detail(&strip_control(&text));
            }
            // A build says a line a crate; one a second is enough to see that it moves.
            let mut until = quiet_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let now = std::time::Instant::now();
            if until.is_none_or(|until| now >= until) {
                *until = Some(now + std::time::Duration::from_secs(1));
                let text = shortened(text.trim(), BUILD_LINE);
                printer.status(&printer.err_styles().paint(Style::Dim, &format!("  {text}")));
            }
        }
        BuildLine::Finished { took } => {
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            printer.status(&format!("built in {}", duration(ms)));
        }
    };
    let built = builder.build(system, &services, &tell).await;
    let kept = log.end(built.is_err());
    built.map_err(|error| {
        let whole = kept.filter(|_| !error.tail.is_empty());
        let error = CommandError::from(error);
        match whole {
            Some(path) => error.hint(format!("all that the build printed is in {}", path.display())),
            None => error,
        }
    })
}

/// Reads the migrations of every service that names a folder.
fn migrations(
    system: &System,
    settings: &Settings,
    stores: StoreMode,
) -> Result<BTreeMap<String, Vec<MigrationFile>>, CommandError> {
    let (dialect, other) = match stores {
        StoreMode::Embedded => (Dialect::Sqlite, Dialect::Postgres),
        StoreMode::Real => (Dialect::Postgres, Dialect::Sqlite),
    };
    let mut migrations = BTreeMap::new();
    for (name, service) in &system.services {
        let Some(folder) = &service.migrations else { continue };
        let base = settings.system_folder().join(folder);
        let folder = dialect_folder(&base, dialect);
        if folder == base && base.join(other.folder()).is_dir() {
            let (there, lacking, word) = (other.folder(), dialect.folder(), stores.word());
            let text =
                format!("service {name}: {} has {there} migrations and no folder {lacking}", base.display());
            let hint = format!("write them there, or deploy without `--stores {word}`");
            return Err(CommandError::new(ExitStatus::InvalidInput, text).hint(hint));
        }
        let files = read(&folder).map_err(|error| {
            let mut edge = CommandError::from(error);
            edge.text = format!("service {name}: {}", edge.text);
            edge
        })?;
        migrations.insert(name.clone(), files);
    }
    Ok(migrations)
}

/// Reads `--set-image`, for a service that there is, on a target that runs images.
fn images(pairs: &[String], session: &Session) -> Result<BTreeMap<String, String>, CommandError> {
    let split = |pair: &String| {
        let (service, image) = pair.split_once('=').ok_or_else(|| {
            CommandError::new(ExitStatus::Usage, format!("--set-image {pair}: expected SERVICE=IMAGE"))
        })?;
        let services = &session.system.services;
        if !services.contains_key(service) {
            let text = format!("--set-image {pair}: no such service");
            return Err(
                CommandError::new(ExitStatus::NotFound, text).hint(known("mlctl.yaml", services.keys()))
            );
        }
        if session.target.local.is_some() {
            return Err(CommandError::refused(format!(
                "--set-image {pair}: target {} runs processes, not images",
                session.target.name
            ))
            .hint("it runs what the `build` or `command` of the service in mlctl.yaml says"));
        }
        Ok((service.to_owned(), image.to_owned()))
    };
    pairs.iter().map(split).collect()
}
