//! Whether an artifact is newer than what it is made of, as the file times tell.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mlctl_core::system::Build;

/// Says whether an artifact need not be made again: the build names its sources, all of them are older than every file
/// of the artifact, and none went since. A glob that matches nothing is a mistake and hides none: it counts as stale.
pub(super) fn is_fresh(folder: &Path, build: &Build) -> bool {
    let Ok(made) = times(&folder.join(&build.artifact)) else { return false };
    let Some(oldest) = made.into_iter().min() else { return false };
    !build.sources.is_empty()
        && build.sources.iter().all(|pattern| all_older(folder, pattern, oldest).unwrap_or(false))
}

/// Makes an artifact look older than any source: its build was not finished, so the next one has to run whatever the
/// file times say by then.
pub(super) fn spoil(artifact: &Path) {
    // What is not there is stale by itself; what belongs to somebody else was not made by our build.
    let Ok(files) = files(artifact) else { return };
    for path in files {
        let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH));
    }
}

fn all_older(folder: &Path, pattern: &str, oldest: SystemTime) -> io::Result<bool> {
    let mut full = glob::Pattern::escape(&folder.to_string_lossy());
    full.push('/');
    full.push_str(pattern);
    if folder.join(pattern).is_dir() {
        // A folder by its name means all that is in it.
        full.push_str("/**/*");
    }
    let mut found = false;
    for path in glob::glob(&full).map_err(io::Error::other)? {
        let path = path.map_err(io::Error::other)?;
        let metadata = fs::metadata(&path)?;
        if metadata.is_dir() {
            continue;
        }
        found = true;
        // File times are coarse: made in the same moment may mean made before the last change. A folder changes when
        // a file in it goes, and also when the artifact is made in it.
        let parent = path.parent().map_or(Ok(SystemTime::UNIX_EPOCH), |p| fs::metadata(p)?.modified())?;
        if metadata.modified()? >= oldest || parent > oldest {
            return Ok(false);
        }
    }
    Ok(found)
}

fn times(artifact: &Path) -> io::Result<Vec<SystemTime>> {
    files(artifact)?.iter().map(|path| fs::metadata(path)?.modified()).collect()
}

/// Returns an artifact's files: itself, or all in it.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(path)? {
        all.extend(files(&entry?.path())?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        /// Writes files with their times, in seconds, then gives their folders the time 0.
        fn new(files: &[(&str, u64)]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for (name, second) in files {
                let path = tree.0.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, name).unwrap();
                tree.touch(name, *second);
            }
            for (name, _) in files {
                for folder in Path::new(name).ancestors().skip(1) {
                    tree.touch(folder.to_str().unwrap(), 0);
                }
            }
            tree
        }

        fn touch(&self, name: &str, second: u64) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            File::open(self.0.path().join(name)).unwrap().set_modified(time).unwrap();
        }

        fn is_fresh(&self, artifact: &str, sources: &[&str]) -> bool {
            let sources = sources.iter().map(|s| (*s).to_owned()).collect();
            is_fresh(self.0.path(), &Build { run: Vec::new(), artifact: artifact.to_owned(), sources })
        }
    }

    #[test]
    fn an_artifact_is_fresh_when_every_source_is_older() {
        let tree = Tree::new(&[
            ("src/a.rs", 10),
            ("src/deep/b.rs", 20),
            ("Lock", 5),
            ("out/app", 30),
            ("out/x", 15),
        ]);
        for (artifact, sources, expected) in [
            ("out/app", &["src/**/*.rs", "Lock"][..], true),
            ("out/app", &["src"], true),
            ("out/app", &[], false),
            ("out/app", &["src/**/*.rs", "lib/**/*.rs"], false),
            ("out/app", &["src/***"], false),
            ("out/none", &["Lock"], false),
            // A folder is as old as its oldest file.
            ("out", &["src/a.rs", "Lock"], true),
            ("out", &["src/**/*.rs"], false),
        ] {
            assert_eq!(tree.is_fresh(artifact, sources), expected, "{artifact} of {sources:?}");
        }
    }

    #[test]
    fn a_change_and_a_file_that_went_make_it_stale() {
        let tree = Tree::new(&[("src/a.rs", 10), ("src/b.rs", 10), ("app", 30)]);
        assert!(tree.is_fresh("app", &["src/*.rs"]));
        tree.touch("src/a.rs", 30);
        assert!(!tree.is_fresh("app", &["src/*.rs"]), "in the same moment");
        tree.touch("src/a.rs", 10);
        fs::remove_file(tree.0.path().join("src/b.rs")).unwrap();
        assert!(!tree.is_fresh("app", &["src/*.rs"]), "its folder has changed");
    }

    #[test]
    fn what_a_build_did_not_finish_is_stale() {
        let tree = Tree::new(&[("a.rs", 10), ("out/app", 30), ("out/deep/x", 30)]);
        assert!(tree.is_fresh("out", &["a.rs"]));
        spoil(&tree.0.path().join("out"));
        assert!(!tree.is_fresh("out", &["a.rs"]));
        spoil(&tree.0.path().join("none"));
    }
}
