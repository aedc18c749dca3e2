//! One program of a server: started, asked until it answers, disturbed, ended.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::cache;
use crate::{alive, family, pause};

/// User and group that servers run as where the suite is root and the server refuses to be: nobody's.
pub(crate) const NOBODY: u32 = 65_534;
/// Time for a server to end when asked.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// Time for one that is thrown away; it is killed afterwards.
const QUITS_WITHIN: Duration = Duration::from_secs(5);

/// Asks a program whether it serves.
type Question = Box<dyn Fn() -> Result<(), String> + Send>;

/// A program with all its processes.
pub struct Program {
    name: String,
    line: Vec<OsString>,
    folder: PathBuf,
    log: PathBuf,
    answers: Question,
    patience: Duration,
    stops: Signal,
    quits: Signal,
    child: Option<Child>,
}

impl Program {
    /// Returns a program that is not started yet. It works in `folder`, logs to a file of its name there, and has
    /// `patience` to answer the question.
    #[must_use]
    pub fn new(
        name: &str,
        line: Vec<OsString>,
        folder: &Path,
        patience: Duration,
        answers: impl Fn() -> Result<(), String> + Send + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            line,
            folder: folder.to_path_buf(),
            log: folder.join(format!("{}.log", name.to_lowercase())),
            answers: Box::new(answers),
            patience,
            stops: Signal::SIGTERM,
            quits: Signal::SIGKILL,
            child: None,
        }
    }

    /// Gives the signals that end it in good order, and at once but without leaving anything behind.
    pub(crate) fn ending_by(mut self, stops: Signal, quits: Signal) -> Self {
        (self.stops, self.quits) = (stops, quits);
        self
    }

    /// Changes an argument of the next start, or adds it.
    pub(crate) fn set_argument(&mut self, name: &str, value: &str) {
        match self.line.iter().position(|word| word == name) {
            Some(at) => self.line[at + 1] = value.into(),
            None => self.line.extend([name.into(), value.into()]),
        }
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It ended, or does not answer in time.
    pub fn start(&mut self) -> Result<(), String> {
        let Self { name, line, folder, log, .. } = self;
        let begun = || -> std::io::Result<(File, File)> {
            let file = OpenOptions::new().create(true).append(true).open(&*log)?;
            Ok((file.try_clone()?, file))
        };
        let (out, err) = begun().map_err(|error| format!("{name}: {}: {error}", log.display()))?;
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).current_dir(&*folder).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &*folder);
        command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(out).stderr(err);
        let child = spawn(command).map_err(|error| format!("{name}: {}: {error}", line[0].display()))?;
        self.child = Some(child);
        self.wait().inspect_err(|_| self.kill())
    }

    fn wait(&mut self) -> Result<(), String> {
        let until = Instant::now() + self.patience;
        loop {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(format!("{} ended with {status} before it answered{}", self.name, self.tail()));
            }
            match (self.answers)() {
                Ok(()) => return Ok(()),
                Err(_) if cache::interrupted() => return Err(format!("{}: interrupted", self.name)),
                Err(reason) if Instant::now() >= until => {
                    let (name, patience, tail) = (&self.name, self.patience, self.tail());
                    return Err(format!("waited {patience:?} for {name} to answer: {reason}{tail}"));
                }
                Err(_) => pause(Duration::from_millis(15)),
            }
        }
    }

    /// Returns the end of its log.
    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("; the end of its log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }

    /// Ids of its processes: the one that was started, and all that come from it.
    pub(crate) fn processes(&self) -> Vec<i32> {
        self.child.as_ref().map(|child| family(id(child))).unwrap_or_default()
    }

    /// Says whether it was started and has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Kills all its processes.
    ///
    /// # Panics
    /// When one survives that.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Who stands still starts no process that would be missed.
        tell(id(&child), Signal::SIGSTOP);
        let all = family(id(&child));
        for pid in &all {
            tell(*pid, Signal::SIGKILL);
        }
        let _ = child.wait();
        let until = Instant::now() + QUITS_WITHIN;
        while all.iter().any(|pid| alive(*pid)) {
            assert!(Instant::now() < until, "{}: of {all:?} some live after kill -9", self.name);
            pause(Duration::from_millis(2));
        }
    }

    /// Stops all its processes where they are.
    pub(crate) fn pause(&mut self) {
        if let Some(child) = &self.child {
            tell(id(child), Signal::SIGSTOP);
            for pid in family(id(child)) {
                tell(pid, Signal::SIGSTOP);
            }
        }
    }

    /// Lets them go on.
    pub(crate) fn resume(&mut self) {
        for pid in self.processes() {
            tell(pid, Signal::SIGCONT);
        }
    }

    /// Asks it to end in good order; one that does not is killed, and told.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        if self.ends(self.stops, ENDS_WITHIN) {
            return Ok(());
        }
        let told =
            format!("{} did not end within {ENDS_WITHIN:?} of {}{}", self.name, self.stops, self.tail());
        self.kill();
        Err(told)
    }

    /// Ends it, quickly.
    pub(crate) fn quit(&mut self) {
        if self.quits == Signal::SIGKILL || !self.ends(self.quits, QUITS_WITHIN) {
            self.kill();
        }
    }

    fn ends(&mut self, signal: Signal, within: Duration) -> bool {
        let Some(mut child) = self.child.take() else { return true };
        let all = family(id(&child));
        tell(id(&child), signal);
        for pid in &all {
            tell(*pid, Signal::SIGCONT);
        }
        let until = Instant::now() + within;
        while Instant::now() < until {
            if !matches!(child.try_wait(), Ok(None)) && !all.iter().any(|pid| alive(*pid)) {
                return true;
            }
            pause(Duration::from_millis(5));
        }
        self.child = Some(child);
        false
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.quit();
    }
}

/// Returns the words that start a program so that it dies with us, and as nobody where we are root and it must not.
#[must_use]
pub fn wrapped(program: &Path, as_nobody: bool, chroot: Option<&Path>) -> Vec<OsString> {
    let mut line: Vec<OsString> = Vec::new();
    if let Some(root) = chroot {
        line.extend(["chroot".into(), root.into()]);
    }
    // What changes its user forgets who it dies with: so setpriv does both, in that order.
    line.extend(["setpriv", "--pdeathsig", "KILL"].map(OsString::from));
    if as_nobody && is_root() {
        line.extend([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")].map(OsString::from));
        line.push("--clear-groups".into());
    }
    line.push(program.into());
    line
}

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// Gives a folder to nobody where we are root.
pub(crate) fn give_away(folder: &Path) -> Result<(), String> {
    if !is_root() {
        return Ok(());
    }
    std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY))
        .map_err(|error| format!("chown {}: {error}", folder.display()))
}

fn id(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

/// Sends a signal; who is gone already needs none.
fn tell(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Starts a command from a thread that lives as long as this process: a process that dies with us dies, to be exact,
/// with the thread that started it.
pub(crate) fn spawn(command: Command) -> std::io::Result<Child> {
    type Order = (Command, Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, taken) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in taken {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = channel();
    starter.lock().unwrap().send((command, answer)).unwrap();
    child.recv().unwrap()
}
