//! Broken playbooks: every message, word for word. A new message is reviewed by its snapshot's difference.

mod broken;

use mlctl_core::playbook::PlaybookFile;

#[test]
fn every_problem_of_a_broken_file_is_told_at_once() {
    broken::every("playbook-", ".yaml", 23, |name, bytes| PlaybookFile::parse(name, bytes).err());
}
