//! The journal's copy at home: whole lines or none, read without trust in its size.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;

use mlctl_core::run::journal::{Findings, Inspection, LONGEST};

use super::{open, private_file};

/// The file of a journal, open for appending.
#[derive(Debug)]
pub(super) struct HomeFile {
    file: File,
    /// Its length behind the last whole record.
    whole: u64,
    /// Why it ends there for good: a record after it could not be written.
    ended: Option<String>,
}

impl HomeFile {
    /// Opens the file so that it holds exactly `so_far`.
    pub(super) fn open(path: &Path, so_far: &str) -> io::Result<Self> {
        if !holds(path, so_far)? {
            // Beside it and over it, so that a kill in between leaves the old copy or the new one.
            let beside = path.with_extension("jsonl.new");
            let mut file = private_file(&beside, OpenOptions::new().write(true).truncate(true))?;
            file.write_all(so_far.as_bytes()).and_then(|()| file.sync_all())?;
            std::fs::rename(&beside, path)?;
        }
        let whole = so_far.len() as u64;
        Ok(Self { file: open(path)?, whole, ended: None })
    }

    /// Appends a line, durably. What cannot be written ends the copy: a record behind a gap would be of no use.
    pub(super) fn append(&mut self, line: &str) {
        if self.ended.is_some() {
            return;
        }
        let line = format!("{line}\n");
        match self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()) {
            Ok(()) => self.whole += line.len() as u64,
            Err(error) => {
                // What cannot be taken away now is a torn tail, which every reader drops.
                let _ = self.file.set_len(self.whole);
                self.ended = Some(error.to_string());
            }
        }
    }

    /// Says why the copy lacks the last records, when it does.
    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }
}

/// Says whether a file holds exactly that text.
fn holds(path: &Path, text: &str) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(file) if file.len() != text.len() as u64 => Ok(false),
        Ok(_) => Ok(std::fs::read(path)? == text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(text.is_empty()),
        Err(error) => Err(error),
    }
}

/// Looks at a journal line by line, however long its lines are and however large it is.
pub(crate) fn inspect_file(path: &Path) -> io::Result<Findings> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut inspection = Inspection::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = LONGEST as u64 + 1;
        if (&mut reader).take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(inspection.end());
        }
        if line.len() as u64 == most && line.last() != Some(&b'\n') {
            let rest = reader.skip_until(b'\n')?;
            inspection.too_long(most + rest as u64);
        } else {
            inspection.line(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn it_holds_what_the_mirror_holds_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/journal.jsonl");
        for (home, mirror) in [
            (None, ""),
            (None, "a\nb\n"),
            (Some("a\nb\n"), "a\nb\n"),
            // Ahead of the target, whose end was cut off; or cut off itself, in the middle of a line.
            (Some("a\nb\n"), "a\n"),
            (Some("a\n{\"se"), "a\n"),
            (Some("a\n\0\0\0\0"), "a\nb\n"),
            (Some("a\nx\n"), "a\nb\n"),
        ] {
            let _ = std::fs::remove_file(&path);
            if let Some(home) = home {
                private_file(&path, OpenOptions::new().write(true)).unwrap();
                std::fs::write(&path, home).unwrap();
            }
            let mut file = HomeFile::open(&path, mirror).unwrap();
            assert_eq!(read(&path), mirror, "{home:?}");
            file.append("next");
            assert_eq!(read(&path), format!("{mirror}next\n"), "{home:?}");
            assert!(!path.with_extension("jsonl.new").exists());
        }
    }

    #[test]
    fn a_copy_that_cannot_be_written_ends_with_a_whole_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let mut file = HomeFile::open(&path, "").unwrap();
        file.append("one");
        let writable = std::mem::replace(&mut file.file, File::open(&path).unwrap());
        file.append("two");
        assert!(file.ended().is_some());
        file.file = writable;
        file.append("three");
        assert_eq!(read(&path), "one\n", "nothing stands behind a gap");
    }

    #[test]
    fn a_long_line_is_passed_over_and_the_memory_stays_small() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        // Sparse: a line of a hundred megabytes, and another one behind it.
        let file = File::create(&path).unwrap();
        file.set_len(100_000_000).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"\n{}\ntorn").unwrap();
        let found = inspect_file(&path).unwrap();
        let fault = found.fault.unwrap();
        assert_eq!((fault.line, fault.word(), found.lines), (1, "malformed", 2));
        assert!(fault.text().contains("100000001 bytes"), "{}", fault.text());
        assert_eq!(found.tail.map(mlctl_core::run::journal::Tail::bytes), Some(4));
    }
}
