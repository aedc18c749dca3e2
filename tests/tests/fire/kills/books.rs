//! What was written down, held against what clients were told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use mlctl_tests::{Sandbox, eventually};
use serde_json::Value;

use super::clients::Answered;

/// What the programs of one service have written into their book.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Who began a request, by its id.
    pub(super) begun: HashMap<u64, i32>,
    /// Who finished it, and how often it was finished.
    done: HashMap<u64, (i32, usize)>,
    /// The last line of its log that a program is known to have printed.
    printed: BTreeMap<i32, u64>,
}

impl Book {
    pub(super) fn read(sandbox: &Sandbox, service: &str) -> Self {
        let text = std::fs::read_to_string(path(sandbox, service)).unwrap();
        let mut book = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words[at].parse::<u64>().unwrap();
            let pid = i32::try_from(number(2)).unwrap();
            match words[0] {
                "begun" => {
                    let before = book.begun.insert(number(1), pid);
                    assert_eq!(before, None, "{service}: request {} reached two programs", words[1]);
                }
                "done" => {
                    book.done.entry(number(1)).or_insert((pid, 0)).1 += 1;
                    let last = book.printed.entry(pid).or_default();
                    *last = number(3).max(*last);
                }
                _ => panic!("{service}: the book says `{line}`"),
            }
        }
        book
    }

    /// Asserts that whatever a client was told is in the book, once.
    fn holds(&self, answered: &Answered) {
        let found = self.done.get(&answered.id);
        assert_eq!(found, Some(&(answered.by, 1)), "{answered:?} is not in the book as it was told");
    }
}

fn path(sandbox: &Sandbox, service: &str) -> PathBuf {
    sandbox.local().join("ledger/data").join(format!("{service}.book"))
}

/// Asserts that no answer was given that is not in a book, and that logs have no gap: nothing between the first line
/// of a program and its last one is missing, and nothing after it that it is known to have printed. `cut` are programs
/// whose shim was killed: what it had not read yet is lost with it.
pub(super) async fn check(sandbox: &Sandbox, services: &[&str], answered: &[Answered], cut: &BTreeSet<i32>) {
    for service in services {
        let book =
            if path(sandbox, service).exists() { Book::read(sandbox, service) } else { Book::default() };
        answered.iter().filter(|each| each.service == *service).for_each(|each| book.holds(each));
        // What was printed just now may not have been read by its shim yet.
        eventually(&format!("the whole log of {service}"), Duration::from_secs(5), async || {
            let logs = sandbox.mlctl(&["logs", service, "--previous", "-o", "json"]).await.ends(0);
            has_no_gap(&logs.events(), &book, cut)
        })
        .await;
    }
}

/// Says what is missing in the log of a service.
fn has_no_gap(log: &[Value], book: &Book, cut: &BTreeSet<i32>) -> Result<(), String> {
    let mut lines: BTreeMap<i32, BTreeSet<u64>> = BTreeMap::new();
    for line in log {
        let words: Vec<&str> = line["text"].as_str().unwrap().split(' ').collect();
        let ["line", number, "of", pid] = words[..] else { panic!("a program says {line}") };
        let fresh = lines.entry(pid.parse().unwrap()).or_default().insert(number.parse().unwrap());
        assert!(fresh, "line {number} of {pid} is there twice");
    }
    if lines.is_empty() {
        return Err("there is no log at all".to_owned());
    }
    for (pid, numbers) in lines {
        let last = *numbers.last().unwrap();
        if numbers.len() as u64 != last + 1 {
            return Err(format!("the log of {pid} has {} lines up to number {last}", numbers.len()));
        }
        let printed = book.printed.get(&pid).copied().unwrap_or_default();
        if last < printed && !cut.contains(&pid) {
            return Err(format!("the log of {pid} ends at {last}; it printed {printed}"));
        }
    }
    Ok(())
}
