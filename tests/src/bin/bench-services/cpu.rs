//! CPU time of processes that run.

use std::time::Duration;

/// CPU time that these processes have used so far, user and system.
///
/// # Errors
/// When one of them is gone: its time would be missing.
pub fn used(pids: &[i32]) -> Result<Duration, String> {
    pids.iter().map(|pid| of(*pid)).sum()
}

fn of(pid: i32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th word behind it (proc(5)).
    let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
    let words: Vec<&str> = behind.split_whitespace().collect();
    let ticks = |index: usize| words.get(index).and_then(|word| word.parse::<u64>().ok());
    match (ticks(11), ticks(12)) {
        // Linux shows a hundredth of a second to user space, whatever the kernel's own clock (USER_HZ).
        (Some(user), Some(system)) => Ok(Duration::from_millis((user + system) * 10)),
        _ => Err(format!("{path} is not as proc(5) says")),
    }
}

/// The children of a process.
///
/// # Errors
/// When it is gone.
pub fn children(pid: i32) -> Result<Vec<i32>, String> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}
