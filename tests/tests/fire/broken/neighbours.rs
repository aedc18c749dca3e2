//! Trouble with other processes: one that holds the port, children, a daemon, one that does not want to end.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mlctl_tests::{BACK, Load, Sandbox, at_full_length, eventually, free_ports, get, kill, note};

use super::{REPLICAS, a_good_one_works, is_taken_back, only, programs, release, told_cause, whole};
use crate::{deployed, knobs};

/// A process that is none of ours and listens on a port.
struct Foreign(Child);

impl Foreign {
    async fn on(port: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knobs"));
        command.env_clear().env("PORT", port.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let foreign = Self(command.spawn().unwrap());
        eventually("the foreign process to listen", Duration::from_secs(10), async || {
            std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        })
        .await;
        foreign
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn port_of(sandbox: &Sandbox, port: u16) -> u16 {
    sandbox.url(port).rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_at_a_first_deploy_is_named_with_its_holder() {
    let sandbox = knobs();
    let whole = whole(&sandbox);
    let port = port_of(&sandbox, BACK);
    let foreign = Foreign::on(port).await;
    let taken = format!("port {port} is taken by process {} (knobs)", foreign.pid());
    let failed = sandbox.mlctl(&["deploy"]).await.ends(20).says(&taken).says("give the service another port");
    note(&format!("a taken port at a first deploy: told after {:.1?}", failed.took));
    assert!(told_cause(&sandbox, "port_taken"));
    sandbox.mlctl(&["status"]).await.says(&taken);
    drop(foreign);
    a_good_one_works(&sandbox, &whole).await;
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_moves_to_a_taken_port_is_taken_back_and_the_old_port_never_closes() {
    let sandbox = deployed().await;
    let whole = whole(&sandbox);
    let port = free_ports(1)[0];
    let foreign = Foreign::on(port).await;
    let taken = format!("port {port} is taken by process {} (knobs)", foreign.pid());
    sandbox.edit_service(
        "back",
        &format!("    port: {}\n", port_of(&sandbox, BACK)),
        &format!("    port: {port}\n"),
    );
    is_taken_back(&sandbox, "a taken port in a rollout", &[&taken]).await;
    a_good_one_works(&sandbox, &whole).await;
    sandbox.end().await;
}

/// Children for each replica: half of them in its group, half in sessions of their own.
fn children() -> usize {
    if at_full_length() { 300 } else { 60 }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_children_end_with_their_replica() {
    let sandbox = deployed().await;
    let whole = whole(&sandbox);
    let count = children().to_string();
    let said = format!("{count} child processes run");
    // A release with them that fails: the way back leaves none.
    release(&sandbox, "two", &[("KNOB_CHILDREN", &count), ("KNOB_NEVER_READY", "true")]);
    is_taken_back(&sandbox, "never ready, with children", &[&said, "warming up for ever"]).await;
    // One that works has them all; another release, a stop and a crash end them.
    std::fs::write(sandbox.system_file(), &whole).unwrap();
    release(&sandbox, "three", &[("KNOB_CHILDREN", &count)]);
    sandbox.mlctl(&["deploy"]).await.ends(0);
    only(&sandbox, REPLICAS + 2 * children()).await;
    // The parent of many dies: those of its dead run are gone, those of its next one are there.
    let before = programs(&sandbox);
    let child_of = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().to_owned();
        fields.split_whitespace().nth(1).and_then(|parent| parent.parse::<i32>().ok())
    };
    let is_parent = |pid: i32| before.iter().filter(|other| child_of(other.pid) == Some(pid)).count() > 10;
    let parent = before.iter().find(|process| is_parent(process.pid)).unwrap().pid;
    let orphans: Vec<i32> =
        before.iter().map(|process| process.pid).filter(|pid| child_of(*pid) == Some(parent)).collect();
    assert_eq!(orphans.len(), children());
    kill(parent);
    eventually("the children of a killed replica to end", Duration::from_secs(10), async || {
        let now = programs(&sandbox);
        let left = now.iter().filter(|process| orphans.contains(&process.pid)).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
    })
    .await;
    only(&sandbox, REPLICAS + 2 * children()).await;
    sandbox.mlctl(&["rollback"]).await.ends(0);
    only(&sandbox, REPLICAS).await;
    a_good_one_works(&sandbox, &whole).await;
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ignores_its_stop_signal_is_killed_after_its_grace_and_that_is_said() {
    let sandbox = knobs();
    let whole = whole(&sandbox);
    release(&sandbox, "one", &[("KNOB_IGNORE_TERM", "true")]);
    sandbox.mlctl(&["deploy"]).await.ends(0);
    std::fs::write(sandbox.system_file(), &whole).unwrap();
    release(&sandbox, "two", &[]);
    let load = Load::start(&[sandbox.url(BACK)], 100, false, None);
    sandbox.mlctl(&["deploy"]).await.ends(0);
    load.stop().await.is_clean();
    assert_eq!(get(&sandbox.url(BACK)).await.body, "two\n");
    only(&sandbox, REPLICAS).await;
    // Drain and grace of the fixture: 3 s and 2 s.
    let events = sandbox.mlctl(&["events"]).await.ends(0);
    let killed = "signal 9 (SIGKILL) (it did not end within 5.0 s of SIGTERM and was killed)";
    assert_eq!(events.stdout.matches(killed).count(), 2, "{}", events.told());
    sandbox.mlctl(&["logs", "back", "--previous"]).await.ends(0).says("goes on as it was told");
    a_good_one_works(&sandbox, &whole).await;
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_puts_itself_in_the_background_is_told_so_and_leaves_no_daemon() {
    let sandbox = deployed().await;
    let whole = whole(&sandbox);
    release(&sandbox, "two", &[("KNOB_PART", "daemon")]);
    let evidence = ["exit code 0", "put itself in the background", "run it in the foreground"];
    is_taken_back(&sandbox, "a daemon", &evidence).await;
    assert!(told_cause(&sandbox, "backgrounded"));
    a_good_one_works(&sandbox, &whole).await;
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapper_that_loses_one_of_its_two_programs_says_which() {
    let sandbox = deployed().await;
    let whole = whole(&sandbox);
    release(&sandbox, "two", &[("KNOB_PART", "wrapper")]);
    sandbox.edit_service("back", "minReady: 300ms", "minReady: 2s");
    let evidence =
        ["the sidecar has lost its license", "its sidecar program ended (exit status: 9)", "exit code 1"];
    is_taken_back(&sandbox, "a sidecar that dies", &evidence).await;
    a_good_one_works(&sandbox, &whole).await;
    sandbox.end().await;
}
