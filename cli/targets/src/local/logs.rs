//! Log lines, straight from the replicas' folders: readable whether or not there is an agent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use jiff::Timestamp;
use mlctl_core::local_protocol::{LOG_FILES, Layout, split_log_line};
use mlctl_core::ports::{LogLine, LogQuery, Result};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::files;

/// Between two looks at logs that are followed.
const LOOK: Duration = Duration::from_millis(200);
/// Lines that may wait to be read.
const QUEUE: usize = 256;

/// The little of a replica's record that its reader needs.
#[derive(Deserialize)]
struct Record {
    service: String,
    intent: String,
}

/// Returns the replicas of a service by name, ended ones only when asked for.
fn replicas(layout: &Layout, service: &str, previous: bool) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for name in files::names(&layout.replicas())?.into_iter().filter(|n| n.starts_with(service)) {
        let folder = layout.replicas().join(&name);
        // A folder that is being made or removed has no record: it has no lines either.
        let Ok(Some(record)) = files::read_json::<Record>(&folder.join("replica.json")) else { continue };
        if record.service == service && (previous || record.intent != "ended") {
            found.push((name, folder));
        }
    }
    Ok(found)
}

/// Says whether any replica of a service has left a folder.
pub(super) fn has_any(layout: &Layout, service: &str) -> Result<bool> {
    Ok(!replicas(layout, service, true)?.is_empty())
}

/// Streams the lines asked for: past ones in order of time, then, when followed, new ones as they come.
pub(super) fn stream(layout: &Layout, query: &LogQuery) -> Result<BoxStream<'static, Result<LogLine>>> {
    let mut past = Vec::new();
    let mut tails = BTreeMap::new();
    for (name, folder) in replicas(layout, &query.service, query.previous)? {
        // Opened before the past is read to the same place: no line is lost or told twice in between.
        let mut tail = Tail::open(&folder);
        past.extend(in_own_order(read_past(&folder, &name, query, tail.as_mut())?));
        tails.extend(tail.map(|tail| (name, tail)));
    }
    // Stable: lines without a time stay behind the line they followed.
    past.sort_by_key(|(at, _)| *at);
    let past = futures::stream::iter(past.into_iter().map(|(_, line)| Ok(line)));
    if !query.follow {
        return Ok(past.boxed());
    }
    let (tell, read) = mpsc::channel(QUEUE);
    tokio::spawn(follow(layout.clone(), query.service.clone(), tails, tell));
    let coming = futures::stream::unfold(read, async |mut read| Some((read.recv().await?, read)));
    Ok(past.chain(coming).boxed())
}

/// Returns each line with the time to sort it by: never before the line that it followed, whatever the wall clock did.
fn in_own_order(lines: Vec<LogLine>) -> impl Iterator<Item = (Option<Timestamp>, LogLine)> {
    let mut latest = None;
    lines.into_iter().map(move |line| {
        latest = latest.max(line.at);
        (latest, line)
    })
}

fn line(service: &str, replica: &str, text: &str) -> LogLine {
    let (at, text) = split_log_line(text);
    LogLine { service: service.to_owned(), replica: replica.to_owned(), at, text: text.to_owned() }
}

/// Reads a replica's files from the newest back, only as far as needed.
fn read_past(
    folder: &Path,
    name: &str,
    query: &LogQuery,
    mut tail: Option<&mut Tail>,
) -> Result<Vec<LogLine>> {
    let mut lines: Vec<LogLine> = Vec::new();
    for file in LOG_FILES {
        let text = match tail.take() {
            Some(tail) => tail.read(),
            None => {
                let path = folder.join(file);
                match std::fs::read(&path) {
                    Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                    Err(error) => return Err(files::failed("read", &path)(error)),
                }
            }
        };
        let mut older: Vec<LogLine> = text.lines().map(|text| line(&query.service, name, text)).collect();
        older.retain(|line| query.until.is_none_or(|until| line.at.is_none_or(|at| at <= until)));
        let reached =
            older.first().is_some_and(|first| query.since.is_some_and(|since| first.at < Some(since)));
        older.append(&mut lines);
        lines = older;
        if reached || query.tail.is_some_and(|tail| lines.len() >= tail) {
            break;
        }
    }
    if let Some(since) = query.since {
        lines.retain(|line| line.at.is_none_or(|at| at >= since));
    }
    let surplus = query.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
    lines.drain(..surplus);
    Ok(lines)
}

/// The file a replica writes to now, read as far as it goes.
struct Tail {
    folder: PathBuf,
    file: File,
    begun: Vec<u8>,
}

impl Tail {
    fn open(folder: &Path) -> Option<Self> {
        let file = File::open(folder.join(LOG_FILES[0])).ok()?;
        Some(Self { folder: folder.to_owned(), file, begun: Vec::new() })
    }

    /// Returns the whole lines since the last look.
    fn read(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.begun);
        // What cannot be read now is read by the next look.
        let _ = self.file.read_to_end(&mut bytes);
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.begun = bytes.split_off(whole);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Like `read`, and goes on with the next file once this one was rotated away.
    fn follow(&mut self) -> String {
        let current = std::fs::metadata(self.folder.join(LOG_FILES[0]));
        let mine = self.file.metadata();
        let mut text = self.read();
        if let (Ok(current), Ok(mine)) = (current, mine)
            && current.ino() != mine.ino()
        {
            // Looked at before it was read to its end, so nothing was written to it after that.
            text.push_str(&self.read());
            if let Some(next) = Self::open(&self.folder) {
                *self = next;
                text.push_str(&self.read());
            }
        }
        text
    }
}

async fn follow(
    layout: Layout,
    service: String,
    mut tails: BTreeMap<String, Tail>,
    tell: mpsc::Sender<Result<LogLine>>,
) {
    loop {
        if let Ok(found) = replicas(&layout, &service, false) {
            for (name, folder) in found {
                if !tails.contains_key(&name) {
                    tails.extend(Tail::open(&folder).map(|tail| (name, tail)));
                }
            }
        }
        let mut gone = Vec::new();
        for (name, tail) in &mut tails {
            for text in tail.follow().lines() {
                if tell.send(Ok(line(&service, name, text))).await.is_err() {
                    return;
                }
            }
            if !tail.folder.exists() {
                gone.push(name.clone());
            }
        }
        for name in gone {
            tails.remove(&name);
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = tell.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(root: &Path, name: &str, intent: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = root.join("replicas").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let record = format!(r#"{{"service":"api","intent":"{intent}","more":1}}"#);
        std::fs::write(folder.join("replica.json"), record).unwrap();
        for (file, content) in files {
            std::fs::write(folder.join(file), content).unwrap();
        }
        folder
    }

    fn stamp(second: u32) -> String {
        format!("2026-01-01T00:00:{second:02}.000000Z")
    }

    fn written(seconds: &[u32]) -> String {
        seconds.iter().map(|s| format!("{} line {s}\n", stamp(*s))).collect()
    }

    async fn texts(layout: &Layout, query: LogQuery) -> Vec<String> {
        let lines: Vec<_> = stream(layout, &query).unwrap().collect().await;
        lines.into_iter().map(|line| line.unwrap().text).collect()
    }

    #[tokio::test]
    async fn past_lines_come_in_order_over_files_and_replicas() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        replica(root.path(), "api-a", "run", &[("log.1", &written(&[1, 3])), ("log", &written(&[5, 7]))]);
        replica(root.path(), "api-b", "run", &[("log", &written(&[2, 6]))]);
        replica(root.path(), "api-c", "ended", &[("log", &written(&[4]))]);
        let query = || LogQuery { service: "api".to_owned(), ..LogQuery::default() };
        let told = |numbers: &[u32]| numbers.iter().map(|n| format!("line {n}")).collect::<Vec<_>>();
        assert_eq!(texts(&layout, query()).await, told(&[1, 2, 3, 5, 6, 7]));
        assert_eq!(
            texts(&layout, LogQuery { previous: true, ..query() }).await,
            told(&[1, 2, 3, 4, 5, 6, 7])
        );
        assert_eq!(texts(&layout, LogQuery { tail: Some(1), ..query() }).await, told(&[6, 7]));
        assert_eq!(texts(&layout, LogQuery { tail: Some(3), ..query() }).await, told(&[2, 3, 5, 6, 7]));
        let until = LogQuery { until: Some(stamp(5).parse().unwrap()), tail: Some(1), ..query() };
        assert_eq!(texts(&layout, until).await, told(&[2, 5]), "the last before that moment");
        let since = stamp(5).parse().unwrap();
        assert_eq!(texts(&layout, LogQuery { since: Some(since), ..query() }).await, told(&[5, 6, 7]));
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_leaves_each_replica_its_own_order() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        replica(root.path(), "api-a", "run", &[("log", &written(&[3, 9, 4]))]);
        replica(root.path(), "api-b", "run", &[("log", &written(&[5]))]);
        let query = LogQuery { service: "api".to_owned(), ..LogQuery::default() };
        assert_eq!(texts(&layout, query).await, ["line 3", "line 5", "line 9", "line 4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn followed_lines_survive_a_rotation_and_new_replicas_join() {
        use std::io::Write as _;
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        let folder = replica(root.path(), "api-a", "run", &[("log", &written(&[1]))]);
        let query = LogQuery { service: "api".to_owned(), follow: true, ..LogQuery::default() };
        let mut lines = stream(&layout, &query).unwrap();
        let mut next = async || lines.next().await.unwrap().unwrap().text;
        assert_eq!(next().await, "line 1");
        let append = |text: &str| {
            let mut file = std::fs::OpenOptions::new().append(true).open(folder.join("log")).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append(&written(&[2]));
        append(&stamp(3));
        assert_eq!(next().await, "line 2");
        append(" line 3\n");
        std::fs::rename(folder.join("log"), folder.join("log.1")).unwrap();
        std::fs::write(folder.join("log"), written(&[4])).unwrap();
        assert_eq!(next().await, "line 3");
        assert_eq!(next().await, "line 4");
        replica(root.path(), "api-b", "run", &[("log", &written(&[5]))]);
        assert_eq!(next().await, "line 5");
    }
}
