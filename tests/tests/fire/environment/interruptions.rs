//! Interrupted system calls: signals in a storm, and EINTR wherever the kernel may give it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mlctl_tests::{Finished, Seal, assert_settled, begin, end, note, pause, through};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::knobs;

/// Signals that no program asked for and none dies of.
const STORM: [Signal; 4] = [Signal::SIGWINCH, Signal::SIGCHLD, Signal::SIGURG, Signal::SIGCONT];

/// Sends signals to a process, some thousand a second, until it is told to stop.
struct Storm {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Storm {
    fn over(pid: u32) -> Self {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap());
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (asked, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            for signal in STORM.iter().cycle() {
                if asked.load(Ordering::Relaxed) || kill(pid, *signal).is_err() {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
                pause(Duration::from_micros(500));
            }
        });
        Self { stop, sent, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

#[test]
fn a_storm_of_signals_disturbs_no_run() {
    let seal = Seal::new("healthy.toml").patient();
    let child = begin(seal.command(&["deploy"]));
    let storm = Storm::over(child.id());
    let output = child.wait_with_output().unwrap();
    let sent = storm.end();
    note(&format!("{sent} signals"));
    assert!(sent > 500, "{sent}");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    seal.is_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_signals_over_mlctl_and_its_agent_disturbs_no_deploy() {
    let sandbox = knobs();
    let running = sandbox.start(&["deploy"]);
    let storm = Storm::over(u32::try_from(running.pid()).unwrap());
    let agent = mlctl_tests::eventually("the agent to be there", Duration::from_secs(20), async || {
        let agent =
            mlctl_tests::of_folder(&sandbox.local()).into_iter().find(|process| process.is_verb("agent"));
        agent.ok_or_else(|| "no agent".to_owned())
    })
    .await;
    let over_agent = Storm::over(u32::try_from(agent.pid).unwrap());
    let finished = running.finish().await;
    let (sent, to_agent) = (storm.end(), over_agent.end());
    note(&format!("{sent} signals to mlctl, {to_agent} to the agent; the deploy took {:?}", finished.took));
    let _ = finished.ends(0);
    assert!(sent > 500 && to_agent > 500, "{sent} {to_agent}");
    assert_settled(&sandbox.query(&["status"]).await);
    sandbox.end().await;
}

/// Runs a deploy with a build under strace, which interrupts calls as often as it is told.
fn interrupted(seal: &Seal, calls: &[(&str, &str)], more: &[&str], how: &str) -> (Finished, usize) {
    // A build, so that a child and its pipe are there too.
    let build = "    build: {run: [sh, -c, \"echo built; echo program > web\"], artifact: web}";
    seal.edit("    command: [web]", build);
    let log = seal.path("strace.log");
    let names: Vec<&str> = calls.iter().map(|(call, _)| *call).collect();
    let trace = format!("trace={}", names.join(","));
    let injects: Vec<String> =
        calls.iter().map(|(call, when)| format!("inject={call}:error=EINTR:when={when}")).collect();
    let mut wrapper = vec!["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", &trace];
    injects.iter().for_each(|inject| wrapper.extend(["-e", inject]));
    wrapper.extend(more);
    let traced = through(&wrapper, &seal.command(&["deploy", "-o", "json"]));
    let script = format!(r#"exec "$@" {how}"#);
    let finished = end(through(&["sh", "-c", &script, "sh"], &traced));
    let trace = std::fs::read_to_string(&log).unwrap();
    (finished, trace.lines().filter(|line| line.contains("INJECTED")).count())
}

#[test]
fn a_call_that_a_signal_interrupts_is_made_again() {
    // The first reads are the loader's, of files, where the kernel gives no EINTR; nor does it to a
    // futex that wakes or a wait that does not block.
    let calls = [
        ("read", "12+5"),
        ("poll", "2+5"),
        ("epoll_wait", "3+3"),
        ("recvfrom", "1+5"),
        ("sendto", "1+5"),
        ("clock_nanosleep", "1+5"),
    ];
    let seal = Seal::new("healthy.toml");
    let (finished, hit) = interrupted(&seal, &calls, &[], "");
    note(&format!("{hit} interrupted calls"));
    assert!(hit > 20, "{hit}: {}", finished.told());
    let events = finished.is_clear().ends(0).events();
    assert_eq!(events.last().unwrap()["outcome"], "succeeded");
    seal.is_well();
}

#[test]
fn an_interrupted_write_to_a_pipe_is_made_again() {
    let seal = Seal::new("healthy.toml");
    let pipe = seal.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read_to_string(pipe).unwrap()
    });
    let of_pipe = ["-P", pipe.to_str().unwrap()];
    let (finished, hit) = interrupted(&seal, &[("write", "1+2")], &of_pipe, ">pipe");
    let text = reader.join().unwrap();
    note(&format!("{hit} interrupted writes"));
    assert!(hit > 20, "{hit}: {}", finished.told());
    let _ = finished.is_clear().ends(0);
    let events = Finished { stdout: text, ..seal.mlctl(&["version"]) }.events();
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>(), "each event once");
    assert_eq!(events.last().unwrap()["kind"], "run_finished");
    seal.is_well();
}
