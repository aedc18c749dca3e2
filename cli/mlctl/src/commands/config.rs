//! `mlctl config`: checks and explains the files a person writes.

use clap::{Args, Subcommand, ValueEnum};
use mlctl_core::playbook::{self, PlaybookFile};
use mlctl_core::{system, yaml};

use crate::error::{CommandError, ExitStatus};
use crate::input;
use crate::output::{Printer, Table};
use crate::session::system_file;
use crate::settings::Settings;

/// Check, explain and describe mlctl.yaml and the playbooks
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Check mlctl.yaml and every playbook beside it; all problems at once
    Validate,
    /// Print the JSON Schema of a format
    Schema {
        /// Which format
        #[arg(value_enum, default_value_t)]
        format: Format,
    },
    /// Print the effective values under the target's profile
    Show {
        /// Say where each value comes from
        #[arg(long)]
        show_origin: bool,
        /// Another profile than the target's
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// mlctl.yaml
    #[default]
    System,
    /// A playbook
    Playbook,
}

pub(super) fn run(
    args: &ConfigArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    match &args.act {
        Act::Validate => validate(settings, printer),
        Act::Schema { format } => {
            printer.json(&match format {
                Format::System => system::schema(),
                Format::Playbook => playbook::schema(),
            });
            Ok(ExitStatus::Done)
        }
        Act::Show { show_origin, profile } => show(settings, printer, *show_origin, profile.as_deref()),
    }
}

fn validate(settings: &Settings, printer: &Printer) -> Result<ExitStatus, CommandError> {
    let file = system_file(settings, printer)?;
    let system = file.system()?;
    let folder = settings.system_folder().join("playbooks");
    let mut checked = vec![file.name().to_owned()];
    let mut problems = Vec::new();
    for path in playbook_files(&folder) {
        let shown = path.strip_prefix(settings.system_folder()).unwrap_or(&path).display().to_string();
        let bytes = input::read(&path, yaml::LARGEST)
            .map_err(|error| CommandError::new(ExitStatus::InvalidInput, format!("read {shown}: {error}")))?;
        match PlaybookFile::parse(&shown, &bytes) {
            Ok(parsed) => problems.extend(parsed.unknown_names(&system).iter().map(ToString::to_string)),
            Err(found) => problems.push(found.to_string()),
        }
        checked.push(shown);
    }
    if !problems.is_empty() {
        return Err(CommandError::new(ExitStatus::InvalidInput, problems.join("\n")));
    }
    if printer.is_json() {
        printer.json(&serde_json::json!({"valid": true, "files": checked}));
    } else {
        for name in checked {
            printer.data(&format!("{name} is valid"));
        }
    }
    Ok(ExitStatus::Done)
}

/// Returns every YAML file below a folder, in order of name.
fn playbook_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(playbook_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn show(
    settings: &Settings,
    printer: &Printer,
    show_origin: bool,
    profile: Option<&str>,
) -> Result<ExitStatus, CommandError> {
    let file = system_file(settings, printer)?;
    let targets = file.system()?.targets;
    let of_target = targets.get(&settings.target).and_then(|target| target.profile.clone());
    let profile = profile.map(str::to_owned).or(of_target);
    let values = file.explain(profile.as_deref())?;
    if printer.is_json() {
        let rows: Vec<_> = values
            .iter()
            .map(|value| {
                serde_json::json!({"key": value.path, "value": value.value, "origin": value.said_by.to_string()})
            })
            .collect();
        printer.json(&rows);
        return Ok(ExitStatus::Done);
    }
    if !show_origin {
        for value in &values {
            printer.data(&format!("{} = {}", value.path, value.value));
        }
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new(&["KEY", "ORIGIN", "VALUE"]);
    for value in &values {
        table.plain(&[&value.path, &value.said_by.to_string(), &value.value]);
    }
    printer.table(&table);
    Ok(ExitStatus::Done)
}
