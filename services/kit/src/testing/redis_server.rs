//! A Redis server of a test's own, to be killed, paused, starved and brought back. The program `redis-server` is the
//! machine's; who needs no more than an answer takes a database of [`super::servers::redis`].

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secrecy::SecretString;

use super::Failure;

/// Time for a server to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module. It ends, with its folder, when it is dropped.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    folder: PathBuf,
    settings: Vec<(String, String)>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk, with these settings by the server's own names.
    ///
    /// # Errors
    /// No `redis-server` on this machine, or a setting that it does not take.
    pub fn start(settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("redis-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut server = Self { port, folder, settings: settings.collect(), child: None };
        server.run()?;
        Ok(server)
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> SecretString {
        SecretString::from(format!("redis://127.0.0.1:{}", self.port))
    }

    /// Starts it again on the same port and folder.
    ///
    /// # Errors
    /// As [`RedisServer::start`].
    #[expect(clippy::disallowed_methods, reason = "a program starts in real time, also under a paused clock")]
    pub fn run(&mut self) -> Result<(), Failure> {
        self.kill();
        let mut command = Command::new("redis-server");
        command.arg("--port").arg(self.port.to_string()).args(["--bind", "127.0.0.1", "--save", ""]);
        command.arg("--dir").arg(&self.folder);
        for (name, value) in &self.settings {
            command.arg(format!("--{name}")).arg(value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("redis-server: {error}"))?;
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Some(status) = child.try_wait()? {
                return Err(format!("redis-server ended: {status}").into());
            }
            if Instant::now() > until {
                child.kill()?;
                child.wait()?;
                return Err("redis-server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child = Some(child);
        Ok(())
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Throws away what it keeps on disk, while it does not run.
    pub fn forget(&self) {
        for name in ["appendonlydir", "dump.rdb"] {
            let path = self.folder.join(name);
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }

    /// Stops it where it is: connections stay, answers do not come.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
