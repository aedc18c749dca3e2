//! Artifacts kept by their digest, so that a release runs what it was made of whatever the source tree holds by now.

use std::fs;
use std::path::{Path, PathBuf};

use mlctl_core::item::{Desired, Digest, Item, ItemKind};
use mlctl_core::local_protocol::Layout;
use mlctl_core::ports::{ErrorKind, OrchestratorError, Result};

use super::Local;
use super::files;
use super::items::LocalWorkload;

/// Returns the digest of a file, or of a folder by the names and digests of its files.
pub(crate) fn digest(path: &Path) -> std::io::Result<Digest> {
    if !path.is_dir() {
        return fs::read(path).map(|bytes| Digest::of(&bytes));
    }
    let mut lines = Vec::new();
    collect(path, path, &mut lines)?;
    lines.sort();
    Ok(Digest::of(lines.join("\n").as_bytes()))
}

fn collect(root: &Path, folder: &Path, lines: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, lines)?;
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            lines.push(format!("{name} {}", digest(&path)?));
        }
    }
    Ok(())
}

/// Copies a file or folder; durable when this returns, or a release could be kept whose program is empty after a loss
/// of power.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        fs::copy(from, to)?;
        return files::sync(to);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    files::sync(to)
}

fn missing(operation: &'static str, item: &Item, reason: &str) -> OrchestratorError {
    OrchestratorError::new(
        ErrorKind::Invalid,
        operation,
        item.id.to_string(),
        format!("artifact_missing: {reason}"),
    )
}

/// Says where an item's artifact is and comes from, when it has one and does not have it here yet.
fn absent(
    layout: &Layout,
    item: &Item,
    operation: &'static str,
) -> Result<Option<(PathBuf, PathBuf, Digest)>> {
    let workload = LocalWorkload::of(item, operation)?;
    let Some(artifact) = workload.spec.artifact else { return Ok(None) };
    let kept = layout.artifact(&artifact);
    if kept.exists() {
        return Ok(None);
    }
    let source = workload.source.filter(|source| source.exists()).ok_or_else(|| {
        let reason = format!(
            "neither {} nor what the build made is there: build it again, or choose a release that is kept whole",
            kept.display()
        );
        missing(operation, item, &reason)
    })?;
    Ok(Some((kept, source, artifact.digest)))
}

fn changed(operation: &'static str, item: &Item, source: &Path) -> OrchestratorError {
    let reason = format!("{} is no longer what was built for this release: build again", source.display());
    missing(operation, item, &reason)
}

/// Refuses an item whose artifact could not be had. Changes nothing.
pub(super) async fn check(layout: &Layout, item: &Item, operation: &'static str) -> Result<()> {
    let Some((_, source, wanted)) = absent(layout, item, operation)? else { return Ok(()) };
    let found = blocking({
        let source = source.clone();
        move || digest(&source)
    })
    .await;
    match found.map_err(files::failed(operation, &source))? {
        found if found == wanted => Ok(()),
        _ => Err(changed(operation, item, &source)),
    }
}

/// Copies an item's artifact to where releases keep it, unless it is there.
pub(super) async fn ensure(layout: &Layout, item: &Item, operation: &'static str) -> Result<()> {
    let Some((kept, source, wanted)) = absent(layout, item, operation)? else { return Ok(()) };
    let Some(folder) = kept.parent().map(Path::to_owned) else { return Ok(()) };
    let temporary = folder.with_extension(format!("{}.tmp", std::process::id()));
    files::make_folder(&temporary)?;
    let copied = temporary.join(kept.file_name().unwrap_or_default());
    let result = blocking({
        let (source, copied) = (source.clone(), copied.clone());
        // The copy is measured, not the source: a build may be writing there.
        move || {
            copy(&source, &copied)?;
            copied.parent().map_or(Ok(()), files::sync)?;
            digest(&copied)
        }
    })
    .await;
    let taken = match result {
        Ok(found) if found == wanted => fs::rename(&temporary, &folder)
            .or_else(|error| {
                // Somebody else was faster with the same bytes.
                if kept.exists() { Ok(()) } else { Err(error) }
            })
            .and_then(|()| folder.parent().map_or(Ok(()), files::sync)),
        Ok(_) => {
            let _ = fs::remove_dir_all(&temporary);
            return Err(changed(operation, item, &source));
        }
        Err(error) => Err(error),
    };
    let _ = fs::remove_dir_all(&temporary);
    taken.map_err(files::failed(operation, &source))
}

/// Runs what reads whole files where it holds up no task.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

impl Local {
    /// Refuses a release one of whose artifacts could not be had; to be asked before anything is changed.
    ///
    /// # Errors
    /// `Invalid` with `artifact_missing` in its reason, naming the workload.
    pub async fn check_artifacts(&self, desired: &Desired) -> Result<()> {
        for item in desired.items.iter().filter(|item| item.id.kind == ItemKind::Workload) {
            check(&self.layout, item, "resolve").await?;
        }
        Ok(())
    }

    /// Returns where artifacts are, in the state folder, that neither a kept release nor a workload refers to.
    pub(super) fn unused_artifacts(&self, kept: &[&Desired]) -> Result<Vec<String>> {
        let live = super::items::all(&self.layout)?;
        let used: Vec<Digest> = kept
            .iter()
            .flat_map(|desired| &desired.items)
            .chain(live.values().map(|record| &record.item))
            .filter(|item| item.id.kind == ItemKind::Workload)
            .filter_map(|item| LocalWorkload::of(item, "prune").ok()?.spec.artifact)
            .map(|artifact| artifact.digest)
            .collect();
        let names = files::names(&self.layout.root().join("artifacts"))?;
        let unused = names.into_iter().filter(|name| !used.iter().any(|digest| digest.as_str() == name));
        Ok(unused.map(|name| format!("artifacts/{name}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_told_apart_by_names_and_contents() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, files: &[(&str, &str)]| {
            let folder = root.path().join(name);
            for (file, content) in files {
                let path = folder.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            digest(&folder).unwrap()
        };
        let plain = make("a", &[("x", "1"), ("sub/y", "2")]);
        assert_eq!(plain, make("b", &[("sub/y", "2"), ("x", "1")]));
        assert_ne!(plain, make("c", &[("x", "1"), ("y", "2")]));
        assert_ne!(plain, make("d", &[("x", "1"), ("sub/y", "3")]));
        copy(&root.path().join("a"), &root.path().join("copy")).unwrap();
        assert_eq!(plain, digest(&root.path().join("copy")).unwrap());
    }
}
