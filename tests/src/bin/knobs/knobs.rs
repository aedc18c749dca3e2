//! What the environment says, and what the program answers because of it.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::Method;

use crate::names::take_name;

/// What the environment says.
#[derive(Debug, Clone)]
pub(crate) struct Knobs {
    pub(crate) port: u16,
    pub(crate) metrics_port: Option<u16>,
    pub(crate) version: String,
    pub(crate) exit_at_once: Option<u8>,
    /// Crashes so long after each start.
    pub(crate) crash_after: Option<Duration>,
    /// Crashes so long after its first start, and never again.
    pub(crate) crash_once_after: Option<Duration>,
    pub(crate) never_ready: bool,
    /// Is ready for so long, then not ready for as long, and so on.
    pub(crate) flap: Option<Duration>,
    /// Takes so long until it listens.
    pub(crate) start: Duration,
    pub(crate) health: u16,
    pub(crate) delay: Duration,
    /// Goes on when it is asked to end.
    pub(crate) ignore_term: bool,
    /// Processes that it starts besides; every other one in a session of its own.
    pub(crate) children: u32,
    /// Memory it takes bit by bit.
    pub(crate) memory_mib: Option<usize>,
    /// Open files it may have; it takes all of them.
    pub(crate) leak_files: Option<u64>,
    /// Writes a log of so many mebibytes as fast as it can.
    pub(crate) flood_mib: Option<usize>,
    /// Where `/names/NAME` keeps the names that are taken.
    pub(crate) names: Option<PathBuf>,
}

impl Knobs {
    pub(crate) fn read() -> Result<Self, String> {
        let millis = |name| knob(name, "milliseconds").map(|ms| ms.map(Duration::from_millis));
        let flag = |name| knob(name, "true or false").map(|flag| flag.unwrap_or(false));
        Ok(Self {
            port: knob("PORT", "a port")?.ok_or("PORT is missing: expected a port")?,
            metrics_port: knob("METRICS_PORT", "a port")?,
            version: std::env::var("KNOB_VERSION").unwrap_or_else(|_| "unnamed".to_owned()),
            exit_at_once: knob("KNOB_EXIT", "an exit code")?,
            crash_after: millis("KNOB_CRASH_AFTER_MS")?,
            crash_once_after: millis("KNOB_CRASH_ONCE_AFTER_MS")?,
            never_ready: flag("KNOB_NEVER_READY")?,
            flap: millis("KNOB_FLAP_MS")?.filter(|half| !half.is_zero()),
            start: millis("KNOB_START_MS")?.unwrap_or_default(),
            health: knob("KNOB_HEALTH", "an HTTP status")?.unwrap_or(200),
            delay: millis("KNOB_DELAY_MS")?.unwrap_or_default(),
            ignore_term: flag("KNOB_IGNORE_TERM")?,
            children: knob("KNOB_CHILDREN", "a number of processes")?.unwrap_or(0),
            memory_mib: knob("KNOB_MEMORY_MIB", "mebibytes")?,
            leak_files: knob("KNOB_LEAK_FILES", "a number of open files")?,
            flood_mib: knob("KNOB_FLOOD_MIB", "mebibytes")?,
            names: knob("KNOB_NAMES", "a folder")?,
        })
    }

    /// Returns status and body for a request, so long after the program began to listen.
    pub(crate) fn answer(&self, method: &Method, path: &str, age: Duration) -> (u16, String) {
        if let Some((folder, name)) = self.names.as_ref().zip(path.strip_prefix("/names/")) {
            return take_name(method, &folder.join(name), name);
        }
        let flaps = self.flap.is_some_and(|half| (age.as_millis() / half.as_millis()) % 2 == 1);
        match path {
            "/readyz" if self.never_ready => (503, "warming up for ever\n".to_owned()),
            "/readyz" if flaps => (503, "flapping as it was told\n".to_owned()),
            "/health" if self.health != 200 => (self.health, "the disk of knobs is full\n".to_owned()),
            "/readyz" | "/livez" | "/health" => (200, "ok\n".to_owned()),
            "/" => (200, format!("{}\n", self.version)),
            "/metrics" => (200, format!("knobs_version{{version=\"{}\"}} 1\n", self.version)),
            _ => (404, format!("no {path} here\n")),
        }
    }
}

/// Reads a variable; one that is there and makes no sense is told by its name.
pub(crate) fn knob<T: FromStr>(name: &str, expected: &str) -> Result<Option<T>, String> {
    match std::env::var(name) {
        Err(_) => Ok(None),
        Ok(text) => text.parse().map(Some).map_err(|_| format!("{name} is `{text}`: expected {expected}")),
    }
}
