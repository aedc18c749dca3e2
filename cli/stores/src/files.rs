//! Reads the migrations of a service from its folder: `NNNN_name.up.sql` with an optional `NNNN_name.down.sql`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use mlctl_core::ports::MigrationFile;

/// The SQL a migration is written in; a folder may keep one subfolder per dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The embedded database.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

impl Dialect {
    /// Returns the name of the dialect's subfolder.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// A migrations folder that cannot be used. All that is wrong is told at once.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The folder or a file in it could not be read.
    #[error("read the migrations in {}: {} could not be read", folder.display(), path.display())]
    Unreadable {
        /// The migrations folder.
        folder: PathBuf,
        /// What could not be read.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The files do not make a sequence.
    #[error("read the migrations in {}: {}", folder.display(), list(problems))]
    Invalid {
        /// The migrations folder.
        folder: PathBuf,
        /// Everything that is wrong, in the order of the files.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

/// One thing wrong with a set of migration files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A `.sql` file whose name follows no rule.
    Name {
        /// The file.
        file: String,
    },
    /// Numbers start at 1.
    Zero {
        /// The file.
        file: String,
    },
    /// Two files go the same way from the same number.
    Duplicate {
        /// The file that came first.
        first: String,
        /// The file that says it again.
        second: String,
    },
    /// A way back from where nothing leads.
    DownWithoutUp {
        /// The file.
        file: String,
        /// The file that is missing.
        wanted: String,
    },
    /// A number is left out.
    Gap {
        /// The number that no file has.
        missing: u32,
        /// The file after the gap.
        before: String,
    },
    /// A file without a statement.
    Empty {
        /// The file.
        file: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { file } => write!(
                f,
                "`{file}` is not named NNNN_name.up.sql or NNNN_name.down.sql \
                 (four or more digits; lower-case letters, digits, `_` and `-`)"
            ),
            Self::Zero { file } => write!(f, "`{file}` has number 0: the first migration is 0001"),
            Self::Duplicate { first, second } => {
                write!(f, "`{second}` has the number of `{first}`: give the later one the next free number")
            }
            Self::DownWithoutUp { file, wanted } => {
                write!(f, "`{file}` takes back a migration that is not there: add `{wanted}` or remove it")
            }
            Self::Gap { missing, before } => {
                write!(
                    f,
                    "number {missing:04} is missing before `{before}`: numbers follow each other from 0001"
                )
            }
            Self::Empty { file } => write!(f, "`{file}` holds no SQL statement"),
        }
    }
}

/// Which way a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Up,
    Down,
}

impl Way {
    const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A file name taken apart.
struct FileName<'a> {
    version: u32,
    name: &'a str,
    way: Way,
}

impl<'a> FileName<'a> {
    fn parse(file: &'a str) -> Option<Self> {
        let stem = file.strip_suffix(".sql")?;
        let (stem, way) = match (stem.strip_suffix(".up"), stem.strip_suffix(".down")) {
            (Some(stem), _) => (stem, Way::Up),
            (_, Some(stem)) => (stem, Way::Down),
            _ => return None,
        };
        let (number, name) = stem.split_once('_')?;
        let digits = number.len() >= 4 && number.bytes().all(|b| b.is_ascii_digit());
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if !digits || name.is_empty() || !name.bytes().all(word) {
            return None;
        }
        Some(Self { version: number.parse().ok()?, name, way })
    }
}

/// Returns the name of the file that holds a migration's way forward.
#[must_use]
pub fn up_file_name(version: u32, name: &str) -> String {
    file_name(version, name, Way::Up)
}

/// Returns the name of the file that holds a migration's way back.
#[must_use]
pub fn down_file_name(version: u32, name: &str) -> String {
    file_name(version, name, Way::Down)
}

fn file_name(version: u32, name: &str, way: Way) -> String {
    format!("{version:04}_{name}.{}.sql", way.word())
}

/// Orders the files of a folder, given as name and content, into migrations numbered from 1 without a gap.
///
/// Names that do not end in `.sql` (a README) and hidden files are passed over.
///
/// # Errors
/// Everything wrong with the set, at once.
pub fn arrange(files: &[(String, String)]) -> Result<Vec<MigrationFile>, Vec<Problem>> {
    let mut problems = Vec::new();
    // By number and way: the file's own name, its migration's name and its text.
    let mut seen: BTreeMap<(u32, Way), (&str, &str, &str)> = BTreeMap::new();
    let mut sorted: Vec<_> = files.iter().filter(|(file, _)| is_sql(file)).collect();
    sorted.sort();
    for (file, text) in sorted {
        let Some(parsed) = FileName::parse(file) else {
            problems.push(Problem::Name { file: file.clone() });
            continue;
        };
        if parsed.version == 0 {
            problems.push(Problem::Zero { file: file.clone() });
            continue;
        }
        if !has_statement(text) {
            problems.push(Problem::Empty { file: file.clone() });
        }
        match seen.entry((parsed.version, parsed.way)) {
            std::collections::btree_map::Entry::Occupied(first) => {
                problems.push(Problem::Duplicate { first: first.get().0.to_owned(), second: file.clone() });
            }
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert((file, parsed.name, text));
            }
        }
    }

    let mut migrations: Vec<MigrationFile> = Vec::new();
    let mut next: u32 = 1;
    for (&(version, way), &(file, name, text)) in &seen {
        if way == Way::Down {
            // Ups sort before downs of the same number, so the partner is the last one or it does not exist.
            match migrations.last_mut() {
                Some(up) if up.version == version && up.name == name => up.down = Some(text.to_owned()),
                _ => problems.push(Problem::DownWithoutUp {
                    file: file.to_owned(),
                    wanted: up_file_name(version, name),
                }),
            }
            continue;
        }
        for missing in next..version.min(next.saturating_add(MOST_GAPS)) {
            problems.push(Problem::Gap { missing, before: file.to_owned() });
        }
        next = version.saturating_add(1);
        migrations.push(MigrationFile { version, name: name.to_owned(), up: text.to_owned(), down: None });
    }
    if problems.is_empty() { Ok(migrations) } else { Err(problems) }
}

/// A date used as a number would otherwise be told as twenty million gaps.
const MOST_GAPS: u32 = 3;

fn is_sql(file: &str) -> bool {
    !file.starts_with('.') && Path::new(file).extension().is_some_and(|e| e == "sql")
}

/// Says whether a text holds anything but space and `--` comments. Block comments count as something: the database
/// itself says what it thinks of them.
fn has_statement(text: &str) -> bool {
    text.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with("--"))
}

/// Returns the folder to read for a dialect: its subfolder where there is one, else the folder itself.
#[must_use]
pub fn dialect_folder(folder: &Path, dialect: Dialect) -> PathBuf {
    let own = folder.join(dialect.folder());
    if own.is_dir() { own } else { folder.to_owned() }
}

/// Reads the migrations of a folder, in order.
///
/// # Errors
/// The folder or a file that cannot be read, or everything wrong with the set.
pub fn read(folder: &Path) -> Result<Vec<MigrationFile>, FilesError> {
    let unreadable =
        |path: PathBuf| move |source| FilesError::Unreadable { folder: folder.to_owned(), path, source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable(folder.to_owned()))? {
        let path = entry.map_err(unreadable(folder.to_owned()))?.path();
        // A name that is not UTF-8 is told as a wrong name, not passed over.
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
        if !is_sql(&name) {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(unreadable(path.clone()))?;
        files.push((name, text));
    }
    arrange(&files).map_err(|problems| FilesError::Invalid { folder: folder.to_owned(), problems })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), format!("-- {name}\nSELECT 1;"))).collect()
    }

    #[test]
    fn files_become_migrations_in_order() {
        let files =
            set(&["0002_b-2.up.sql", "README.md", "0001_a.down.sql", ".0009_swap.up.sql", "0001_a.up.sql"]);
        let found = arrange(&files).unwrap();
        let told: Vec<_> = found.iter().map(|m| (m.version, m.name.as_str(), m.down.is_some())).collect();
        assert_eq!(told, [(1, "a", true), (2, "b-2", false)]);
        assert_eq!(found[0].up, "-- 0001_a.up.sql\nSELECT 1;");
        assert_eq!(found[0].down.as_deref(), Some("-- 0001_a.down.sql\nSELECT 1;"));
        assert!(arrange(&[]).unwrap().is_empty());
    }

    #[test]
    fn every_mistake_is_told() {
        for (names, wanted) in [
            (
                &["0001_a.up.sql", "0003_c.up.sql"][..],
                &["number 0002 is missing before `0003_c.up.sql`: numbers follow each other from 0001"][..],
            ),
            (
                &["0002_a.up.sql"],
                &["number 0001 is missing before `0002_a.up.sql`: numbers follow each other from 0001"],
            ),
            (
                &["0001_a.up.sql", "0001_b.up.sql"],
                &[
                    "`0001_b.up.sql` has the number of `0001_a.up.sql`: give the later one the next free number",
                ],
            ),
            (
                &["0001_a.up.sql", "00001_a.up.sql"],
                &[
                    "`0001_a.up.sql` has the number of `00001_a.up.sql`: give the later one the next free number",
                ],
            ),
            (
                &["0001_a.up.sql", "0001_b.down.sql"],
                &[
                    "`0001_b.down.sql` takes back a migration that is not there: add `0001_b.up.sql` or remove it",
                ],
            ),
            (
                &["0001_a.up.sql", "0002_b.down.sql"],
                &[
                    "`0002_b.down.sql` takes back a migration that is not there: add `0002_b.up.sql` or remove it",
                ],
            ),
            (
                &["0000_a.up.sql", "0001_b.up.sql"],
                &["`0000_a.up.sql` has number 0: the first migration is 0001"],
            ),
        ] {
            let told: Vec<_> = arrange(&set(names)).unwrap_err().iter().map(Problem::to_string).collect();
            assert_eq!(told, wanted, "{names:?}");
        }
    }

    #[test]
    fn names_outside_the_rule_are_refused() {
        for bad in [
            "1_a.up.sql",
            "0001-a.up.sql",
            "0001_a.sql",
            "0001_.up.sql",
            "0001_A.up.sql",
            "99999999999_a.up.sql",
        ] {
            let problems = arrange(&set(&[bad])).unwrap_err();
            assert_eq!(problems, [Problem::Name { file: bad.to_owned() }], "{bad}");
        }
    }

    #[test]
    fn several_mistakes_are_told_together_and_dates_do_not_flood() {
        let problems = arrange(&set(&["20240101_a.up.sql", "x.sql"])).unwrap_err();
        assert_eq!(problems.len(), 1 + 3, "{problems:?}");
    }

    #[test]
    fn a_file_of_comments_only_is_empty() {
        let files = [("0001_a.up.sql".to_owned(), "-- nothing\n\n  \n".to_owned())];
        assert_eq!(arrange(&files).unwrap_err(), [Problem::Empty { file: "0001_a.up.sql".to_owned() }]);
    }

    #[test]
    fn a_folder_is_read_by_dialect() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(dialect_folder(folder.path(), Dialect::Sqlite), folder.path());
        let own = folder.path().join("sqlite");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("0001_a.up.sql"), "CREATE TABLE a (id INTEGER);").unwrap();
        assert_eq!(dialect_folder(folder.path(), Dialect::Postgres), folder.path());
        let found = read(&dialect_folder(folder.path(), Dialect::Sqlite)).unwrap();
        assert_eq!(found[0].up, "CREATE TABLE a (id INTEGER);");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        assert!(read(&gone).unwrap_err().to_string().contains("gone could not be read"));
        let file = folder.path().join("0001_a.up.sql");
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        let told = read(folder.path()).unwrap_err().to_string();
        assert!(told.ends_with("0001_a.up.sql could not be read"), "{told}");
    }
}
