//! `mlctl audit`: whether the journals still say what was written, and all of them as one stream.

use clap::{Args, Subcommand};
use mlctl_core::ports::{Lease, RunMirror};
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
            let holder = session.target.orchestrator.lock_holder().await?;
            let at_work = holder.map(|holder| holder.request.run);
            let audit = verify(&session, run.as_deref(), at_work.as_deref(), false).await?;
            Ok(audit.tell(printer))
        }
        Act::Verify { run, lock, .. } => {
            let conduct = Conduct::new(&session, settings, printer, lock.wait())?;
            let repair = async |_: &dyn Lease| verify(&session, run.as_deref(), None, true).await;
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
async fn verify(
    session: &Session,
    asked: Option<&str>,
    at_work: Option<&str>,
    repair: bool,
) -> Result<Audit, CommandError> {
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
        // Older than everything the target keeps: it was pruned there, or the target began anew.
        let expected = mirrored.first().is_some_and(|oldest| *oldest <= run);
        audit.runs.push(look(session, &run, expected, at_work, repair).await?);
    }
    Ok(audit)
}

async fn look(
    session: &Session,
    run: &str,
    expected: bool,
    at_work: Option<&str>,
    repair: bool,
) -> Result<Looked, CommandError> {
    let mirror = session.target.mirror.as_ref();
    let at_work = at_work == Some(run);
    let path = session.runs.journal_path(run);
    let home = match inspect_file(&path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            let text = format!("read {}: {error}", path.display());
            return Err(CommandError::new(ExitStatus::Bug, text).hint("see who owns the file"));
        }
    };
    let target = mirror.read(run).await?.map(|text| journal::inspect(text.as_bytes()));
    let mut findings = Vec::new();
    let compared = if expected || target.is_some() { home.as_ref() } else { None };
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
        let text = mirror.read(&run).await?.unwrap_or_default();
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
