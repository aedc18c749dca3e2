//! Broken scenarios of the simulated target: every message, word for word.

mod broken;

use mlctl_core::sim::Script;

#[test]
fn a_broken_scenario_is_refused_with_the_place() {
    broken::every("scenario-", ".toml", 11, |name, bytes| Script::parse(name, bytes).err());
}
