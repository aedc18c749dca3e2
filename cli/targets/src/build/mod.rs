//! Makes artifacts by running the build commands of a system.

mod command;
mod sources;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use indexmap::IndexMap;
use mlctl_core::item::Digest;
use mlctl_core::ports::{Artifact, BuildError, BuildLine, Builder};
use mlctl_core::system::{Build, System};
use tokio::time::Instant;

use crate::local::artifact_digest;

/// Runs build commands as processes, in the folder of the system's file.
#[derive(Debug)]
pub struct ProcessBuilder {
    folder: PathBuf,
    digests: Mutex<HashMap<PathBuf, Known>>,
}

/// A digest and what tells that its file is still the same.
#[derive(Debug, Clone)]
struct Known {
    modified: SystemTime,
    size: u64,
    digest: Digest,
}

impl ProcessBuilder {
    /// Returns a builder for the system whose file is in that folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), digests: Mutex::default() }
    }

    /// Returns the digest of an artifact; a file that has not changed is not read again.
    async fn digest(&self, path: &Path) -> io::Result<Digest> {
        let metadata = std::fs::metadata(path)?;
        let stamp = metadata.modified().ok().filter(|_| metadata.is_file());
        if let Some(modified) = stamp {
            let digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = digests.get(path)
                && known.modified == modified
                && known.size == metadata.len()
            {
                return Ok(known.digest.clone());
            }
        }
        let digest = artifact_digest(path.to_owned()).await?;
        if let Some(modified) = stamp {
            let known = Known { modified, size: metadata.len(), digest: digest.clone() };
            self.digests.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), known);
        }
        Ok(digest)
    }

    /// Says whether a command need not run for any of the builds that share it.
    async fn are_fresh(&self, builds: &[(&String, &Build)]) -> bool {
        let folder = self.folder.clone();
        let builds: Vec<Build> = builds.iter().map(|(_, build)| (*build).clone()).collect();
        let looked =
            tokio::task::spawn_blocking(move || builds.iter().all(|build| sources::is_fresh(&folder, build)));
        looked.await.unwrap_or(false)
    }
}

/// Artifacts of a build that is under way: one that fails or is given up leaves them stale, however new they look.
struct Unfinished {
    artifacts: Vec<PathBuf>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.artifacts.iter().for_each(|artifact| sources::spoil(artifact));
    }
}

#[async_trait]
impl Builder for ProcessBuilder {
    async fn build(
        &self,
        system: &System,
        services: &[String],
        tell: &(dyn Fn(BuildLine) + Send + Sync),
    ) -> Result<BTreeMap<String, Artifact>, BuildError> {
        let mut commands: IndexMap<&[String], Vec<(&String, &Build)>> = IndexMap::new();
        for name in services {
            if let Some(build) = system.services.get(name).and_then(|service| service.build.as_ref())
                && !build.run.is_empty()
            {
                commands.entry(&build.run).or_default().push((name, build));
            }
        }
        for (argv, builds) in commands {
            if self.are_fresh(&builds).await {
                continue;
            }
            let waiting: Vec<String> = builds.iter().map(|(name, _)| (*name).clone()).collect();
            let begun = Instant::now();
            tell(BuildLine::Started { command: argv.join(" "), services: waiting.clone() });
            let with_sources = builds.iter().filter(|(_, build)| !build.sources.is_empty());
            let artifacts = with_sources.map(|(_, build)| self.folder.join(&build.artifact)).collect();
            let mut unfinished = Unfinished { artifacts };
            command::run(argv, &self.folder, tell).await.map_err(|failure| BuildError {
                service: waiting.join(", "),
                reason: failure.reason,
                tail: failure.tail,
            })?;
            unfinished.artifacts.clear();
            tell(BuildLine::Finished { took: begun.elapsed() });
        }
        let mut artifacts = BTreeMap::new();
        for name in services {
            let Some(build) = system.services.get(name).and_then(|service| service.build.as_ref()) else {
                continue;
            };
            let path = self.folder.join(&build.artifact);
            let digest = self.digest(&path).await.map_err(|error| BuildError {
                service: name.clone(),
                reason: format!(
                    "its build leaves no artifact at {}: {error}; see `build` of the service in the system's file",
                    path.display()
                ),
                tail: Vec::new(),
            })?;
            artifacts.insert(name.clone(), Artifact { path, digest });
        }
        Ok(artifacts)
    }
}

#[cfg(test)]
mod tests {
    use mlctl_core::system::SystemFile;

    use super::*;

    fn system(builds: &[(&str, &str, &str)]) -> System {
        let mut text = "apiVersion: mlctl/v1\nsystem: test\nservices:\n".to_owned();
        for (index, (name, script, artifact)) in builds.iter().enumerate() {
            let run = serde_json::to_string(&["sh", "-c", script]).unwrap();
            let port = 4000 + index;
            text += &format!("  {name}: {{port: {port}, build: {{run: {run}, artifact: {artifact}}}}}\n");
        }
        SystemFile::parse("mlctl.yaml", text.as_bytes()).unwrap().system().unwrap()
    }

    async fn build(
        folder: &Path,
        system: &System,
    ) -> (Result<BTreeMap<String, Artifact>, BuildError>, Vec<BuildLine>) {
        let lines = Mutex::new(Vec::new());
        let services: Vec<String> = system.services.keys().cloned().collect();
        let builder = ProcessBuilder::new(folder);
        let result = builder.build(system, &services, &|line| lines.lock().unwrap().push(line)).await;
        (result, lines.into_inner().unwrap())
    }

    #[tokio::test]
    async fn equal_commands_run_once_and_artifacts_are_measured() {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo run >> runs; echo one > a; echo two > b; echo said >&2";
        let system = system(&[("x", script, "a"), ("y", script, "b")]);
        let (result, lines) = build(folder.path(), &system).await;
        let artifacts = result.unwrap();
        assert_eq!(artifacts["x"].digest, Digest::of(b"one\n"));
        assert_eq!(artifacts["y"].digest, Digest::of(b"two\n"));
        assert_eq!(std::fs::read_to_string(folder.path().join("runs")).unwrap(), "run\n");
        let [BuildLine::Started { services, .. }, BuildLine::Output(said), BuildLine::Finished { .. }] =
            &lines[..]
        else {
            panic!("{lines:?}")
        };
        assert_eq!((services.join(" "), said.as_str()), ("x y".to_owned(), "said"));
    }

    #[tokio::test]
    async fn a_failure_tells_code_and_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let failing = system(&[("x", "seq 1 100; exit 7", "a")]);
        let error = build(folder.path(), &failing).await.0.unwrap_err();
        assert!(error.to_string().ends_with("ended with exit code 7"), "{error}");
        assert_eq!(error.tail.len(), command::TAIL_LINES);
        assert_eq!(error.tail.last().unwrap(), "100");
        let (result, _) = build(folder.path(), &system(&[("x", "true", "a")])).await;
        assert!(result.unwrap_err().reason.contains("leaves no artifact at"));
    }

    #[tokio::test]
    async fn a_build_that_is_given_up_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let system = system(&[("x", "sleep 600 & echo $!; wait", "a")]);
        let pid = Mutex::new(None::<u32>);
        let seen = tokio::sync::Notify::new();
        let tell = |line: BuildLine| {
            if let BuildLine::Output(text) = line {
                *pid.lock().unwrap() = text.parse().ok();
                seen.notify_one();
            }
        };
        let builder = ProcessBuilder::new(folder.path());
        let services = ["x".to_owned()];
        tokio::select! {
            _ = builder.build(&system, &services, &tell) => panic!("it cannot end by itself"),
            () = seen.notified() => {}
        }
        let path = format!("/proc/{}/stat", pid.lock().unwrap().unwrap());
        let gone = async {
            while std::fs::read_to_string(&path).is_ok_and(|stat| !stat.contains(") Z")) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_command_runs_only_when_a_source_is_newer_or_the_last_one_failed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("src")).unwrap();
        let change = |text: &str, ago: u64| {
            std::fs::write(path("src/a"), text).unwrap();
            let time = SystemTime::now() - std::time::Duration::from_secs(ago);
            for name in ["src/a", "src"] {
                std::fs::File::open(path(name)).unwrap().set_modified(time).unwrap();
            }
        };
        let runs = || std::fs::read_to_string(path("runs")).unwrap().len();
        let script = "printf x >> runs; cp src/a app; ! grep -q bad app";
        let mut system = system(&[("x", script, "app")]);
        let sources = vec!["src/*".to_owned()];
        system.services.get_mut("x").unwrap().build.as_mut().unwrap().sources = sources;

        change("one", 60);
        for _ in 0..3 {
            let artifacts = build(folder.path(), &system).await.0.unwrap();
            assert_eq!(artifacts["x"].digest, Digest::of(b"one"));
            assert_eq!(runs(), 1);
        }
        change("bad", 0);
        assert!(build(folder.path(), &system).await.0.is_err());
        // It left an artifact that is newer than its sources, and is none.
        change("bad", 60);
        assert!(build(folder.path(), &system).await.0.is_err());
        assert_eq!(runs(), 3);
        change("two", 60);
        assert_eq!(build(folder.path(), &system).await.0.unwrap()["x"].digest, Digest::of(b"two"));
        assert_eq!(runs(), 4);
    }
}
