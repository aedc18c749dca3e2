//! The files that people write: what is read can be written and read again, what is refused says where.

use indexmap::IndexMap;
use mlctl_core::plan::{Plan, rows};
use mlctl_core::playbook::{BindError, Playbook, PlaybookFile};
use mlctl_core::system::{System, SystemFile};
use mlctl_core::yaml::{self, Node};

use super::tree::{places_are_inside, write};

/// `mlctl.yaml`: text to a system under each of its profiles.
pub fn system(data: &[u8]) {
    let tree = read(data);
    match SystemFile::parse("t.yaml", data) {
        Ok(file) => {
            let tree = tree.expect("a file that is read is a tree");
            // A longer text may break the bound on a file, and keys the one on a line.
            let written = write(&tree);
            if written.len() <= yaml::LARGEST {
                let again = SystemFile::parse("t.yaml", written.as_bytes());
                let again = again
                    .unwrap_or_else(|problems| panic!("written again it is refused: {problems}\n{written}"));
                same_systems(&file, &again);
            }
            for profile in std::iter::once(None).chain(file.profiles().map(Some)) {
                let explained = file.explain(profile).unwrap();
                assert!(explained.iter().all(|each| !each.path.is_empty()));
            }
            assert!(file.with_profile("no such profile").is_err());
            assert!(file.missing_files(|_| true).is_empty());
        }
        Err(problems) => places_are_inside(data, &problems),
    }
}

fn read(data: &[u8]) -> Option<Node> {
    match yaml::read("t.yaml", data) {
        Ok(tree) => Some(tree),
        Err(problems) => {
            places_are_inside(data, &problems);
            None
        }
    }
}

fn same_systems(file: &SystemFile, again: &SystemFile) {
    let of = |file: &SystemFile, profile: Option<&str>| -> System {
        match profile {
            Some(profile) => file.with_profile(profile).expect("a checked file fits the model"),
            None => file.system().expect("a checked file fits the model"),
        }
    };
    for profile in std::iter::once(None).chain(file.profiles().map(Some)) {
        let system = of(file, profile);
        assert_eq!(system, of(again, profile), "under {profile:?}");
        let json = serde_json::to_string(&system).unwrap();
        assert_eq!(serde_json::from_str::<System>(&json).unwrap(), system, "{json}");
    }
}

/// A playbook: text to a file, and bound with its defaults.
pub fn playbook(data: &[u8]) {
    let tree = read(data);
    let file = match PlaybookFile::parse("t.yaml", data) {
        Ok(file) => file,
        Err(problems) => return places_are_inside(data, &problems),
    };
    let bound = file.bind(&IndexMap::new());
    match &bound {
        Ok(playbook) => {
            let json = serde_json::to_string(playbook).unwrap();
            assert_eq!(&serde_json::from_str::<Playbook>(&json).unwrap(), playbook, "{json}");
        }
        Err(BindError::Invalid(problems)) => places_are_inside(data, problems),
        Err(BindError::Model { source, .. }) => panic!("a checked file does not fit the model: {source}"),
        Err(_) => {}
    }
    let written = write(&tree.expect("a file that is read is a tree"));
    if written.len() <= yaml::LARGEST {
        let again = PlaybookFile::parse("t.yaml", written.as_bytes());
        let again =
            again.unwrap_or_else(|problems| panic!("written again it is refused: {problems}\n{written}"));
        assert_eq!(bound.ok(), again.bind(&IndexMap::new()).ok());
    }
}

/// A saved plan.
pub fn plan(data: &[u8]) {
    match Plan::parse("t.json", data) {
        Ok(plan) => {
            let written = serde_json::to_string_pretty(&plan).unwrap();
            let again =
                Plan::parse("t.json", written.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{written}"));
            assert_eq!(again, plan);
            assert_eq!(again.digest(), plan.digest(), "the name of a plan does not depend on its spelling");
            assert!(rows(&plan).len() >= plan.steps().count());
            let _ = plan.is_empty();
        }
        Err(problems) => places_are_inside(data, &problems),
    }
}
