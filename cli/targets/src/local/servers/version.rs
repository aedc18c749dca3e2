//! Versions of servers, and what `version` of a store in mlctl.yaml asks of them.

use std::cmp::Ordering;

/// The version that a server's `--version` tells, as numbers.
pub(super) fn told(text: &str) -> Option<Vec<u32>> {
    let begins = |word: &str| word.trim_start_matches("v=").starts_with(|c: char| c.is_ascii_digit());
    let word = text.split_whitespace().find(|word| begins(word))?;
    let numbers: String =
        word.trim_start_matches("v=").chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    numbers.split('.').filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
}

/// One condition of a requirement.
#[derive(Debug, PartialEq, Eq)]
struct Bound {
    allowed: &'static [Ordering],
    version: Vec<u32>,
}

/// What a version has to be: conditions that all have to hold, such as `>=14, <17`; a plain `15` is any 15.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Requirement(Vec<Bound>);

impl Requirement {
    /// Reads a requirement; none when it is not one.
    pub(super) fn read(text: &str) -> Option<Self> {
        let bounds = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        bounds.map(bound).collect::<Option<_>>().map(Self)
    }

    /// Says whether a version is as required.
    pub(super) fn holds(&self, version: &[u32]) -> bool {
        self.0.iter().all(|bound| bound.allowed.contains(&compare(version, &bound.version)))
    }
}

fn bound(text: &str) -> Option<Bound> {
    use Ordering::{Equal, Greater, Less};
    let forms: [(&str, &'static [Ordering]); 5] = [
        (">=", &[Equal, Greater]),
        ("<=", &[Equal, Less]),
        (">", &[Greater]),
        ("<", &[Less]),
        ("=", &[Equal]),
    ];
    let (rest, allowed) = forms
        .into_iter()
        .find_map(|(sign, allowed)| Some((text.strip_prefix(sign)?, allowed)))
        .unwrap_or((text, &[Equal]));
    let version = rest.trim().split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>()?;
    Some(Bound { allowed, version })
}

/// Compares as far as the bound says something: 15.18 equals 15.
fn compare(version: &[u32], bound: &[u32]) -> Ordering {
    let part = |at: usize| version.get(at).copied().unwrap_or_default();
    (0..bound.len()).map(|at| part(at).cmp(&bound[at])).find(|found| found.is_ne()).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_tell_their_version_in_their_own_words() {
        for (text, version) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(vec![15, 18])),
            ("postgres (PostgreSQL) 18beta1", Some(vec![18])),
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", Some(vec![7, 0, 15])),
            ("no version at all", None),
        ] {
            assert_eq!(told(text), version, "{text}");
        }
    }

    #[test]
    fn a_requirement_compares_as_far_as_it_says_something() {
        for (text, version, holds) in [
            (">=14", [15, 18], true),
            (">=14", [14, 0], true),
            (">=14", [13, 9], false),
            ("15", [15, 18], true),
            ("15", [16, 0], false),
            (">15", [15, 18], false),
            (">=14, <16", [15, 1], true),
            (">= 14,<16", [16, 1], false),
            ("=15.17", [15, 18], false),
            ("<=15.18", [15, 18], true),
            ("", [9, 6], true),
        ] {
            assert_eq!(Requirement::read(text).unwrap().holds(&version), holds, "{text} {version:?}");
        }
        for text in ["new", ">=", "15.x", "^7"] {
            assert_eq!(Requirement::read(text), None, "{text}");
        }
    }
}
