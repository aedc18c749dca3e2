//! What was written down, held against what clients were told.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mlctl_tests::Sandbox;

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
        let path = sandbox.local().join("data").join(format!("{service}.book"));
        let text = std::fs::read_to_string(path).unwrap();
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

/// Asserts that no answer was given that is not in a book, and that logs have no gap: nothing between the first line
/// of a program and its last one is missing, and nothing after it that it is known to have printed. `cut` are programs
/// whose shim was killed: what it had not read yet is lost with it.
pub(super) async fn check(sandbox: &Sandbox, services: &[&str], answered: &[Answered], cut: &BTreeSet<i32>) {
    for service in services {
        let served =
            std::path::Path::new(&sandbox.local().join("data").join(format!("{service}.book"))).exists();
        let book = if served { Book::read(sandbox, service) } else { Book::default() };
        answered.iter().filter(|each| each.service == *service).for_each(|each| book.holds(each));
        let mut lines: BTreeMap<i32, BTreeSet<u64>> = BTreeMap::new();
        for line in sandbox.mlctl(&["logs", service, "--previous", "-o", "json"]).await.ends(0).events() {
            let words: Vec<&str> = line["text"].as_str().unwrap().split(' ').collect();
            let ["line", number, "of", pid] = words[..] else { panic!("{service} says {line}") };
            let pid = pid.parse().unwrap();
            let fresh = lines.entry(pid).or_default().insert(number.parse().unwrap());
            assert!(fresh, "{service}: line {number} of {pid} is there twice");
        }
        assert!(!lines.is_empty(), "{service} has no log at all");
        for (pid, numbers) in lines {
            let last = *numbers.last().unwrap();
            assert_eq!(numbers.len() as u64, last + 1, "{service}: the log of {pid} has gaps below {last}");
            let printed = book.printed.get(&pid).copied().unwrap_or_default();
            assert!(
                last >= printed || cut.contains(&pid),
                "{service}: the log of {pid} ends at {last}; it printed {printed}"
            );
        }
    }
}
