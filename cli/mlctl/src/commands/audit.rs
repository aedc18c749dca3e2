//! `mlctl audit`: whether the journals still say what was written, and all of them as one stream.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use mlctl_core::clock::{Clock as _, SystemClock};
use mlctl_core::ports::{ErrorKind, Lease, RunMirror};
use mlctl_core::run::audit::{Finding, Level, Place, Repair, compare};
use mlctl_core::run::journal::{self, Findings};
use mlctl_core::run::retention;

use super::{LockArgs, runs};
use crate::conduct::Conduct;
use crate::error::{CommandError, ExitStatus};
use crate::output::{Printer, Style};
use crate::session::Session;
use crate::settings::Settings;
use crate::store::inspect_file;

/// Check the journals of all runs, or print them
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Check each journal's chain on the target and at home, and compare the two
    Verify {
        /// The run, or the beginning of its id; all when none is named
        run: Option<String>,
        /// Drop torn tails, and complete the shorter copy from the longer one; no whole record is changed
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        lock: LockArgs,
    },
    /// Print the journals on the target, one record a line
    Export {
        /// The run, or the beginning of its id; all when none is named
        run: Option<String>,
    },
}

pub(super) async fn run(
    args: &AuditArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    match &args.act {
        Act::Export { run } => export(&session, printer, run.as_deref()).await,
        Act::Verify { run, repair: false, .. } => {
            Ok(verify(&session, run.as_deref(), false).await?.tell(printer))
        }
        Act::Verify { run, lock, .. } => {
            let conduct = Conduct::new(&session, settings, printer, lock.wait())?;
            let repair = async |_: &dyn Lease| verify(&session, run.as_deref(), true).await;
            Ok(conduct.with_lease("audit repair", repair).await?.tell(printer))
        }
    }
}

/// What was found about all runs that were looked at.
#[derive(Default)]
struct Audit {
    runs: Vec<Looked>,
}

/// What was found about one run.
struct Looked {
    run: String,
    records: usize,
    at_work: bool,
    findings: Vec<(Finding, Mended)>,
}

/// What came of a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mended {
    NotTried,
    Done,
    Failed(String),
}

impl Audit {
    fn bad(&self) -> usize {
        let bad = |looked: &&Looked| {
            looked.findings.iter().any(|(finding, mended)| {
                (finding.level == Level::Bad && *mended != Mended::Done)
                    || matches!(mended, Mended::Failed(_))
            })
        };
        self.runs.iter().filter(bad).count()
    }

    fn tell(&self, printer: &Printer) -> ExitStatus {
        let bad = self.bad();
        if printer.is_json() {
            let runs: Vec<_> = self.runs.iter().map(Looked::json).collect();
            printer.json(&serde_json::json!({"checked": runs.len(), "broken": bad, "runs": runs}));
        } else {
            self.tell_people(printer, bad);
        }
        if bad == 0 { ExitStatus::Done } else { ExitStatus::GateFailed }
    }

    fn tell_people(&self, printer: &Printer, bad: usize) {
        let styles = printer.out_styles();
        let mut mendable = false;
        for looked in &self.runs {
            for (finding, mended) in &looked.findings {
                mendable |= finding.repair.is_some() && *mended == Mended::NotTried;
                let (style, word) = match (finding.level, mended) {
                    (_, Mended::Done) => (Style::Good, "repaired"),
                    (Level::Bad, _) | (_, Mended::Failed(_)) => (Style::Bad, "bad"),
                    (Level::Note, _) => (Style::Dim, "note"),
                };
                let line = finding.line.map(|line| format!(", line {line}")).unwrap_or_default();
                let seq = finding.seq.map(|seq| format!(" (record {seq})")).unwrap_or_default();
                let why = match mended {
                    Mended::Failed(reason) => format!("; not repaired: {reason}"),
                    _ => String::new(),
                };
                let (place, text) = (finding.place.words(), &finding.text);
                let word = styles.paint(style, word);
                printer.data(&format!("{word}: run {}, {place}{line}{seq}: {text}{why}", looked.run));
            }
        }
        let count = self.runs.len();
        let noun = if count == 1 { "journal" } else { "journals" };
        printer.data(&match bad {
            0 => format!("{count} {noun} checked: all hold together"),
            _ => format!("{count} {noun} checked: {bad} not as written"),
        });
        if mendable {
            printer.status("`mlctl audit verify --repair` drops torn tails and completes shorter copies");
        }
    }
}

impl Looked {
    fn json(&self) -> serde_json::Value {
        let finding = |(finding, mended): &(Finding, Mended)| {
            serde_json::json!({
                "copy": finding.place.word(), "line": finding.line, "seq": finding.seq, "what": finding.what,
                "text": finding.text, "level": match finding.level { Level::Bad => "bad", Level::Note => "note" },
                "repairable": finding.repair.is_some(), "repaired": *mended == Mended::Done,
            })
        };
        let findings: Vec<_> = self.findings.iter().map(finding).collect();
        serde_json::json!({
            "run": self.run, "records": self.records, "running": self.at_work, "findings": findings,
        })
    }
}

/// Looks at every run of both places, or at the one asked for.
async fn verify(session: &Session, asked: Option<&str>, repair: bool) -> Result<Audit, CommandError> {
    // Before anything is read: a run that ends meanwhile may be seen in the middle of its last record.
    let at_work = at_work(session, repair).await?;
    let mirror = session.target.mirror.as_ref();
    let mirrored = mirror.list().await?;
    let home = session.runs.names().map_err(|error| {
        CommandError::new(ExitStatus::Bug, format!("list the runs at home: {error}"))
            .hint("see that the state folder is readable ($MLCTL_STATE)")
    })?;
    let mut all: Vec<String> = mirrored.clone();
    let journals = home.iter().filter(|run| session.runs.journal_path(run).exists());
    all.extend(journals.filter(|run| retention::began(run).is_some()).cloned());
    all.sort_unstable();
    all.dedup();
    let wanted = match asked {
        None => all,
        Some(asked) => vec![runs::find(&all, "verify", asked)?.to_owned()],
    };
    let mut audit = Audit::default();
    for run in wanted {
        let expected = expected(&run, &mirrored, SystemClock.now());
        let at_work = at_work.as_deref() == Some(&*run);
        let mut looked = look(session, &run, expected, at_work, repair).await?;
        if !repair && !at_work && looked.findings.iter().any(|(finding, _)| finding.is_of_both()) {
            // One that began since wrote between the two reads; it may have ended by now.
            let at_work = self::at_work(session, repair).await?.as_deref() == Some(&*run);
            looked = look(session, &run, expected, at_work, repair).await?;
        }
        audit.runs.push(looked);
    }
    Ok(audit)
}

/// Returns the run that holds the lock; none while a repair holds it.
async fn at_work(session: &Session, repair: bool) -> Result<Option<String>, CommandError> {
    if repair {
        return Ok(None);
    }
    let holder = session.target.orchestrator.lock_holder().await?;
    Ok(holder.map(|holder| holder.request.run))
}

/// Says whether the target should have a run's journal. What is older than everything it keeps was pruned there, or the
/// target began anew; what retention lets go may be gone, though an older run that is still needed was kept.
fn expected(run: &str, mirrored: &[String], now: Timestamp) -> bool {
    if mirrored.first().is_none_or(|oldest| run < oldest.as_str()) {
        return false;
    }
    let mut names = mirrored.to_vec();
    names.push(run.to_owned());
    names.sort_unstable();
    names.dedup();
    !retention::is_outdated(run, &names, retention::RUNS, now)
}

async fn look(
    session: &Session,
    run: &str,
    expected: bool,
    at_work: bool,
    repair: bool,
) -> Result<Looked, CommandError> {
    let path = session.runs.journal_path(run);
    let home = match inspect_file(&path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            let text = format!("read {}: {error}", path.display());
            return Err(CommandError::new(ExitStatus::Bug, text).hint("see who owns the file"));
        }
    };
    let (target, unread) = match read(session, run).await? {
        Ok(text) => (text.map(|text| journal::inspect(text.as_bytes())), None),
        Err(reason) => (None, Some(Finding::unreadable(Place::Target, reason))),
    };
    let mut findings: Vec<_> = unread.map(|finding| (finding, Mended::NotTried)).into_iter().collect();
    // Beside a copy that cannot be read, the other one says nothing about what is missing.
    let compared = if target.is_some() || (expected && findings.is_empty()) { home.as_ref() } else { None };
    for finding in compare(run, compared, target.as_ref(), at_work) {
        let mended = match finding.repair.filter(|_| repair) {
            None => Mended::NotTried,
            Some(repair) => match mend(session, run, repair, home.as_ref()).await {
                Ok(()) => Mended::Done,
                Err(reason) => Mended::Failed(reason),
            },
        };
        findings.push((finding, mended));
    }
    let count = |copy: Option<&Findings>| copy.map_or(0, |copy| copy.intact.len());
    let records = count(home.as_ref()).max(count(target.as_ref()));
    Ok(Looked { run: run.to_owned(), records, at_work, findings })
}

/// Reads a journal on the target; the inner error says why this one alone cannot be read.
async fn read(session: &Session, run: &str) -> Result<Result<Option<String>, String>, CommandError> {
    match session.target.mirror.read(run).await {
        Ok(text) => Ok(Ok(text)),
        Err(error) if error.kind == ErrorKind::Invalid => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Mends one finding. Only ever drops what is no whole record, and appends what the other copy has.
async fn mend(session: &Session, run: &str, repair: Repair, home: Option<&Findings>) -> Result<(), String> {
    let mirror = session.target.mirror.as_ref();
    let text = |error: &dyn std::error::Error| error.to_string();
    match repair {
        Repair::Trim(Place::Target) => mirror.trim(run).await.map_err(|error| text(&error)),
        Repair::Trim(Place::Home) => {
            let tail = home.and_then(|home| home.tail).map_or(0, |tail| tail.bytes());
            session.runs.trim(run, tail as u64).map_err(|error| text(&error))
        }
        Repair::Extend { place: Place::Target, has } => {
            let whole = std::fs::read_to_string(session.runs.journal_path(run));
            for line in whole.map_err(|error| text(&error))?.split_inclusive('\n').skip(has) {
                // What is torn at home was never acknowledged.
                let Some(line) = line.strip_suffix('\n') else { break };
                mirror.append(run, line).await.map_err(|error| text(&error))?;
            }
            Ok(())
        }
        Repair::Extend { place: Place::Home, has } => {
            let whole = mirror.read(run).await.map_err(|error| text(&error))?.unwrap_or_default();
            let whole = whole.rfind('\n').map_or("", |end| &whole[..=end]);
            debug_assert!(whole.lines().count() > has, "the target's copy is the longer one");
            session.runs.restore(run, whole).map_err(|error| text(&error))
        }
    }
}

/// Prints every record that holds together, and where a journal stops doing so.
async fn export(
    session: &Session,
    printer: &Printer,
    asked: Option<&str>,
) -> Result<ExitStatus, CommandError> {
    let mirror: &dyn RunMirror = session.target.mirror.as_ref();
    let all = mirror.list().await?;
    let wanted = match asked {
        None => all,
        Some(asked) => vec![runs::find(&all, "export", asked)?.to_owned()],
    };
    let mut broken = Vec::new();
    for run in wanted {
        let text = match read(session, &run).await? {
            Ok(text) => text.unwrap_or_default(),
            Err(reason) => {
                printer.json_line(&serde_json::json!({"run": run, "broken": {
                    "line": null, "seq": null, "what": "unreadable", "text": reason,
                }}));
                broken.push(run);
                continue;
            }
        };
        let found = journal::inspect(text.as_bytes());
        for line in text.split_inclusive('\n').take(found.intact.len()) {
            let record: serde_json::Value = serde_json::from_str(line.trim_end()).unwrap_or_default();
            printer.json_line(&serde_json::json!({"run": run, "record": record}));
        }
        if let Some(fault) = &found.fault {
            let broken_line = serde_json::json!({"run": run, "broken": {
                "line": fault.line, "seq": fault.seq, "what": fault.word(), "text": fault.text(),
            }});
            printer.json_line(&broken_line);
            broken.push(run);
        }
    }
    if broken.is_empty() {
        return Ok(ExitStatus::Done);
    }
    printer.warning(&format!("not exported whole: {}; `mlctl audit verify` says more", broken.join(", ")));
    Ok(ExitStatus::GateFailed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_retention_lets_go_is_not_missed() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let run = |days: u32| {
            let at = now.saturating_sub(Duration::from_secs(24 * 60 * 60) * days).unwrap();
            ulid::Ulid::from_parts(u64::try_from(at.as_millisecond()).unwrap(), days.into()).to_string()
        };
        // The head's run is needed however old it is.
        let mirrored = [run(200), run(3), run(1)];
        for (days, wanted) in [(300, false), (200, false), (120, false), (89, true), (3, true), (0, true)] {
            assert_eq!(expected(&run(days), &mirrored, now), wanted, "{days}");
        }
        assert!(!expected(&run(1), &[], now));
    }
}
