//! Broken plan files: every message, word for word. A new message is reviewed by its snapshot's difference.

mod broken;

use mlctl_core::plan::Plan;

#[test]
fn a_broken_plan_is_refused_with_the_place() {
    broken::every("plan-", ".json", 12, |name, bytes| Plan::parse(name, bytes).err());
}
