//! A load test that is killed leaves what its setup made: the next one must not stumble over it.

use std::time::Duration;

use super::rig::Rig;
use crate::release::ReleaseState;

#[tokio::test(start_paused = true)]
async fn a_load_that_was_killed_is_not_in_the_way_of_the_next() {
    let mut rig = Rig::new("");
    rig.edit("mix:", "setup: [{name: register, post: /api/register}], mix:");
    let plan = rig.plan().await;
    let run = rig.next_run();
    for killed in 1..=3 {
        // The load runs from about the fourth second to the fourteenth.
        let dies = tokio::time::sleep(Duration::from_secs(9));
        if killed == 1 {
            tokio::select! {
                told = rig.carry_out(&plan) => panic!("it ended:\n{}", told.text()),
                () = dies => {}
            }
        } else {
            tokio::select! {
                told = rig.resume(&run) => panic!("it ended:\n{}", told.text()),
                () = dies => {}
            }
        }
        assert_eq!(rig.sim.world().set_up.len(), killed, "each made something of its own");
        rig.sim.revive();
    }
    let told = rig.resume(&run).await;
    assert_eq!(told.report.outcome, crate::event::RunOutcome::Succeeded, "{}", told.text());
    assert_eq!(rig.releases(), [(1, ReleaseState::Verified)]);
}
