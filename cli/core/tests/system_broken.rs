//! Broken system files: every message, word for word. A new message is reviewed by its snapshot's difference.

use std::path::Path;

use mlctl_core::system::SystemFile;

#[test]
fn every_problem_of_a_broken_file_is_told_at_once() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/broken"));
    let mut names: Vec<String> = (std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("system-") && name.ends_with(".yaml"))
        .collect();
    names.sort();
    assert!(names.len() >= 18, "fixtures went missing: {names:?}");
    let settings = settings();
    for name in names {
        let bytes = std::fs::read(folder.join(&name)).unwrap();
        let problems = SystemFile::parse(&name, &bytes).expect_err(&name);
        settings.bind(|| insta::assert_snapshot!(name.trim_end_matches(".yaml"), problems));
    }
}

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("fixtures/broken");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}
