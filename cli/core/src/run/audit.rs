//! Audit: the two copies of a journal beside each other, and what may be mended without touching a whole record.
//!
//! A chain alone cannot show that its end was cut off behind a whole record; the other copy does. The two are written
//! one after the other, the target first, so after a kill the home copy may be one record short. It is legitimately
//! further behind only where another machine carried the run on, which that machine's `resumed` record tells.

use super::journal::{Findings, Seen};

/// Where a copy of a journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the home folder of whoever ran it.
    Home,
    /// On the target, beside the lease.
    Target,
}

impl Place {
    /// Returns the word for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Target => "target",
        }
    }

    /// Returns the words people read.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Home => "the copy at home",
            Self::Target => "the target's copy",
        }
    }
}

/// How heavy a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What kills and other machines leave by themselves.
    Note,
    /// Something is not as it was written.
    Bad,
}

/// What mends a finding. None of them rewrites a whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Drop what stands behind the last whole line.
    Trim(Place),
    /// Append the records that the other copy has from that place on.
    Extend {
        /// The shorter copy.
        place: Place,
        /// How many records it has.
        has: usize,
    },
}

/// One finding about one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The copy it is about.
    pub place: Place,
    /// How heavy it is.
    pub level: Level,
    /// The line, from 1; none for the copy as a whole.
    pub line: Option<usize>,
    /// The record's number.
    pub seq: Option<u64>,
    /// A stable word.
    pub what: &'static str,
    /// One sentence.
    pub text: String,
    /// What mends it.
    pub repair: Option<Repair>,
}

impl Finding {
    /// Returns the finding that a copy is there and cannot be read.
    #[must_use]
    pub fn unreadable(place: Place, reason: impl Into<String>) -> Self {
        Self::whole(place, Level::Bad, "unreadable", reason)
    }

    /// Says whether it comes from comparing the two copies, which are read one after the other.
    #[must_use]
    pub fn is_of_both(&self) -> bool {
        ["short", "differs"].contains(&self.what)
    }

    fn whole(place: Place, level: Level, what: &'static str, text: impl Into<String>) -> Self {
        Self { place, level, line: None, seq: None, what, text: text.into(), repair: None }
    }

    fn mended_by(mut self, repair: Repair) -> Self {
        self.repair = Some(repair);
        self
    }

    fn at(mut self, line: usize, seq: Option<u64>) -> Self {
        self.line = Some(line);
        self.seq = seq;
        self
    }
}

/// Compares the copies of a run's journal. A copy that is not there at all is none; `at_work` says that the run holds
/// the lease, so that both copies grow and may end in the middle of a line.
#[must_use]
pub fn compare(run: &str, home: Option<&Findings>, target: Option<&Findings>, at_work: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let copies = [(Place::Target, target), (Place::Home, home)];
    for (place, copy) in copies.into_iter().filter_map(|(place, copy)| Some((place, copy?))) {
        findings.extend(alone(run, place, copy, at_work));
    }
    let whole = |copy: Option<&Findings>| copy.is_none_or(|copy| copy.fault.is_none());
    if !at_work && whole(home) && whole(target) {
        let seen = |copy: Option<&Findings>| copy.map_or_else(Vec::new, |copy| copy.intact.clone());
        // A home folder that never saw the run is no copy at all; a target that lost one has to be told.
        if home.is_some() {
            findings.extend(beside(&seen(home), &seen(target)));
        }
    }
    findings
}

/// Looks at one copy by itself.
fn alone(run: &str, place: Place, copy: &Findings, at_work: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(fault) = &copy.fault {
        let finding = Finding::whole(place, Level::Bad, fault.word(), fault.text());
        findings.push(finding.at(fault.line, fault.seq));
    }
    if let Some(other) = copy.run.as_ref().filter(|other| *other != run) {
        let text = format!("it is the journal of run {other}");
        findings.push(Finding::whole(place, Level::Bad, "foreign", text));
    }
    if let Some(tail) = copy.tail.filter(|_| !at_work) {
        let finding = Finding::whole(place, Level::Note, "torn_tail", tail.text());
        findings.push(finding.mended_by(Repair::Trim(place)).at(copy.lines + 1, None));
    }
    if copy.lines == 0 && !at_work {
        let text = "it holds no record: the run ended before its first one";
        findings.push(Finding::whole(place, Level::Note, "empty", text));
    }
    findings
}

/// Compares two copies that hold together.
fn beside(home: &[Seen], target: &[Seen]) -> Option<Finding> {
    let same = home.iter().zip(target).take_while(|(a, b)| a.hash == b.hash).count();
    let next = |copy: &[Seen]| copy.get(same).map(|seen| seen.what.clone()).unwrap_or_default();
    let seq = same as u64 + 1;
    if same == home.len() && same == target.len() {
        return None;
    }
    if same == target.len() {
        let finding = Finding::whole(Place::Target, Level::Bad, "short", missing(same, home));
        let repair = Repair::Extend { place: Place::Target, has: same };
        return Some(finding.mended_by(repair).at(same + 1, Some(seq)));
    }
    if same == home.len() {
        // Nothing was ever written to it, or another machine went on.
        let (level, text) = if home.is_empty() || target[same].resumes {
            (Level::Note, format!("another machine went on with record {seq} ({})", next(target)))
        } else if target.len() == same + 1 {
            (Level::Note, format!("{}, as a kill between the two leaves it", missing(same, target)))
        } else {
            (Level::Bad, missing(same, target))
        };
        let repair = Repair::Extend { place: Place::Home, has: same };
        let finding = Finding::whole(Place::Home, level, "short", text);
        return Some(finding.mended_by(repair).at(same + 1, Some(seq)));
    }
    let text = format!(
        "from record {seq} on it differs from the copy at home ({} there, {} here), though both hold together: one of them was rewritten",
        next(home),
        next(target)
    );
    Some(Finding::whole(Place::Target, Level::Bad, "differs", text).at(same + 1, Some(seq)))
}

/// Names the records that the shorter copy lacks.
fn missing(has: usize, longer: &[Seen]) -> String {
    let first = longer.get(has).map(|seen| seen.what.as_str()).unwrap_or_default();
    match longer.len() - has {
        1 => format!("record {} ({first}), which the other copy has, is missing at its end", has + 1),
        _ => format!(
            "records {} ({first}) to {}, which the other copy has, are missing at its end",
            has + 1,
            longer.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::journal::{Fault, Tail, Wrong};

    /// Returns a copy whose records have these hashes; one that begins with `r` carries the run on.
    fn copy(hashes: &str) -> Findings {
        let seen = |hash: &str| Seen {
            hash: hash.to_owned(),
            what: format!("did {hash}"),
            resumes: hash.starts_with('r'),
        };
        let intact: Vec<Seen> = hashes.split_whitespace().map(seen).collect();
        let run = (!intact.is_empty()).then(|| "run".to_owned());
        Findings { run, lines: intact.len(), intact, ..Findings::default() }
    }

    fn told(home: Option<&str>, target: Option<&str>, at_work: bool) -> Vec<String> {
        let (home, target) = (home.map(copy), target.map(copy));
        let found = compare("run", home.as_ref(), target.as_ref(), at_work);
        let line = |finding: &Finding| {
            let repair = match finding.repair {
                None => "kept".to_owned(),
                Some(Repair::Trim(place)) => format!("trim {}", place.word()),
                Some(Repair::Extend { place, has }) => format!("extend {} from {has}", place.word()),
            };
            format!("{:?} {} {} {repair}", finding.level, finding.place.word(), finding.what)
        };
        found.iter().map(line).collect()
    }

    #[test]
    fn two_copies_beside_each_other() {
        for (home, target, expected) in [
            (Some("a b c"), Some("a b c"), &[][..]),
            (None, Some("a b c"), &[]),
            (None, None, &[]),
            (Some("a b c"), Some("a b"), &["Bad target short extend target from 2"]),
            (Some("a b c"), Some("a"), &["Bad target short extend target from 1"]),
            (Some("a b c"), None, &["Bad target short extend target from 0"]),
            (Some("a b"), Some("a b c"), &["Note home short extend home from 2"]),
            (Some("a b"), Some("a b c d"), &["Bad home short extend home from 2"]),
            (Some("a b"), Some("a b r c"), &["Note home short extend home from 2"]),
            (Some(""), Some("a b"), &["Note home empty kept", "Note home short extend home from 0"]),
            (Some("a b x"), Some("a b r c"), &["Bad target differs kept"]),
            (Some("a b x y"), Some("a b r c"), &["Bad target differs kept"]),
            (Some("a b x"), Some("a b c"), &["Bad target differs kept"]),
            (Some("x b c"), Some("a b c"), &["Bad target differs kept"]),
            (Some(""), Some(""), &["Note target empty kept", "Note home empty kept"]),
        ] {
            assert_eq!(told(home, target, false), expected, "{home:?} {target:?}");
            assert_eq!(told(home, target, true), [""; 0], "a run at work grows: {home:?} {target:?}");
        }
    }

    #[test]
    fn a_copy_by_itself() {
        let fault = Fault { line: 3, seq: Some(4), wrong: Wrong::Missing { from: 3, to: 3 } };
        let broken = Findings { fault: Some(fault), ..copy("a b") };
        let found = compare("run", Some(&copy("a b c d")), Some(&broken), false);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!((finding.level, finding.what, finding.repair), (Level::Bad, "deleted", None));
        assert_eq!((finding.line, finding.seq), (Some(3), Some(4)));

        let torn = Findings { tail: Some(Tail::Torn(7)), ..copy("a b") };
        let found = compare("run", None, Some(&torn), false);
        assert_eq!((found[0].level, found[0].repair), (Level::Note, Some(Repair::Trim(Place::Target))));
        assert_eq!(compare("run", None, Some(&torn), true), [], "a line may be on its way");

        let found = compare("other", None, Some(&copy("a")), false);
        assert_eq!((found[0].level, found[0].what), (Level::Bad, "foreign"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let text =
            |home, target| compare("run", Some(&copy(home)), Some(&copy(target)), false)[0].text.clone();
        assert_eq!(text("a b c", "a b"), "record 3 (did c), which the other copy has, is missing at its end");
        assert_eq!(
            text("a b c d", "a b"),
            "records 3 (did c) to 4, which the other copy has, are missing at its end"
        );
    }
}
