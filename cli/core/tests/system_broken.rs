//! Broken system files: every message, word for word. A new message is reviewed by its snapshot's difference.

mod broken;

use mlctl_core::system::SystemFile;

#[test]
fn every_problem_of_a_broken_file_is_told_at_once() {
    broken::every("system-", ".yaml", 80, |name, bytes| SystemFile::parse(name, bytes).err());
}
