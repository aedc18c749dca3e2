//! What a service logs, kept in memory.

use std::io::{Result, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::util::SubscriberInitExt;

use super::Failure;

/// The log lines of this process, as they would stand on stdout.
#[derive(Clone, Debug, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// Keeps everything that the whole process logs at `LOG_LEVEL` = `level` from now on; once per test program.
    ///
    /// # Errors
    /// When the process logs elsewhere already.
    pub fn capture(level: &str) -> std::result::Result<Self, Failure> {
        let logs = Self::default();
        let writer = logs.clone();
        crate::log::subscriber(level, move || writer.clone()).try_init()?;
        Ok(logs)
    }

    /// The lines until now.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
