//! The log of a replica: each line with the time it was read, in files that are bounded together.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use mlctl_core::local_protocol::LOG_FILES;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// Bytes of one file before the next is begun.
const FILE_BYTES: u64 = 20 << 20;
/// Bytes of one line; a longer one is cut into several.
const LINE_BYTES: usize = 16 << 10;

/// The file being written, and its predecessors.
pub(super) struct LogFile {
    folder: PathBuf,
    file: File,
    bytes: u64,
    limit: u64,
}

impl LogFile {
    /// Opens the log of a replica's folder, behind what earlier runs wrote.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        Self::with_limit(folder, FILE_BYTES)
    }

    fn with_limit(folder: &Path, limit: u64) -> io::Result<Self> {
        let file = Self::open_current(folder)?;
        let bytes = file.metadata()?.len();
        Ok(Self { folder: folder.to_owned(), file, bytes, limit })
    }

    fn open_current(folder: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(LOG_FILES[0]))
    }

    /// Writes whole lines, each with its time in front.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.bytes >= self.limit {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for pair in LOG_FILES.windows(2).rev() {
            let (newer, older) = (self.folder.join(pair[0]), self.folder.join(pair[1]));
            match fs::rename(&newer, &older) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = Self::open_current(&self.folder)?;
        self.bytes = 0;
        Ok(())
    }
}

/// Copies a program's output into its log until every writer has closed it.
///
/// A log that cannot be written (a full disk) must not stop the program: its output is read on and lost.
pub(super) async fn keep_log(output: OwnedFd, mut file: LogFile) {
    let Ok(mut output) = pipe::Receiver::from_owned_fd(output) else { return };
    let mut lines = Lines::default();
    let mut buffer = vec![0; 64 << 10];
    let mut text = Vec::new();
    loop {
        let read = output.read(&mut buffer).await.unwrap_or_default();
        text.clear();
        let now = Timestamp::now();
        if read == 0 {
            lines.finish(now, &mut text);
        } else {
            lines.push(&buffer[..read], now, &mut text);
        }
        if !text.is_empty() {
            let _ = file.write(&text);
        }
        if read == 0 {
            return;
        }
    }
}

/// Cuts output into lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = LINE_BYTES - self.begun.len();
            let window = &bytes[..bytes.len().min(room)];
            match window.iter().position(|b| *b == b'\n') {
                Some(end) => {
                    self.begun.extend_from_slice(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    self.end(now, out);
                }
                None => {
                    self.begun.extend_from_slice(window);
                    bytes = &bytes[window.len()..];
                    if self.begun.len() == LINE_BYTES {
                        self.end(now, out);
                    }
                }
            }
        }
    }

    fn finish(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if !self.begun.is_empty() {
            self.end(now, out);
        }
    }

    fn end(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if self.begun.last() == Some(&b'\r') {
            self.begun.pop();
        }
        out.extend_from_slice(format!("{now:.6} ").as_bytes());
        out.append(&mut self.begun);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const STAMP: &str = "1970-01-01T00:00:00.000000Z ";

    #[test]
    fn lines_get_a_time_however_the_reads_fall() {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for piece in ["on", "e\ntwo\r\n", "\nth", "ree"] {
            lines.push(piece.as_bytes(), NOW, &mut out);
        }
        lines.finish(NOW, &mut out);
        let expected = ["one", "two", "", "three"].map(|l| format!("{STAMP}{l}\n")).concat();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        lines.push(&vec![b'x'; LINE_BYTES * 2 + 5], NOW, &mut out);
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 2);
        assert_eq!(lines.begun.len(), 5);
    }

    #[test]
    fn five_files_are_kept_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogFile::with_limit(folder.path(), 10).unwrap();
        for number in 0..8 {
            log.write(format!("line number {number}\n").as_bytes()).unwrap();
        }
        let read = |name| fs::read_to_string(folder.path().join(name)).unwrap();
        let kept: Vec<String> = LOG_FILES.into_iter().map(read).collect();
        assert_eq!(kept, ["7", "6", "5", "4", "3"].map(|n| format!("line number {n}\n")));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), LOG_FILES.len());
        let reopened = LogFile::with_limit(folder.path(), 10).unwrap();
        assert_eq!(reopened.bytes, 14);
    }
}
