//! What a program starts and leaves behind: adopted, reaped while it runs, ended when it has ended.
//!
//! A process that loses its parent becomes ours and not that of the machine's first process, so one that went into
//! the background, with a session of its own, is still found by its descent.

use std::collections::HashSet;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::process::descendants;

/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(10);
/// After this, what multiplies faster than it is killed is given up. A time and not a number of looks: each of them
/// reads all of `/proc`, and the agent waits for this to be over.
pub(crate) const END_WAIT: Duration = Duration::from_secs(2);

/// Makes this process the one that orphans below it come to.
pub(super) fn adopt_orphans() -> Result<(), Errno> {
    prctl::set_child_subreaper(true)
}

/// Reaps adopted processes that have ended. The program itself is left to who waits for it.
pub(super) fn reap_adopted(program: Pid) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Some(ended) = waitid(Id::All, look).ok().and_then(|status| status.pid()) {
        // The ones behind it are reaped by the next look, once the program itself was.
        if ended == program || waitpid(ended, Some(WaitPidFlag::WNOHANG)).is_err() {
            return;
        }
    }
}

/// Ends everything below this process, what it starts meanwhile included, and returns how many processes there were.
/// The program has ended and was waited for.
///
/// Whether any is left is asked of the kernel, which knows at once: whoever lives below us has an ancestor that is our
/// child. A walk through `/proc` may miss one that is just being forked by one that just ends.
pub(super) async fn end_all(program: Pid) -> usize {
    let mut found = HashSet::new();
    let deadline = Instant::now() + END_WAIT;
    while Instant::now() < deadline {
        for process in descendants(std::process::id()) {
            if found.insert(process) {
                process.signal(Signal::KILL);
            }
        }
        reap_adopted(program);
        if has_no_child() {
            break;
        }
        sleep(LOOK).await;
    }
    found.len()
}

fn has_no_child() -> bool {
    waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) == Err(Errno::ECHILD)
}
