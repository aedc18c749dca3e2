//! Session: the system file, the profile and the target of one command, opened once.

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use mlctl_core::playbook::{self, Playbook, PlaybookFile};
use mlctl_core::release::Release;
use mlctl_core::sim::Script;
use mlctl_core::snapshot::Snapshot;
use mlctl_core::system::{System, SystemFile, TargetKind};
use mlctl_core::yaml;

use ulid::Ulid;

use crate::error::{CommandError, ExitStatus};
use crate::input;
use crate::output::Printer;
use crate::output::report::GitHub;
use crate::settings::Settings;
use crate::store::RunStore;
use crate::target::{SimMemory, Stores, Target};

/// What a command that works on a target has.
pub struct Session {
    /// The system under the target's profile.
    pub system: System,
    /// The target.
    pub target: Target,
    /// Its runs at home.
    pub runs: RunStore,
}

/// Reads and checks the system file.
///
/// # Errors
/// A file that cannot be read, or every problem it has.
pub fn system_file(settings: &Settings, printer: &Printer) -> Result<SystemFile, CommandError> {
    let bytes = input::read(&settings.file, yaml::LARGEST).map_err(|error| {
        CommandError::new(ExitStatus::InvalidInput, format!("read {}: {error}", settings.file.display()))
            .hint("name the system's file with --file, or go to its folder")
    })?;
    let file = SystemFile::parse(&shown(&settings.file, printer), &bytes)?;
    let folder = settings.system_folder();
    let missing = file.missing_files(|path| folder.join(path).exists());
    missing.or(file).map_err(CommandError::from)
}

/// Returns a path as the person would type it.
fn shown(path: &Path, printer: &Printer) -> String {
    let here = printer.world().absolute(Path::new("."));
    let here = here.canonicalize().unwrap_or(here);
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

impl Session {
    /// Opens the system and the target that the settings name.
    ///
    /// # Errors
    /// A broken file, an unknown target, a target that cannot be had.
    pub async fn open(settings: &Settings, printer: &Printer) -> Result<Self, CommandError> {
        let file = system_file(settings, printer)?;
        let plain = file.system()?;
        let declared = plain.targets.get(&settings.target).cloned();
        let profile = declared.as_ref().and_then(|target| target.profile.clone());
        let system = match profile {
            Some(profile) => file.with_profile(&profile)?,
            None => plain,
        };
        let kind = declared.as_ref().map(|target| target.kind);
        let target = match (settings.target.as_str(), kind) {
            (name, _) if name.starts_with("sim:") => simulated(name, &name[4..], settings, printer)?,
            (name, Some(TargetKind::Local)) => local(name, settings, printer, &system).await?,
            ("local", None) => local("local", settings, printer, &system).await?,
            (name, Some(TargetKind::Kubernetes)) | (name @ "kubernetes", None) => {
                return Err(CommandError::not_yet(&format!("target {name} (Kubernetes)")));
            }
            (name, Some(TargetKind::Swarm)) | (name @ "swarm", None) => {
                return Err(CommandError::not_yet(&format!("target {name} (Docker Swarm)")));
            }
            (name, None) => {
                let known: Vec<&str> = system.targets.keys().map(String::as_str).collect();
                return Err(CommandError::new(
                    ExitStatus::NotFound,
                    format!("open target {name}: no such target in {}", file.name()),
                )
                .hint(targets(&known)));
            }
        };
        let runs = RunStore::new(settings.state_folder()?, &target.name, &system.name);
        Ok(Self { system, target, runs })
    }

    /// Returns what runs on the target.
    ///
    /// # Errors
    /// A target that does not answer.
    pub async fn observe(&self) -> Result<Snapshot, CommandError> {
        Ok(self.target.orchestrator.observe().await?)
    }

    /// Returns the kept releases and, of them, the head.
    ///
    /// # Errors
    /// A target that does not answer.
    pub async fn releases(
        &self,
        snapshot: &Snapshot,
    ) -> Result<(Vec<Release>, Option<Release>), CommandError> {
        let releases = self.target.releases.list().await?;
        let number = snapshot.head.as_ref().map(|head| head.number);
        let head = releases.iter().find(|release| Some(release.number) == number).cloned();
        Ok((releases, head))
    }

    /// Refuses a name that is no service of the system.
    ///
    /// # Errors
    /// No such service, with those that there are.
    pub fn known_service(&self, act: &str, name: &str) -> Result<(), CommandError> {
        if self.system.services.contains_key(name) {
            return Ok(());
        }
        let known: Vec<&str> = self.system.services.keys().map(String::as_str).collect();
        Err(CommandError::new(ExitStatus::NotFound, format!("{act} {name}: no such service"))
            .hint(format!("there are {}", known.join(", "))))
    }

    /// Returns the name of a run that begins now. Runs are listed by name, so it comes after all that the target keeps,
    /// whatever the wall clock did since.
    ///
    /// # Errors
    /// A target that does not answer.
    pub async fn next_run(&self) -> Result<String, CommandError> {
        let kept = self.target.mirror.list().await?;
        Ok(run_after(kept.last().map(String::as_str), Ulid::new()).to_string())
    }

    /// Returns the public front's base URL, when there is one.
    pub async fn front(&self) -> Option<String> {
        self.target.inspector.address(None).await.ok().flatten()
    }
}

/// Returns a run's name that sorts behind the newest one.
fn run_after(newest: Option<&str>, fresh: Ulid) -> Ulid {
    match newest.and_then(|run| Ulid::from_string(run).ok()) {
        Some(newest) if newest >= fresh => Ulid::from_parts(newest.timestamp_ms() + 1, fresh.random()),
        _ => fresh,
    }
}

/// Reads a playbook: the system's own file where there is one, else the built-in.
///
/// # Errors
/// A file that cannot be read, or every problem it has.
pub fn playbook(
    settings: &Settings,
    printer: &Printer,
    system: &System,
    name: &str,
) -> Result<Playbook, CommandError> {
    let path = settings.system_folder().join("playbooks").join(format!("{name}.yaml"));
    let (shown_name, bytes) = match input::read(&path, yaml::LARGEST) {
        Ok(bytes) => (shown(&path, printer), bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = playbook::builtin(name).ok_or_else(|| {
                CommandError::new(
                    ExitStatus::NotFound,
                    format!("read playbook {name}: {} is not there", path.display()),
                )
            })?;
            (format!("playbooks/{name}.yaml (built in)"), text.as_bytes().to_vec())
        }
        Err(error) => {
            let text = format!("read playbook {}: {error}", path.display());
            return Err(CommandError::new(ExitStatus::InvalidInput, text));
        }
    };
    let file = PlaybookFile::parse(&shown_name, &bytes)?;
    file.unknown_names(system).or(()).map_err(CommandError::from)?;
    Ok(file.bind(&IndexMap::new())?)
}

/// Says which targets there are; `local` is always there.
fn targets(declared: &[&str]) -> String {
    let mut known = declared.to_vec();
    if !known.contains(&"local") {
        known.insert(0, "local");
    }
    match known[..] {
        [one] => format!("there is {one}"),
        _ => format!("there are {}", known.join(", ")),
    }
}

async fn local(
    name: &str,
    settings: &Settings,
    printer: &Printer,
    system: &System,
) -> Result<Target, CommandError> {
    let world = printer.world();
    let folder = settings.local_folder()?.join(&system.name);
    let wanted = system.secrets.iter().filter_map(|(name, secret)| Some((name, secret.env.as_ref()?)));
    let secret_values: std::collections::BTreeMap<_, _> = wanted
        .filter_map(|(name, variable)| {
            let value = world.var(variable).filter(|value| !value.is_empty())?;
            Some((name.clone(), mlctl_core::secret::Secret::new(value)))
        })
        .collect();
    if GitHub::in_workflow(printer).is_some() {
        secret_values.values().for_each(|value| GitHub::mask(printer, value));
    }
    let local = mlctl_targets::local::connect(mlctl_targets::local::LocalSettings {
        folder,
        exe: world.exe().to_path_buf(),
        build: crate::commands::version::build_id(),
        runtime_dir: settings.runtime_folder.clone(),
        system: system.clone(),
        source_dir: settings.system_folder(),
        secret_values,
    })
    .await?;
    let local = Arc::new(local);
    Ok(Target {
        name: name.to_owned(),
        embedded: true,
        orchestrator: local.clone(),
        inspector: local.clone(),
        releases: local.clone(),
        overrides: local.clone(),
        mirror: local.clone(),
        stores: Arc::new(Stores::of_target(local.clone())),
        load: Arc::new(mlctl_load::HttpLoadRunner::default()),
        local: Some(local),
        memory: None,
    })
}

fn simulated(name: &str, path: &str, settings: &Settings, printer: &Printer) -> Result<Target, CommandError> {
    let path = printer.world().absolute(Path::new(path));
    let bytes = input::read(&path, yaml::LARGEST).map_err(|error| {
        CommandError::new(ExitStatus::InvalidInput, format!("read the scenario {}: {error}", path.display()))
    })?;
    Script::parse(&shown(&path, printer), &bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // One simulation a scenario file, so that a deploy can be looked at and taken back by later commands.
    let digest = mlctl_core::item::Digest::of(path.to_string_lossy().as_bytes());
    let kept = settings.state_folder()?.join("sim").join(format!("{}.json", digest.short()));
    let memory = SimMemory::open(&text, kept).map_err(|error| {
        CommandError::new(ExitStatus::InvalidInput, format!("{}: {error}", path.display()))
    })?;
    let sim = Arc::new(memory.sim().clone());
    Ok(Target {
        name: name.to_owned(),
        embedded: true,
        orchestrator: sim.clone(),
        inspector: sim.clone(),
        releases: sim.clone(),
        overrides: sim.clone(),
        mirror: sim.clone(),
        stores: sim.clone(),
        load: sim,
        local: None,
        memory: Some(Arc::new(memory)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_sorts_behind_the_newest_whatever_the_clock_did() {
        let at = |ms| Ulid::from_parts(ms, 7);
        assert_eq!(run_after(None, at(5)), at(5));
        assert_eq!(run_after(Some("not one of ours"), at(5)), at(5));
        assert_eq!(run_after(Some(&at(4).to_string()), at(5)), at(5));
        // The clock went back: both runs that begin now are newer, and differ.
        let newest = at(9_000).to_string();
        let (one, other) =
            (run_after(Some(&newest), at(5)), run_after(Some(&newest), Ulid::from_parts(5, 8)));
        assert!(one > at(9_000) && other > at(9_000) && one != other);
    }
}
