//! Fixtures that are broken on purpose, with the snapshots of what is said about them.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use mlctl_core::yaml::Problems;

/// Holds what `problems` tells of every fixture called so against its snapshot. At least `least` have to be there.
#[track_caller]
pub fn every(begin: &str, end: &str, least: usize, problems: impl Fn(&str, &[u8]) -> Option<Problems>) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/broken"));
    let mut names: Vec<String> = (std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(begin) && name.ends_with(end))
        .collect();
    names.sort();
    assert!(names.len() >= least, "fixtures went missing: {} of {least}, {names:?}", names.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../fixtures/broken");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for name in names {
        let bytes = std::fs::read(folder.join(&name)).unwrap();
        let told = problems(&name, &bytes).unwrap_or_else(|| panic!("{name} is accepted"));
        assert!(told.iter().all(|each| each.line > 0 && each.column > 0), "{name}: {told}");
        settings.bind(|| insta::assert_snapshot!(name.trim_end_matches(end), told));
    }
}
