//! The process's surroundings, as values: environment, folder, streams. Tests bring their own.

use std::collections::BTreeMap;
use std::io::{ErrorKind, IsTerminal as _, Read as _, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

type Stream = Arc<Mutex<Box<dyn Write + Send>>>;

/// Between two looks whether the reader of stdout is still there.
const READER_POLL: Duration = Duration::from_millis(250);

/// What a command sees of the machine.
#[derive(Clone)]
pub struct World {
    env: Arc<BTreeMap<String, String>>,
    folder: PathBuf,
    exe: PathBuf,
    /// The user's home as the system's accounts know it.
    account_home: Option<PathBuf>,
    out: Stream,
    err: Stream,
    /// True for the streams of the process itself.
    real: bool,
    /// True once a write to stdout found its reader gone.
    unread: Arc<AtomicBool>,
    terminals: (bool, bool, bool),
    width: usize,
}

impl World {
    /// Returns the surroundings of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let width = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        Self {
            env: Arc::new(
                std::env::vars_os()
                    // A variable that is no text is none of ours.
                    .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                    .collect(),
            ),
            folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            exe: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("mlctl")),
            account_home: nix::unistd::User::from_uid(nix::unistd::getuid())
                .ok()
                .flatten()
                .map(|user| user.dir)
                .filter(|home| home.is_absolute()),
            out: Arc::new(Mutex::new(Box::new(std::io::stdout()))),
            err: Arc::new(Mutex::new(Box::new(std::io::stderr()))),
            real: true,
            unread: Arc::default(),
            terminals: (
                std::io::stdin().is_terminal(),
                std::io::stdout().is_terminal(),
                std::io::stderr().is_terminal(),
            ),
            width: width.or_else(terminal_width).unwrap_or(100).clamp(40, 400),
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
            folder,
            exe,
            account_home: None,
            out: Arc::new(Mutex::new(out)),
            err: Arc::new(Mutex::new(err)),
            real: false,
            unread: Arc::default(),
            terminals: (false, false, false),
            width: 100,
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

    /// Returns the user's home: `$HOME`, or what the system's accounts say. A service may have neither.
    #[must_use]
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME").or_else(|| self.account_home.clone())
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

    /// Returns the columns of the terminal, or 100.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Writes data. A closed pipe ends quietly: the reader has seen enough.
    pub fn stdout(&self, bytes: &[u8]) {
        if write(&self.out, bytes).is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            self.unread.store(true, Ordering::Relaxed);
        }
    }

    /// Writes talk. Nobody is left to tell when the stream itself is gone.
    pub fn stderr(&self, bytes: &[u8]) {
        let _ = write(&self.err, bytes);
    }

    /// Says whether the reader of stdout has gone away; what follows or watches ends then.
    #[must_use]
    pub fn stdout_is_unread(&self) -> bool {
        if !self.unread.load(Ordering::Relaxed) && self.real {
            let stdout = std::io::stdout();
            // Asking for nothing, a poll still tells errors: POLLERR is a pipe without a reader (poll(2)).
            let mut asked = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
            let told = poll(&mut asked, PollTimeout::ZERO).is_ok_and(|count| count > 0);
            let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
            if told && asked[0].revents().is_some_and(|events| events.intersects(gone)) {
                self.unread.store(true, Ordering::Relaxed);
            }
        }
        self.unread.load(Ordering::Relaxed)
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
        while stdin.read(&mut byte).ok()? == 1 {
            if byte[0] == b'\n' {
                return Some(line);
            }
            line.push(char::from(byte[0]));
        }
        (!line.is_empty()).then_some(line)
    }
}

fn write(stream: &Stream, bytes: &[u8]) -> std::io::Result<()> {
    let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
    stream.write_all(bytes).and_then(|()| stream.flush())
}

fn terminal_width() -> Option<usize> {
    terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))
}
