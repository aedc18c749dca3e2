//! A system on a simulated target: the real binary, no replicas, a deploy in a second. For what is about the process
//! itself: its streams, its files, its exit codes.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{Finished, Sandbox, mlctl, repository};

/// Time for one command.
const LIMIT: Duration = Duration::from_secs(120);

/// A folder with a small system and a scenario that its target plays.
pub struct Seal {
    root: TempDir,
    scenario: String,
}

impl Seal {
    /// Opens a place whose target plays a file of `cli/mlctl/tests/scenarios/`.
    ///
    /// # Panics
    /// Without such a file.
    #[must_use]
    pub fn new(scenario: &str) -> Self {
        let root = tempfile::Builder::new().prefix("mlctl-seal-").tempdir().unwrap();
        let tests = repository().join("cli/mlctl/tests");
        std::fs::copy(tests.join("system/mlctl.yaml"), root.path().join("mlctl.yaml")).unwrap();
        std::fs::copy(tests.join("scenarios").join(scenario), root.path().join(scenario)).unwrap();
        std::fs::create_dir(root.path().join("playbooks")).unwrap();
        for name in ["deploy.yaml", "rollback.yaml"] {
            let text = std::fs::read_to_string(repository().join("playbooks").join(name)).unwrap();
            let quick =
                text.replace("stable_for: 1s", "stable_for: 0s").replace("within: 30s", "within: 300ms");
            let quick = quick.replace("retries: 2", "retries: 0").replace("deadline: 5m", "deadline: 2s");
            assert_ne!(text, quick, "playbooks/{name} has other clocks than it had");
            std::fs::write(root.path().join("playbooks").join(name), quick).unwrap();
        }
        for folder in ["home", "state", "run"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        Self { root, scenario: scenario.to_owned() }
    }

    /// Takes the playbooks that are built in, with all their patience: a deploy then takes some seconds.
    ///
    /// # Panics
    /// When there are none to remove.
    #[must_use]
    pub fn patient(self) -> Self {
        std::fs::remove_dir_all(self.path("playbooks")).unwrap();
        self
    }

    /// Returns the path of a file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Replaces a text of the system file.
    ///
    /// # Panics
    /// When it is not in there.
    #[track_caller]
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("mlctl.yaml")).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(self.path("mlctl.yaml"), text.replace(from, to)).unwrap();
    }

    /// Returns `mlctl ARGS --target sim:SCENARIO`, to be changed before it runs.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        self.plain(&[args, &["--target", &format!("sim:{}", self.scenario)]].concat())
    }

    /// Returns `mlctl ARGS`, to be changed before it runs.
    #[must_use]
    pub fn plain(&self, args: &[&str]) -> Command {
        let mut command = Command::new(mlctl());
        command.args(args).current_dir(self.root.path()).env_clear();
        for (name, folder) in
            [("HOME", "home"), ("MLCTL_STATE", "state"), ("MLCTL_LOCAL", "local"), ("XDG_RUNTIME_DIR", "run")]
        {
            command.env(name, self.path(folder));
        }
        command.env("MLCTL_OPERATOR", "ana").env("MLCTL_HOST", "desk");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Runs `mlctl ARGS` on the simulated target to its end.
    #[must_use]
    pub fn mlctl(&self, args: &[&str]) -> Finished {
        end(self.command(args))
    }

    /// Asserts that nothing of what was done to it hinders the next deploy, that all its records can be read, and that
    /// it leads to where an undisturbed one does.
    ///
    /// # Panics
    /// When that is not so.
    #[track_caller]
    pub fn deploys_well(&self) {
        self.mlctl(&["deploy"]).ends(0);
        self.is_well();
    }

    /// Asserts that what runs is verified, that nobody holds the lock and every journal can be read.
    ///
    /// # Panics
    /// When that is not so.
    #[track_caller]
    pub fn is_well(&self) {
        let status = self.mlctl(&["status", "-o", "json"]).ends(0).json();
        assert_eq!(
            (&status["release_state"], &status["lock"]),
            (&"verified".into(), &serde_json::Value::Null)
        );
        for item in status["items"].as_array().unwrap() {
            assert_eq!(item["status"], "current", "{status:#}");
        }
        let runs = self.mlctl(&["runs", "-o", "json"]).ends(0).json();
        let broken = runs["runs"].as_array().unwrap().iter().find(|run| !run["broken"].is_null());
        assert!(broken.is_none(), "{runs:#}");
    }
}

impl Sandbox {
    /// Returns `mlctl ARGS` in the sandbox, to be changed before it runs.
    #[must_use]
    pub fn prepared(&self, args: &[&str]) -> Command {
        self.command(args)
    }
}

/// Returns a command run by way of others: `WRAPPER... PROGRAM ARGS`, in the same folder and environment.
#[must_use]
pub fn through(wrapper: &[&str], command: &Command) -> Command {
    let (program, first) = wrapper
        .split_first()
        .map_or((command.get_program(), &[][..]), |(program, rest)| (std::ffi::OsStr::new(*program), rest));
    let mut wrapped = Command::new(program);
    wrapped.args(first).env_clear();
    if !wrapper.is_empty() {
        wrapped.arg(command.get_program());
    }
    wrapped.args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped
}

/// Begins a command with nothing to read and both streams kept.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn begin(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command to its end; one that takes too long is killed and fails the test.
///
/// # Panics
/// When it takes too long.
#[must_use]
#[track_caller]
pub fn end(command: Command) -> Finished {
    let line = format!("{command:?}");
    let line = line.split("mlctl-seal-").last().unwrap_or_default().to_owned();
    let began = Instant::now();
    let mut child = begin(command);
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || read(&mut out));
    let err = std::thread::spawn(move || read(&mut err));
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if began.elapsed() > LIMIT {
            // Whoever runs it by way of another is killed with it: its readers end with the last of them.
            let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
            let _ = killpg(group, Signal::SIGKILL);
            let told = format!("{}\n{}", out.join().unwrap(), err.join().unwrap());
            panic!("`{line}` is not over after {LIMIT:?}: {told}");
        }
        pause(Duration::from_millis(2));
    };
    let (stdout, stderr) = (out.join().unwrap(), err.join().unwrap());
    Finished { line, code, stdout, stderr, took: began.elapsed() }
}

/// Waits. For threads that watch a real process: nothing here runs on a paused clock.
#[expect(clippy::disallowed_methods, reason = "a thread of its own, beside any runtime")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn read(stream: &mut impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The codes of `docs/exit-codes.md`.
///
/// # Panics
/// Without that page.
#[must_use]
pub fn documented_codes() -> Vec<i32> {
    let page = std::fs::read_to_string(repository().join(Path::new("docs/exit-codes.md"))).unwrap();
    page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect()
}

impl Finished {
    /// Asserts an end that a person can do something with: a documented code, no panic, and for a failure an error
    /// that says more than one word and what to do next.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn is_clear(self) -> Self {
        let told = || self.told();
        let code = self.code.unwrap_or_else(|| panic!("ended by a signal: {}", told()));
        assert!(documented_codes().contains(&code), "undocumented code: {}", told());
        for stream in [&self.stdout, &self.stderr] {
            assert!(!stream.contains("panicked at") && !stream.contains("has a bug"), "{}", told());
        }
        let said = |begins: &str| {
            let lines = self.stderr.lines().chain(self.stdout.lines());
            lines.map(str::trim_start).find(|line| line.starts_with(begins)).map(str::to_owned)
        };
        if code != 0 && code != 10 {
            let text = said("error: ").or_else(|| said("because: ")).or_else(|| said("{\"error\":"));
            let text = text.unwrap_or_else(|| panic!("no reason: {}", told()));
            assert!(text.split_whitespace().count() > 4, "{}", told());
            // Either a hint, or the summary's own list of what to do next.
            let next = ["hint: ", "\"hints\":[\"", "try '--help'", "--resume", "  mlctl "];
            let both = format!("{}{}", self.stderr, self.stdout);
            assert!(
                next.iter().any(|text| both.contains(text)),
                "it does not say what to do next: {}",
                told()
            );
        }
        self
    }
}
