//! What servers are made of and the machine has not: downloaded or built once, kept below `target/`, by version.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{program, say};
use crate::{family, kill, pause, repository};

/// Time for one download or build.
const LIMIT: Duration = Duration::from_secs(1200);

/// Whoever waits here is to give up: the program is being ended.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes everything that starts or builds a server give up soon.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Returns the folder of what was made: `MLCTL_STORES_CACHE`, or `stores-cache` beside what cargo builds.
#[must_use]
pub fn place() -> PathBuf {
    std::env::var_os("MLCTL_STORES_CACHE").map_or_else(
        || {
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
            repository().join(target).join("stores-cache")
        },
        PathBuf::from,
    )
}

/// Returns the folder of that name and version; makes it first where it is not there. Either all of it is there or
/// nothing: it is made beside and then renamed, by one process at a time.
pub(crate) fn cached(
    name: &str,
    talk: &str,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let place = place();
    let made = place.join(name);
    if made.is_dir() {
        return Ok(made);
    }
    let told = |what: &str, error: std::io::Error| format!("{name}: {what}: {error}");
    std::fs::create_dir_all(&place).map_err(|error| told("making the cache", error))?;
    let lock = File::create(place.join(format!("{name}.lock"))).map_err(|error| told("locking", error))?;
    lock.lock().map_err(|error| told("locking", error))?;
    if made.is_dir() {
        return Ok(made);
    }
    // Whoever was killed in the middle of it left this.
    let making = place.join(format!("{name}.making"));
    if making.exists() {
        std::fs::remove_dir_all(&making).map_err(|error| told("removing a half made one", error))?;
    }
    std::fs::create_dir(&making).map_err(|error| told("making its folder", error))?;
    say(talk);
    let began = Instant::now();
    if let Err(reason) = make(&making) {
        let _ = std::fs::remove_dir_all(&making);
        return Err(reason);
    }
    std::fs::rename(&making, &made).map_err(|error| told("putting it in its place", error))?;
    say(&format!("{name} is made, in {:.0?}", began.elapsed()));
    Ok(made)
}

/// Runs a command of a build to its end; what it says is told only when it fails.
pub(crate) fn run(mut command: Command, what: &str, log: &Path) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{what}: {error}");
    let file = File::create(log).map_err(told)?;
    command.stdin(Stdio::null()).stdout(file.try_clone().map_err(told)?).stderr(file);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = program::spawn(command).map_err(|error| format!("{what}: {program}: {error}"))?;
    let until = Instant::now() + LIMIT;
    let ended = loop {
        match child.try_wait().map_err(told)? {
            Some(status) => break status,
            None if interrupted() || Instant::now() >= until => {
                for pid in family(i32::try_from(child.id()).unwrap()) {
                    kill(pid);
                }
                let _ = child.wait();
                let reason = if interrupted() {
                    "interrupted".to_owned()
                } else {
                    format!("not over after {LIMIT:?}")
                };
                return Err(format!("{what}: {program}: {reason}"));
            }
            None => pause(Duration::from_millis(20)),
        }
    };
    if ended.success() {
        return Ok(());
    }
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(15)..].join("\n");
    Err(format!("{what}: {program}: {ended}\n{tail}"))
}
