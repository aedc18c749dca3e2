//! A system of other people's programs deploys, rolls and rolls back like any.

use std::time::Duration;

use mlctl_tests::{Load, Sandbox, eventually, get, note};

use crate::assert_settled;

const BOARD: u16 = 4100;
const FILES: u16 = 4101;

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_system_deploys_rolls_and_rolls_back() {
    let sandbox = Sandbox::of_fixture("foreign", &[]);
    sandbox.mlctl(&["deploy"]).await.ends(0);
    assert_settled(&sandbox.query(&["status"]).await);
    let board = sandbox.url(BOARD);
    assert_eq!(get(&board).await.body, "Noticeboard\n");
    assert!(get(&format!("{board}/clock")).await.body.ends_with("UTC\n"));
    assert!(get(&format!("{board}/files/index.html")).await.body.contains("The first edition"));

    // New pages, a new zone and a new title: an artifact that is a folder, and two environments.
    std::fs::write(sandbox.system_folder().join("pages/index.html"), "<h1>The second edition</h1>\n")
        .unwrap();
    sandbox.edit("ZONE: UTC", "ZONE: Zulu");
    sandbox.edit("TITLE: Noticeboard", "TITLE: The board");
    let urls = [format!("{}/index.html", sandbox.url(FILES)), format!("{board}/clock")];
    let load = Load::start(&urls, 40, false, None);
    sandbox.mlctl(&["deploy"]).await.ends(0);
    sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");
    assert!(get(&format!("{board}/files/index.html")).await.body.contains("The second edition"));
    assert!(get(&format!("{board}/clock")).await.body.ends_with("Zulu\n"));
    assert_eq!(get(&board).await.body, "The board\n");

    sandbox.mlctl(&["rollback"]).await.ends(0);
    let tally = load.stop().await;
    note(&format!("a roll and a rollback of programs that know nothing of draining: {tally}"));
    tally.is_clean();
    assert!(get(&format!("{board}/files/index.html")).await.body.contains("The first edition"));
    assert_eq!(get(&board).await.body, "Noticeboard\n");

    sandbox.mlctl(&["scale", "clock=2"]).await.ends(0);
    sandbox.mlctl(&["restart", "files"]).await.ends(0);
    eventually("the server's own log", Duration::from_secs(5), async || {
        get(&sandbox.url(FILES)).await;
        let logs = sandbox.mlctl(&["logs", "files"]).await.ends(0);
        if logs.stdout.contains("GET /") { Ok(()) } else { Err(logs.told()) }
    })
    .await;
    sandbox.end().await;
}
