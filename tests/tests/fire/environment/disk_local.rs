//! The disk of the embedded target's own folder.

use mlctl_tests::{Sandbox, assert_settled, at_full_length, end, note, through};

use super::Mount;
use crate::knobs;

/// Bytes of the program that a release keeps a copy of.
fn program_bytes(sandbox: &Sandbox) -> u64 {
    std::fs::metadata(sandbox.system_folder().join("knobs")).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_embedded_target_is_a_clear_end_and_no_obstacle_later() {
    let rooms: &[u64] =
        if at_full_length() { &[0, 4, 16, 32, 48, 64, 96, 128, 192, 256] } else { &[0, 32, 48, 96] };
    let mut ends = Vec::new();
    // Half of the program; then the program and so many KiB for everything else.
    for room in std::iter::once(None).chain(rooms.iter().map(Some)) {
        let sandbox = knobs();
        let program = program_bytes(&sandbox).next_multiple_of(4096);
        let size = room.map_or(program / 2, |room| program + room * 1024);
        let disk = Mount::tmpfs(&sandbox.local(), &format!("size={size}"));
        let finished = sandbox.mlctl(&["deploy"]).await.is_clear();
        ends.push((room.copied(), finished.code.unwrap(), finished.took.as_secs()));
        if room.is_none() {
            let _ = finished.says("No space left on device");
        }
        disk.remount("size=1g");
        // What was cut off is carried on, or told as what it is; a new deploy leads to the good end.
        let resumed = sandbox.mlctl(&["deploy", "--resume"]).await.is_clear();
        assert!(matches!(resumed.code, Some(0 | 6 | 40)), "{}", resumed.told());
        let _ = sandbox.mlctl(&["deploy"]).await.ends(0);
        assert_settled(&sandbox.query(&["status"]).await);
        sandbox.end().await;
        drop(disk);
    }
    note(&format!("room in KiB beside the program, exit code, seconds: {ends:?}"));
    assert_ne!(ends[0].1, 0, "{ends:?}");
    assert_ne!(ends[1].1, 0, "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_folder_of_the_embedded_target_is_told() {
    let sandbox = knobs();
    let disk = Mount::tmpfs(&sandbox.local(), "size=1g,ro");
    let _ = sandbox.mlctl(&["status"]).await.ends(0);
    let _ = sandbox.mlctl(&["deploy"]).await.is_clear().ends(4).says("Read-only file system");
    disk.remount("rw");
    let _ = sandbox.mlctl(&["deploy"]).await.ends(0);
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_descriptors_for_the_agent_are_a_clear_end() {
    for limit in [24, 64, 255] {
        let sandbox = knobs();
        let limits = format!("--nofile={limit}:{limit}");
        let finished = end(through(&["prlimit", &limits], &sandbox.prepared(&["deploy"]))).is_clear();
        let finished = finished.ends(4).says("256 are needed").says("ulimit -Hn");
        note(&format!("{limit} descriptors: {:?} after {:?}", finished.code, finished.took));
        // The agent has the limits of whoever started it; the next one has enough.
        let _ = sandbox.mlctl(&["down", "--yes"]).await.is_clear();
        let _ = sandbox.mlctl(&["deploy"]).await.ends(0);
        sandbox.end().await;
    }
}
