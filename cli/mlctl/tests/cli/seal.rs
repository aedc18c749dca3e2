//! A sealed place to run commands in.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use mlctl::error::ExitStatus;
use mlctl::output::World;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with the tests' system, and nothing of this machine.
pub struct Seal {
    root: TempDir,
    scenario: &'static str,
}

/// What came of a command.
#[derive(Debug)]
pub struct Told {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Seal {
    /// Opens a place whose target plays a file of `tests/scenarios/`.
    pub fn new(scenario: &'static str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        std::fs::copy(tests.join("system/mlctl.yaml"), root.path().join("mlctl.yaml")).unwrap();
        std::fs::copy(tests.join("scenarios").join(scenario), root.path().join(scenario)).unwrap();
        // The built-in playbooks with less patience: real time passes here.
        std::fs::create_dir(root.path().join("playbooks")).unwrap();
        for name in ["deploy", "rollback"] {
            let text = mlctl_core::playbook::builtin(name).unwrap();
            let quick =
                text.replace("stable_for: 1s", "stable_for: 0s").replace("within: 30s", "within: 300ms");
            let quick = quick.replace("retries: 2", "retries: 0").replace("deadline: 5m", "deadline: 2s");
            std::fs::write(root.path().join(format!("playbooks/{name}.yaml")), quick).unwrap();
        }
        Self { root, scenario }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Replaces a text of the system file.
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("mlctl.yaml")).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(self.path("mlctl.yaml"), text.replace(from, to)).unwrap();
    }

    fn env(&self) -> BTreeMap<String, String> {
        let folder = |name: &str| self.path(name).display().to_string();
        BTreeMap::from(
            [
                ("HOME", folder("home")),
                ("MLCTL_STATE", folder("state")),
                ("MLCTL_LOCAL", folder("local")),
                ("XDG_RUNTIME_DIR", folder("run")),
                ("MLCTL_OPERATOR", "ana".to_owned()),
                ("MLCTL_HOST", "desk".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
    }

    /// Returns `mlctl ARGS` on the simulated target as a process of its own, for what only a process has: signals,
    /// pipes, variables that flags read.
    pub fn process(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlctl"));
        command.args(args).args(["--target", &format!("sim:{}", self.scenario)]);
        command.current_dir(self.root.path()).env_clear().envs(self.env());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Writes the built-in playbooks, with all their patience.
    pub fn patient(&self) {
        std::fs::remove_dir_all(self.path("playbooks")).unwrap();
    }

    /// Changes what the simulated target keeps.
    pub fn world(&self, change: impl FnOnce(&mut Value)) {
        let mut kept = std::fs::read_dir(self.path("state/sim")).unwrap();
        let path = kept.next().unwrap().unwrap().path();
        let mut saved: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        // The simulation saves its time and its world.
        change(&mut saved[1]);
        std::fs::write(path, saved.to_string()).unwrap();
    }

    /// Changes what the simulated target keeps of its runs' journals.
    pub fn journals(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<String>>)) {
        self.world(|world| {
            let mut parsed = serde_json::from_value(world["journals"].clone()).unwrap();
            change(&mut parsed);
            world["journals"] = serde_json::to_value(parsed).unwrap();
        });
    }

    /// Runs `mlctl ARGS` on the simulated target.
    pub async fn mlctl(&self, args: &[&str]) -> Told {
        let target = format!("sim:{}", self.scenario);
        self.plain(&[args, &["--target", &target]].concat()).await
    }

    /// Runs `mlctl ARGS` without naming a target.
    pub async fn plain(&self, args: &[&str]) -> Told {
        self.with_env(&[], args).await
    }

    /// Runs `mlctl ARGS` without naming a target, some variables being different.
    pub async fn with_env(&self, changes: &[(&str, &str)], args: &[&str]) -> Told {
        let (out, err) = (Sink::default(), Sink::default());
        let mut env = self.env();
        env.extend(changes.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let world = World::sealed(
            env,
            self.root.path().to_path_buf(),
            PathBuf::from("/nowhere/mlctl"),
            Box::new(out.clone()),
            Box::new(err.clone()),
        );
        let args = std::iter::once("mlctl").chain(args.iter().copied()).map(Into::into).collect();
        let status = mlctl::run(args, world).await;
        Told { status, stdout: out.text(), stderr: err.text() }
    }
}

impl Told {
    /// Returns the whole as a snapshot holds it.
    pub fn whole(&self) -> String {
        let Self { status, stdout, stderr } = self;
        format!("exit {} ({status:?})\n--- stdout\n{stdout}--- stderr\n{stderr}", *status as u8)
    }
}

/// Compares with the snapshot of that name, without what differs from run to run.
pub fn assert_told(name: &str, told: &Told) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("../snapshots");
    for (pattern, name) in [
        (r"01[0-9A-HJKMNP-TV-Z]{24}", "[RUN]"),
        (r"(?m)^ +\d+\.\ds ", "[AT] "),
        (r"\b\d+(\.\d+)? (ms|s)\b", "[TIME]"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "[WHEN]"),
        (r"pid \d+", "pid [PID]"),
        (r#""(took_ms|elapsed_ms|after_ms)": ?\d+"#, r#""$1":[MS]"#),
        // Real time passes: what is on the way may be seen once, often or never. What it comes to is always told.
        (r"(?m)^\[AT\]      \S+: in progress.*\n", ""),
        (r"(?m)^\[AT\]      \S+: \d+ of \d+ replicas ready, (\d+ updated|waiting).*\n", ""),
        (r"(?m)^\[AT\]      \d+ of \[TIME\], .*\n", ""),
        (r"evidence: /\S*/runs/", "evidence: [STATE]/runs/"),
        // A column is as wide as a figure.
        (r"\[TIME\] {2,}", "[TIME]  "),
    ] {
        settings.add_filter(pattern, name);
    }
    settings.bind(|| insta::assert_snapshot!(name, told.whole()));
}
