//! Other processes: children, a daemon, a wrapper around two programs. Each is this program again, with a part to
//! play in place of serving.

use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use tokio::time::sleep;

use crate::say;

/// Which part to play.
const PART: &str = "KNOB_PART";
/// Exit code of a sidecar that dies.
const SIDECAR_DIED: u8 = 9;

/// Plays the part that the environment names; none when it names none, and the program is to serve.
pub(crate) async fn play_a_part() -> Option<ExitCode> {
    match std::env::var(PART).ok()?.as_str() {
        // A daemon of the old school: two forks and a session of its own, the last one serves.
        "daemon" => Some(replaced_by("daemon-second")),
        "daemon-second" => {
            let _ = nix::unistd::setsid();
            Some(replaced_by(""))
        }
        // Holds two programs and ends when one of them does.
        "wrapper" => Some(wrap().await),
        "sidecar" => {
            say("the sidecar runs");
            sleep(Duration::from_millis(700)).await;
            say("the sidecar has lost its license");
            Some(SIDECAR_DIED.into())
        }
        "idle" => std::future::pending().await,
        "idle-alone" => {
            let _ = nix::unistd::setsid();
            std::future::pending().await
        }
        _ => None,
    }
}

/// Starts processes that do nothing but be there.
pub(crate) fn start_children(count: u32) {
    let started = (0..count).filter(|number| {
        let part = if number % 2 == 0 { "idle" } else { "idle-alone" };
        start(part).is_some()
    });
    let started = started.count();
    if started > 0 {
        say(&format!("{started} child processes run"));
    }
}

fn replaced_by(part: &str) -> ExitCode {
    match start(part) {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    }
}

async fn wrap() -> ExitCode {
    let (Some(mut main), Some(mut sidecar)) = (start(""), start("sidecar")) else {
        return ExitCode::FAILURE;
    };
    loop {
        for (name, child) in [("main", &mut main), ("sidecar", &mut sidecar)] {
            if let Ok(Some(status)) = child.try_wait() {
                say(&format!("the wrapper ends, since its {name} program ended ({status})"));
                return ExitCode::FAILURE;
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Starts this program again in another part. Nobody waits for it: that is the point.
fn start(part: &str) -> Option<Child> {
    let program = std::env::current_exe().ok()?;
    match Command::new(program).env(PART, part).spawn() {
        Ok(child) => Some(child),
        Err(error) => {
            say(&format!("start a {part} process: {error}"));
            None
        }
    }
}
