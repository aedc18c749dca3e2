//! A Redis of one's own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::program::{Program, give_away, wrapped};
use super::{REDIS_URL, Store, folder};
use crate::free_ports;

/// Databases it has, so that each test takes one of its own.
const DATABASES: &str = "10000";
/// Time to answer after its start.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for one question while it starts.
pub(crate) const QUESTION: Duration = Duration::from_secs(1);

/// Redis with 10,000 databases; it keeps nothing on disk unless it is told to.
pub struct Redis {
    program: Program,
    port: u16,
    // After the program: that ends before its folder goes.
    folder: TempDir,
}

impl Redis {
    /// Starts one with everything in memory only.
    ///
    /// # Errors
    /// No `redis-server`, or it does not answer.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// Starts one with settings by the server's own names: `("maxmemory", "1mb")`, `("appendonly", "yes")`.
    ///
    /// # Errors
    /// No `redis-server`, a setting it does not take, or it does not answer.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self, String> {
        let folder = folder::new("redis")?;
        give_away(folder.path())?;
        let port = free_ports(1)[0];
        let number = port.to_string();
        let data = folder.path().display().to_string();
        let mut program = Program::new(
            "Redis",
            wrapped(Path::new("redis-server"), true, None),
            folder.path(),
            PATIENCE,
            move || answers(port),
        )
        .ending_by(Signal::SIGTERM, Signal::SIGKILL);
        let own = [
            ("port", number.as_str()),
            ("bind", "127.0.0.1"),
            ("dir", &data),
            ("databases", DATABASES),
            ("save", ""),
        ];
        for (name, value) in own.iter().chain(settings) {
            program.set_argument(&format!("--{name}"), value);
        }
        program.start()?;
        Ok(Self { program, port, folder })
    }

    /// Returns its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Changes a setting for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.program.set_argument(&format!("--{name}"), value);
    }
}

impl Store for Redis {
    fn name(&self) -> String {
        "Redis".to_owned()
    }

    fn programs(&mut self) -> Vec<&mut Program> {
        vec![&mut self.program]
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec![self.folder.path().to_path_buf()]
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![(REDIS_URL, self.url()), ("REDIS_URL", self.url())]
    }
}

fn answers(port: u16) -> Result<(), String> {
    let answer = asked(port, b"PING\r\n", 5)?;
    if answer == b"+PONG" { Ok(()) } else { Err(String::from_utf8_lossy(&answer).into_owned()) }
}

/// Sends a question and returns the first bytes of the answer.
pub(crate) fn asked(port: u16, question: &[u8], bytes: usize) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("127.0.0.1:{port}: {error}");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, QUESTION).map_err(told)?;
    stream.set_read_timeout(Some(QUESTION)).map_err(told)?;
    stream.write_all(question).map_err(told)?;
    let mut answer = vec![0; bytes];
    stream.read_exact(&mut answer).map_err(told)?;
    Ok(answer)
}
