//! One machine as mlctl sees it: everything it keeps lies below one temporary folder, on ports of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{Finished, binaries, free_ports, kill, mlctl, of_folder, repository};

/// Time for one command, unless a test says otherwise.
const LIMIT: Duration = Duration::from_secs(150);
/// Variables of the caller that the toolchain needs to build.
const KEPT: [&str; 8] =
    ["PATH", "CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "LANG", "CC"];

/// A sealed place for one system; what runs in it ends with it.
pub struct Sandbox {
    root: TempDir,
    ports: BTreeMap<u16, u16>,
    extra: Vec<(String, String)>,
    ended: bool,
}

/// A command that runs.
pub struct Running {
    line: String,
    child: Child,
    began: Instant,
}

impl Sandbox {
    /// Returns a sandbox with a system file of `tests/fixtures/NAME/` and everything beside it.
    ///
    /// Programs of this package are there under their names, as artifacts.
    #[must_use]
    pub fn of_fixture(name: &str, programs: &[(&str, &str)]) -> Self {
        let folder = repository().join("tests/fixtures").join(name);
        let sandbox = Self::empty();
        for path in walk(&folder) {
            let copied = sandbox.system_folder().join(path.strip_prefix(&folder).unwrap());
            std::fs::create_dir_all(copied.parent().unwrap()).unwrap();
            std::fs::copy(path, copied).unwrap();
        }
        for (name, path) in programs {
            std::fs::copy(path, sandbox.system_folder().join(name)).unwrap();
        }
        sandbox.with_impatient_playbooks();
        sandbox.on_free_ports()
    }

    /// Returns a sandbox with the system that this repository ships, its services built and a short load test.
    ///
    /// What its build commands do is the business of whoever built it: here they are left out.
    #[must_use]
    pub fn of_shipped() -> Self {
        let sandbox = Self::whole_shipped();
        sandbox.edit("duration: 20s", "duration: 4s");
        // Of a thousand requests nobody can say whether less than one in a thousand fails, and a test that also
        // measures something else on the same two cores is no place to judge latencies.
        sandbox.edit("target: \"<0.1%\"", "target: \"<1%\"");
        sandbox.edit("target: \"<500ms\"", "target: \"<3s\"");
        sandbox
    }

    /// Returns a sandbox with the shipped system and its load test at full length.
    #[must_use]
    pub fn whole_shipped() -> Self {
        let sandbox = Self::empty();
        let folder = sandbox.system_folder();
        std::fs::create_dir_all(folder.join("target")).unwrap();
        std::os::unix::fs::symlink(binaries::built(), folder.join("target/release")).unwrap();
        for name in ["services", "playbooks"] {
            std::os::unix::fs::symlink(repository().join(name), folder.join(name)).unwrap();
        }
        let text = std::fs::read_to_string(repository().join("mlctl.yaml")).unwrap();
        let built: Vec<String> = text.lines().map(without_build_command).collect();
        std::fs::write(sandbox.system_file(), built.join("\n") + "\n").unwrap();
        sandbox.on_free_ports()
    }

    /// Copies the playbooks, with less patience for answers that a fixture never gives.
    fn with_impatient_playbooks(&self) {
        let folder = self.system_folder().join("playbooks");
        std::fs::create_dir(&folder).unwrap();
        for name in ["deploy.yaml", "rollback.yaml"] {
            let text = std::fs::read_to_string(repository().join("playbooks").join(name)).unwrap();
            assert!(text.contains("within: 30s"), "playbooks/{name} waits for health no more as it did");
            std::fs::write(folder.join(name), text.replace("within: 30s", "within: 3s")).unwrap();
        }
    }

    fn empty() -> Self {
        let root = tempfile::Builder::new().prefix("mlctl-e2e-").tempdir().unwrap();
        for folder in ["system", "state", "local", "run", "home"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        Self { root, ports: BTreeMap::new(), extra: Vec::new(), ended: false }
    }

    /// Gives every port of the system file a free one in its place.
    fn on_free_ports(mut self) -> Self {
        let text = self.system_text();
        let mut found: Vec<u16> =
            text.match_indices("port: ").filter_map(|(at, _)| number(&text[at + 6..])).collect();
        found.sort_unstable();
        found.dedup();
        self.ports = found.iter().copied().zip(free_ports(found.len())).collect();
        let mut pieces = text.split("port: ");
        let mut rewritten = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            rewritten.push_str("port: ");
            match number(piece) {
                Some(port) => {
                    let digits = port.to_string().len();
                    rewritten.push_str(&self.ports[&port].to_string());
                    rewritten.push_str(&piece[digits..]);
                }
                None => rewritten.push_str(piece),
            }
        }
        self.write_system(&rewritten);
        self
    }

    /// Returns the folder that holds everything.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Returns the folder of the system file.
    #[must_use]
    pub fn system_folder(&self) -> PathBuf {
        self.root().join("system")
    }

    /// Returns the folder that the embedded target keeps everything in.
    #[must_use]
    pub fn local(&self) -> PathBuf {
        self.root().join("local")
    }

    /// Returns the folder of runs at home.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root().join("state")
    }

    /// Returns the path of the system file.
    #[must_use]
    pub fn system_file(&self) -> PathBuf {
        self.system_folder().join("mlctl.yaml")
    }

    fn system_text(&self) -> String {
        std::fs::read_to_string(self.system_file()).unwrap()
    }

    /// Returns the base URL of a service, by the port that its file in the repository names.
    #[must_use]
    pub fn url(&self, port: u16) -> String {
        format!("http://127.0.0.1:{}", self.ports[&port])
    }

    /// Writes the system file in one step, as an editor does: commands that run meanwhile read the old or the new one.
    fn write_system(&self, text: &str) {
        let beside = self.system_folder().join(".mlctl.yaml.new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.system_file()).unwrap();
    }

    /// Replaces a text of the system file.
    ///
    /// # Panics
    /// When it is not in there: an edit that changes nothing proves nothing.
    #[track_caller]
    pub fn edit(&self, from: &str, to: &str) {
        let text = self.system_text();
        assert!(text.contains(from), "`{from}` is not in the system file:\n{text}");
        self.write_system(&text.replace(from, to));
    }

    /// Replaces a text in the part of the system file that speaks of one service.
    ///
    /// # Panics
    /// When it is not in there.
    #[track_caller]
    pub fn edit_service(&self, service: &str, from: &str, to: &str) {
        let text = self.system_text();
        let begin =
            text.find(&format!("\n  {service}:\n")).unwrap_or_else(|| panic!("no service {service}")) + 1;
        let after = begin + text[begin..].find('\n').unwrap() + 1;
        // Its part ends where the next key of at most its own depth begins.
        let next = text[after..].lines().scan(after, |at, line| {
            let begin = *at;
            *at += line.len() + 1;
            Some((begin, line))
        });
        let ends = |line: &str| line.len() - line.trim_start().len() <= 2 && !line.trim().is_empty();
        let end = next.into_iter().find(|(_, line)| ends(line)).map_or(text.len(), |(at, _)| at);
        let part = &text[begin..end];
        assert!(part.contains(from), "`{from}` is not in the part of {service}:\n{part}");
        let edited = format!("{}{}{}", &text[..begin], part.replace(from, to), &text[end..]);
        self.write_system(&edited);
    }

    /// Gives a variable to every command from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.extra.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn command(&self, args: &[&str]) -> std::process::Command {
        self.sealed(&mlctl(), args)
    }

    /// Returns a command that sees nothing but the sandbox.
    fn sealed(&self, program: &Path, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command.current_dir(self.system_folder()).args(args).env_clear();
        let folder = |name: &str| self.root().join(name);
        command.env("HOME", folder("home")).env("MLCTL_STATE", folder("state"));
        command.env("MLCTL_LOCAL", folder("local")).env("XDG_RUNTIME_DIR", folder("run"));
        command.env("USER", "tester").env("TERM", "dumb");
        for name in KEPT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // The toolchain's own folders are found from the home of the caller, which the command does not see.
        if let Some(home) = std::env::var_os("HOME").map(PathBuf::from) {
            for (name, below) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
                if std::env::var_os(name).is_none() {
                    command.env(name, home.join(below));
                }
            }
        }
        command.envs(self.extra.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts `mlctl ARGS`.
    #[must_use]
    pub fn start(&self, args: &[&str]) -> Running {
        Running::of(format!("mlctl {}", args.join(" ")), self.command(args))
    }

    /// Starts `mlctl ARGS` on a host of another name: a UTS namespace of its own, which only root may make.
    #[must_use]
    pub fn start_on(&self, host: &str, args: &[&str]) -> Running {
        let mlctl = mlctl();
        let rename = "echo \"$0\" > /proc/sys/kernel/hostname && exec \"$@\"";
        let words = ["--uts", "--", "sh", "-c", rename, host, mlctl.to_str().unwrap()];
        let command = self.sealed(Path::new("unshare"), &[&words[..], args].concat());
        Running::of(format!("{host}: mlctl {}", args.join(" ")), command)
    }

    /// Starts `PROGRAM... mlctl ARGS`: a program that becomes mlctl, such as `env` or `unshare`.
    #[must_use]
    pub fn start_by(&self, program: &[&str], args: &[&str]) -> Running {
        let command = self.command(args);
        let mut wrapped = std::process::Command::new(program[0]);
        wrapped.args(&program[1..]).arg(command.get_program()).args(command.get_args());
        wrapped.current_dir(self.system_folder()).env_clear();
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        wrapped.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = Command::from(wrapped).kill_on_drop(true).spawn().unwrap();
        Running {
            line: format!("{} mlctl {}", program.join(" "), args.join(" ")),
            child,
            began: Instant::now(),
        }
    }

    /// Runs `mlctl ARGS` to its end.
    pub async fn mlctl(&self, args: &[&str]) -> Finished {
        self.start(args).finish().await
    }

    /// Runs `mlctl ARGS` with a time limit of its own.
    pub async fn mlctl_within(&self, limit: Duration, args: &[&str]) -> Finished {
        self.start(args).finish_within(limit).await
    }

    /// Returns what `mlctl ARGS -o json` answers.
    pub async fn query(&self, args: &[&str]) -> serde_json::Value {
        self.mlctl(&[args, &["-o", "json"]].concat()).await.ends(0).json()
    }

    /// Returns the events of the newest run, as the file at home has them.
    #[must_use]
    pub fn newest_events(&self) -> Vec<serde_json::Value> {
        let mut files: Vec<PathBuf> =
            walk(&self.state()).into_iter().filter(|path| path.ends_with("events.jsonl")).collect();
        files.sort();
        let text = files.last().map(|path| std::fs::read_to_string(path).unwrap()).unwrap_or_default();
        // A run under way may be in the middle of its last line.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Takes everything down, as a person would, and asserts that nothing is left.
    ///
    /// # Panics
    /// When `down --purge` fails or a process survives it.
    pub async fn end(mut self) {
        self.mlctl(&["down", "--purge", "--yes"]).await.ends(0);
        eventually("every process of the sandbox to end", Duration::from_secs(5), async || {
            let left = of_folder(self.root());
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        self.ended = true;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // A test failed: what ran in its sandbox must not outlive it. Its own logs are the evidence.
        if std::thread::panicking() {
            for path in walk(&self.local()).iter().filter(|path| path.ends_with("agent.log")) {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = &lines[lines.len().saturating_sub(30)..];
                println!("--- the end of {}\n{}", path.display(), tail.join("\n"));
            }
        }
        let _ = self.command(&["down", "--purge", "--yes"]).output();
        for process in of_folder(self.root()) {
            kill(process.pid);
        }
    }
}

impl Running {
    fn of(line: String, command: std::process::Command) -> Self {
        let child = Command::from(command).kill_on_drop(true).spawn().unwrap();
        Self { line, child, began: Instant::now() }
    }

    /// Returns the process's id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id().unwrap()).unwrap()
    }

    /// Waits for its end.
    pub async fn finish(self) -> Finished {
        self.finish_within(LIMIT).await
    }

    /// Waits for its end; one that takes longer is killed and fails the test.
    ///
    /// # Panics
    /// When it takes longer.
    pub async fn finish_within(self, limit: Duration) -> Finished {
        let Self { line, child, began } = self;
        let pid = child.id();
        let output = tokio::time::timeout(limit, child.wait_with_output()).await;
        let output =
            output.unwrap_or_else(|_| panic!("`{line}` ({pid:?}) is not over after {limit:?}")).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Finished {
            line,
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            took: began.elapsed(),
        }
    }
}

/// Asks again and again until the answer is good; fails with the last one when it never is.
///
/// # Panics
/// When the time is over.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let until = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(reason) if Instant::now() >= until => panic!("waited {limit:?} for {what}: {reason}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Returns every file below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() && !path.is_symlink() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Returns the number that a text begins with.
fn number(text: &str) -> Option<u16> {
    text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

/// Returns a line of the shipped file without the command that makes an artifact.
fn without_build_command(line: &str) -> String {
    match (line.find("run: ["), line.find("cargo, build")) {
        (Some(begin), Some(_)) => {
            let end = begin + line[begin..].find(']').unwrap() + 1;
            format!("{}run: []{}", &line[..begin], &line[end..])
        }
        _ => line.to_owned(),
    }
}
