//! What a migration item holds, its checksums, and when an older release cannot read a newer schema.

use mlctl_core::item::{Digest, Item};
use mlctl_core::ports::{MigrationFile, MigrationState, StoreError};
use serde::{Deserialize, Serialize};

use crate::files::up_file_name;

/// The payload of a migration item: the migrations of one service and the database they are for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationSet {
    /// The service whose migrations these are; several services may share a database.
    pub service: String,
    /// The database: `sqlite:PATH` or `postgresql://USER[:PASSWORD]@HOST[:PORT]/NAME`.
    pub url: String,
    /// The migrations of the release, numbered from 1 without a gap.
    pub files: Vec<MigrationFile>,
}

impl MigrationSet {
    /// Reads the payload of an item.
    ///
    /// # Errors
    /// A payload of another shape, or numbers that do not follow each other from 1.
    pub fn of(item: &Item, operation: &'static str) -> Result<Self, StoreError> {
        let refused = |reason: String| StoreError {
            operation,
            subject: item.id.to_string(),
            reason,
            unreachable: false,
        };
        let set = Self::deserialize(&item.payload)
            .map_err(|e| refused(format!("the release holds no migrations there ({e}): deploy again")))?;
        for (file, wanted) in set.files.iter().zip(1u32..) {
            if file.version != wanted {
                let name = up_file_name(file.version, &file.name);
                return Err(refused(format!("`{name}` stands where number {wanted:04} should be")));
            }
        }
        Ok(set)
    }

    /// Returns the file of that number.
    #[must_use]
    pub fn file(&self, version: u32) -> Option<&MigrationFile> {
        self.files.iter().find(|file| file.version == version)
    }
}

/// Returns the checksum that is kept beside an applied migration: SHA-256 of its text with line ends as LF, so that
/// a checkout with CRLF is the same migration.
#[must_use]
pub fn checksum(file: &MigrationFile) -> String {
    Digest::of(file.up.replace("\r\n", "\n").as_bytes()).as_str().to_owned()
}

/// What the head of a migration says about releases older than it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// `-- mlctl: irreversible`: what it removes cannot come back.
    Irreversible,
    /// `-- mlctl: breaks-older`: programs that do not know it fail on the result.
    BreaksOlder,
}

impl Marker {
    /// Returns the word as it stands in the comment.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Irreversible => "irreversible",
            Self::BreaksOlder => "breaks-older",
        }
    }
}

/// Returns the marker in the comment lines that head a migration's way forward, before its first statement.
#[must_use]
pub fn marker(file: &MigrationFile) -> Option<Marker> {
    words_at_head(&file.up).find_map(|word| match word {
        "irreversible" => Some(Marker::Irreversible),
        "breaks-older" => Some(Marker::BreaksOlder),
        _ => None,
    })
}

/// Says whether the comment lines that head a file hold `-- mlctl: no-transaction`: PostgreSQL refuses some statements
/// within one, `CREATE INDEX CONCURRENTLY` first of all.
#[must_use]
pub fn runs_outside_a_transaction(text: &str) -> bool {
    words_at_head(text).any(|word| word == "no-transaction")
}

/// Returns what follows `mlctl:` in the comment lines before the first statement.
fn words_at_head(text: &str) -> impl Iterator<Item = &str> {
    text.trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .take_while(|line| line.is_empty() || line.starts_with("--"))
        .filter_map(|line| line.trim_start_matches('-').trim().strip_prefix("mlctl:"))
        .map(str::trim)
}

/// An applied migration that a release does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newer {
    /// Its number.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// What is known of its effect on that release.
    pub effect: Effect,
}

/// What an unknown migration means for an older release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It carries no marker: by rule it only adds, and older programs go on reading.
    Additive,
    /// Its marker says that older releases cannot read the result.
    Marked(Marker),
    /// No file at hand tells: it may be either.
    Unknown,
}

impl Newer {
    /// Says whether an automatic rollback must not cross it.
    #[must_use]
    pub const fn blocks_rollback(&self) -> bool {
        !matches!(self.effect, Effect::Additive)
    }

    /// Returns one sentence for whoever has to decide.
    #[must_use]
    pub fn sentence(&self) -> String {
        let name = format!("{:04}_{}", self.version, self.name);
        match self.effect {
            Effect::Additive => {
                format!("migration {name} is newer than that release, which can live with it")
            }
            Effect::Marked(marker) => {
                format!("migration {name} is marked `{}`: that release cannot read its result", marker.word())
            }
            Effect::Unknown => {
                format!(
                    "migration {name} is newer than that release, and no release at hand tells what it does"
                )
            }
        }
    }
}

/// Returns the applied migrations that an older release would meet without knowing them.
///
/// `older` are the files of the release to go back to, `known` those of the release that runs: only they still say
/// what the newer migrations do.
#[must_use]
pub fn schema_too_new(
    applied: &[MigrationState],
    older: &[MigrationFile],
    known: &[MigrationFile],
) -> Vec<Newer> {
    let newest = older.iter().map(|file| file.version).max().unwrap_or(0);
    applied
        .iter()
        .filter(|state| state.applied_at.is_some() && state.version > newest)
        .map(|state| {
            // A file of the same number and another name is another migration.
            let file = known.iter().find(|file| file.version == state.version && file.name == state.name);
            let effect = match file {
                Some(_) if state.changed => Effect::Unknown,
                Some(file) => marker(file).map_or(Effect::Additive, Effect::Marked),
                None => Effect::Unknown,
            };
            Newer { version: state.version, name: state.name.clone(), effect }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u32, up: &str) -> MigrationFile {
        MigrationFile { version, name: format!("m{version}"), up: up.to_owned(), down: None }
    }

    fn state(version: u32, applied: bool) -> MigrationState {
        MigrationState {
            service: "api".into(),
            version,
            name: format!("m{version}"),
            applied_at: applied.then_some(jiff::Timestamp::UNIX_EPOCH),
            changed: false,
        }
    }

    #[test]
    fn a_marker_counts_only_at_the_head() {
        for (text, wanted) in [
            ("-- mlctl: irreversible\nDROP TABLE a;", Some(Marker::Irreversible)),
            ("\n-- Renames a column.\n--mlctl:breaks-older\r\nSELECT 1;", Some(Marker::BreaksOlder)),
            ("SELECT 1;\n-- mlctl: irreversible", None),
            ("-- mlctl: reversible\nSELECT 1;", None),
            ("-- irreversible\nSELECT 1;", None),
            ("SELECT '-- mlctl: breaks-older';", None),
        ] {
            assert_eq!(marker(&file(1, text)), wanted, "{text}");
        }
    }

    #[test]
    fn a_file_says_that_it_cannot_run_in_a_transaction() {
        for (text, wanted) in [
            ("-- mlctl: no-transaction\nSELECT 1;", true),
            ("-- mlctl: breaks-older\n-- mlctl: no-transaction\nSELECT 1;", true),
            ("SELECT 1;\n-- mlctl: no-transaction", false),
        ] {
            assert_eq!(runs_outside_a_transaction(text), wanted, "{text}");
        }
    }

    #[test]
    fn line_ends_do_not_change_a_checksum_but_text_does() {
        assert_eq!(checksum(&file(1, "a\r\nb")), checksum(&file(2, "a\nb")));
        assert_ne!(checksum(&file(1, "a\nb")), checksum(&file(1, "a b")));
    }

    #[test]
    fn an_older_release_meets_what_it_does_not_know() {
        let all = [file(1, "A"), file(2, "-- mlctl: breaks-older\nB"), file(3, "C"), file(4, "D")];
        let applied = [state(1, true), state(2, true), state(3, true), state(4, false), state(5, true)];
        let newer = schema_too_new(&applied, &all[..1], &all);
        let told: Vec<_> = newer.iter().map(|n| (n.version, n.effect, n.blocks_rollback())).collect();
        assert_eq!(
            told,
            [
                (2, Effect::Marked(Marker::BreaksOlder), true),
                (3, Effect::Additive, false),
                (5, Effect::Unknown, true)
            ]
        );
        assert!(schema_too_new(&applied[..3], &all, &all).is_empty());
        assert_eq!(schema_too_new(&applied[..1], &[], &all).len(), 1);
    }

    #[test]
    fn an_edited_migration_tells_nothing() {
        let mut edited = state(2, true);
        edited.changed = true;
        let newer = schema_too_new(&[edited], &[file(1, "A")], &[file(1, "A"), file(2, "B")]);
        assert_eq!(newer[0].effect, Effect::Unknown);
    }
}
