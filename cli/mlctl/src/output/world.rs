//! The process's surroundings, as values: environment, folder, streams. Tests bring their own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, IsTerminal as _, Read as _, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::streams::{End, Streams};

/// Between two looks whether the reader of stdout is still there.
const READER_POLL: Duration = Duration::from_millis(250);
/// Between two looks whether all that was said is written.
const DRAIN_POLL: Duration = Duration::from_millis(5);
/// Columns and rows of a terminal that does not say.
const USUAL: (usize, usize) = (100, 24);

/// What a command sees of the machine.
#[derive(Clone)]
pub struct World {
    env: Arc<BTreeMap<String, String>>,
    /// Variables that are there and are no text.
    no_text: Arc<BTreeSet<String>>,
    folder: PathBuf,
    exe: PathBuf,
    /// The user's home as the system's accounts know it. Looked up when it is asked for: the accounts may be files, or
    /// a server behind a socket.
    account_home: Arc<OnceLock<Option<PathBuf>>>,
    streams: Arc<Streams>,
    /// True once a command began to change the target: its outcome then outweighs what became of its output.
    changed: Arc<AtomicBool>,
    /// True for the streams of the process itself.
    real: bool,
    terminals: (bool, bool, bool),
    width: Option<usize>,
}

impl World {
    /// Returns the surroundings of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let (mut env, mut no_text) = (BTreeMap::new(), BTreeSet::new());
        for (name, value) in std::env::vars_os() {
            // A name that is no text is none of ours.
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(env.insert(name, value)),
                Err(_) => drop(no_text.insert(name)),
            }
        }
        Self {
            width: env.get("COLUMNS").and_then(|text| text.parse().ok()),
            env: Arc::new(env),
            no_text: Arc::new(no_text),
            folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            exe: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("mlctl")),
            account_home: Arc::default(),
            streams: Arc::new(Streams::new(Box::new(std::io::stdout()), Box::new(std::io::stderr()))),
            changed: Arc::default(),
            real: true,
            terminals: (
                std::io::stdin().is_terminal(),
                std::io::stdout().is_terminal(),
                std::io::stderr().is_terminal(),
            ),
        }
    }

    /// Returns sealed surroundings for a test: no terminal, and only what is given.
    #[must_use]
    pub fn sealed(
        env: BTreeMap<String, String>,
        folder: PathBuf,
        exe: PathBuf,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
    ) -> Self {
        Self {
            env: Arc::new(env),
            no_text: Arc::default(),
            folder,
            exe,
            account_home: Arc::new(OnceLock::from(None)),
            streams: Arc::new(Streams::new(out, err)),
            changed: Arc::default(),
            real: false,
            terminals: (false, false, false),
            width: None,
        }
    }

    /// Returns a variable.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }

    /// Returns a variable that names a folder or file; an empty one counts as absent.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.var(name).filter(|value| !value.is_empty()).map(|value| self.absolute(Path::new(&value)))
    }

    /// Returns a variable that is ours, or one of these, and is no text (UTF-8): what it says cannot be passed over.
    #[must_use]
    pub fn without_text(&self, names: &[&str]) -> Option<&str> {
        let meant = |name: &&String| name.starts_with("MLCTL_") || names.contains(&name.as_str());
        self.no_text.iter().find(meant).map(String::as_str)
    }

    /// Returns the user's home: `$HOME`, or what the system's accounts say. A service may have neither.
    #[must_use]
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME").or_else(|| self.account_home.get_or_init(account_home).clone())
    }

    /// Returns a path as seen from the present folder.
    #[must_use]
    pub fn absolute(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// Returns where this program lies.
    #[must_use]
    pub fn exe(&self) -> &Path {
        &self.exe
    }

    /// Says whether somebody can answer a question.
    #[must_use]
    pub const fn stdin_is_terminal(&self) -> bool {
        self.terminals.0
    }

    /// Says whether data goes to a terminal.
    #[must_use]
    pub const fn stdout_is_terminal(&self) -> bool {
        self.terminals.1
    }

    /// Says whether talk goes to a terminal.
    #[must_use]
    pub const fn stderr_is_terminal(&self) -> bool {
        self.terminals.2
    }

    /// Returns columns and rows of the terminal that talk goes to, as they are now: a window changes its size.
    #[must_use]
    pub fn terminal_size(&self) -> (usize, usize) {
        let asked = self.real.then(|| terminal_size::terminal_size_of(std::io::stderr())).flatten();
        let size = asked.map(|(columns, rows)| (usize::from(columns.0), usize::from(rows.0)));
        let (columns, rows) = size.unwrap_or(USUAL);
        (self.width.filter(|wanted| *wanted > 0).map_or(columns, |wanted| wanted.min(columns)), rows)
    }

    /// Writes from now on by a thread of its own, so that a reader who pauses holds nobody up.
    pub fn write_in_background(&self) {
        self.streams.in_background();
    }

    /// Waits until all that was said is written.
    pub async fn written(&self) {
        while self.streams.is_behind() {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Writes data. A closed pipe ends quietly: the reader has seen enough.
    pub fn stdout(&self, bytes: &[u8]) {
        self.streams.write(End::Out, bytes);
    }

    /// Writes talk. Nobody is left to tell when the stream itself is gone.
    pub fn stderr(&self, bytes: &[u8]) {
        self.streams.write(End::Err, bytes);
    }

    /// Says why data was lost on its way out (a full disk), when it was.
    #[must_use]
    pub fn stdout_lost(&self) -> Option<String> {
        self.streams.lost()
    }

    /// Notes that the command changes its target from here on.
    pub fn note_change(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Says whether the command began to change its target.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    /// Says whether the reader of stdout has gone away; what follows or watches ends then.
    #[must_use]
    pub fn stdout_is_unread(&self) -> bool {
        if !self.streams.is_unread() && self.real {
            let stdout = std::io::stdout();
            // Asking for nothing, a poll still tells errors: POLLERR is a pipe without a reader (poll(2)).
            let mut asked = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
            let told = poll(&mut asked, PollTimeout::ZERO).is_ok_and(|count| count > 0);
            let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
            if told && asked[0].revents().is_some_and(|events| events.intersects(gone)) {
                self.streams.note_unread();
            }
        }
        self.streams.is_unread()
    }

    /// Waits until the reader of stdout has gone away.
    pub async fn stdout_unread(&self) {
        while !self.stdout_is_unread() {
            tokio::time::sleep(READER_POLL).await;
        }
    }

    /// Reads one line from stdin; none at its end.
    #[must_use]
    pub fn read_line(&self) -> Option<String> {
        let mut line = String::new();
        let mut byte = [0_u8; 1];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => return Some(line),
                Ok(1) => line.push(char::from(byte[0])),
                Ok(_) => return (!line.is_empty()).then_some(line),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

/// Returns this user's home as the system's accounts have it.
fn account_home() -> Option<PathBuf> {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    user.map(|user| user.dir).filter(|home| home.is_absolute())
}
