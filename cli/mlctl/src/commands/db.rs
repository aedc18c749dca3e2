//! `mlctl db`: migrations of the running release on the stores they belong to.

use clap::{Args, Subcommand};
use mlctl_core::item::{Item, ItemKind};
use mlctl_core::ports::{Lease, MigrationState};
use serde::Serialize;

use super::ActArgs;
use crate::conduct::Conduct;
use crate::error::{CommandError, ExitStatus};
use crate::output::{Printer, Style, Table, confirm};
use crate::session::Session;
use crate::settings::Settings;

/// Work with the stores: migrations
#[derive(Debug, Args)]
pub(crate) struct DbArgs {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// List migrations and whether they are in; ends with 10 when some are pending
    Status {
        /// Only this service
        service: Option<String>,
    },
    /// Apply what is pending
    Migrate {
        /// Only this service
        service: Option<String>,
        #[command(flatten)]
        how: ActArgs,
    },
    /// Take the last migrations of a service back
    Rollback {
        /// The service
        service: String,
        /// How many
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
        #[command(flatten)]
        how: ActArgs,
    },
}

pub(super) async fn run(
    args: &DbArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    match &args.act {
        Act::Status { service } => status(&session, printer, service.as_deref()).await,
        Act::Migrate { service, how } => {
            let service = service.as_deref();
            if how.dry_run {
                return migrate(&session, printer, service, None).await;
            }
            let conduct = Conduct::new(&session, settings, printer, how.lock.wait())?;
            let work = async |lease: &dyn Lease| migrate(&session, printer, service, Some(lease)).await;
            conduct.with_lease("db migrate", work).await
        }
        Act::Rollback { service, steps, how } => {
            let conduct = Conduct::new(&session, settings, printer, how.lock.wait())?;
            roll_back(&conduct, service, *steps, how.dry_run).await
        }
    }
}

/// Returns the migration items of the running release.
async fn items(session: &Session, service: Option<&str>) -> Result<Vec<Item>, CommandError> {
    let snapshot = session.observe().await?;
    let (_, head) = session.releases(&snapshot).await?;
    let head = head.ok_or_else(|| {
        CommandError::refused("read the migrations: no release runs here yet").hint("mlctl deploy")
    })?;
    let migrations = head.desired.items.into_iter().filter(|item| item.id.kind == ItemKind::Migration);
    let items: Vec<Item> =
        migrations.filter(|item| service.is_none_or(|name| item.id.name == name)).collect();
    if items.is_empty() {
        let what = service.map_or_else(|| "the release".to_owned(), |name| format!("service {name}"));
        return Err(CommandError::new(ExitStatus::NotFound, format!("read the migrations: {what} has none")));
    }
    Ok(items)
}

async fn status(
    session: &Session,
    printer: &Printer,
    service: Option<&str>,
) -> Result<ExitStatus, CommandError> {
    let mut states: Vec<MigrationState> = Vec::new();
    if service.is_none() && session.system.services.values().all(|service| service.migrations.is_none()) {
        if printer.is_json() {
            printer.json(&states);
        } else {
            printer.data("no service of the system has migrations");
        }
        return Ok(ExitStatus::Done);
    }
    for item in items(session, service).await? {
        states.extend(session.target.stores.migrations(&item).await?);
    }
    if printer.is_json() {
        printer.json(&states);
    } else {
        let mut table = Table::new(&["SERVICE", "MIGRATION", "APPLIED"]);
        for state in &states {
            let (text, style) = match (state.applied_at, state.changed) {
                (Some(at), false) => (at.strftime("%Y-%m-%d %H:%M:%S").to_string(), Style::Good),
                (Some(at), true) => (format!("{at}, but its file has changed since"), Style::Bad),
                (None, _) => ("pending".to_owned(), Style::Warn),
            };
            table.row([(state.service.clone(), None), (name(state), None), (text, Some(style))]);
        }
        printer.table(&table);
    }
    let pending = states.iter().any(|state| state.applied_at.is_none() || state.changed);
    Ok(if pending { ExitStatus::Pending } else { ExitStatus::Done })
}

/// What became of the migrations of one service.
#[derive(Debug, Serialize)]
struct Told {
    service: String,
    migrations: Vec<String>,
    /// `applied` or `took back`; `would apply` or `would take back` in a dry run.
    done: &'static str,
}

fn tell(printer: &Printer, told: &[Told]) {
    if printer.is_json() {
        printer.json(&told);
        return;
    }
    for Told { service, migrations, done } in told {
        if migrations.is_empty() {
            printer.data(&format!("{service}: every migration is in"));
        } else {
            printer.data(&format!("{service}: {done} {}", migrations.join(", ")));
        }
    }
}

fn name(state: &MigrationState) -> String {
    format!("{:04}_{}", state.version, state.name)
}

async fn migrate(
    session: &Session,
    printer: &Printer,
    service: Option<&str>,
    lease: Option<&dyn Lease>,
) -> Result<ExitStatus, CommandError> {
    let mut told = Vec::new();
    for item in items(session, service).await? {
        let states = session.target.stores.migrations(&item).await?;
        let pending = states.iter().filter(|state| state.applied_at.is_none());
        let migrations: Vec<String> = pending.map(name).collect();
        if let Some(lease) = lease.filter(|_| !migrations.is_empty()) {
            session.target.stores.migrate(&item, lease).await?;
        }
        let done = if lease.is_none() { "would apply" } else { "applied" };
        told.push(Told { service: item.id.name.clone(), migrations, done });
    }
    tell(printer, &told);
    Ok(ExitStatus::Done)
}

async fn roll_back(
    conduct: &Conduct<'_>,
    service: &str,
    steps: u32,
    dry_run: bool,
) -> Result<ExitStatus, CommandError> {
    let Conduct { session, settings, printer, .. } = conduct;
    let mut told = Vec::new();
    for item in items(session, Some(service)).await? {
        let migrations = last(session, &item, steps).await?;
        if migrations.is_empty() {
            return Err(CommandError::refused(format!("roll back migrations of {service}: none is applied")));
        }
        if !dry_run {
            let question = format!("take back {} of {service}, with the data in it?", migrations.join(", "));
            conduct.unless_asked("db rollback", confirm(settings, printer, &question)).await?;
            let work = async |lease: &dyn Lease| {
                // Asked about without the lease: nobody else has to wait for an answer.
                if last(session, &item, steps).await? != migrations {
                    let text = format!("roll back migrations of {service}: others are applied by now");
                    return Err(CommandError::refused(text).hint("`mlctl db status` shows them; try again"));
                }
                Ok(session.target.stores.roll_back(&item, steps, lease).await?)
            };
            conduct.with_lease("db rollback", work).await?;
        }
        let done = if dry_run { "would take back" } else { "took back" };
        told.push(Told { service: service.to_owned(), migrations, done });
    }
    tell(printer, &told);
    Ok(ExitStatus::Done)
}

/// Returns the migrations applied last, the newest first.
async fn last(session: &Session, item: &Item, steps: u32) -> Result<Vec<String>, CommandError> {
    let states = session.target.stores.migrations(item).await?;
    let applied = states.iter().rev().filter(|state| state.applied_at.is_some());
    Ok(applied.take(steps as usize).map(name).collect())
}
