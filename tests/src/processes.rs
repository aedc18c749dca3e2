//! Processes as `/proc` shows them. They are found by the folder they belong to and killed by id, never by name.

use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its arguments.
    pub args: Vec<String>,
}

impl Process {
    /// Says whether it is that hidden verb of mlctl.
    #[must_use]
    pub fn is_verb(&self, verb: &str) -> bool {
        self.args.get(1).is_some_and(|word| word == verb)
    }
}

/// Returns the living processes that belong to a folder: it is in their arguments or their environment.
#[must_use]
pub fn of_folder(folder: &Path) -> Vec<Process> {
    let needle = folder.to_str().unwrap();
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| i64::from(*pid) != i64::from(own))
        .filter_map(|pid| {
            let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let words = |file: &str| -> Vec<String> {
                let bytes = read(file);
                let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
                words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
            };
            let args = words("cmdline");
            let stat = String::from_utf8_lossy(&read("stat")).into_owned();
            // After the last parenthesis: the state. A zombie is dead.
            let dead = stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z'));
            let ours = args.iter().chain(&words("environ")).any(|word| word.contains(needle));
            (ours && !dead && !args.is_empty()).then_some(Process { pid, args })
        })
        .collect()
}

/// Kills one process, as `kill -9` does; one that is gone already is fine.
pub fn kill(pid: i32) {
    match nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => panic!("kill {pid}: {error}"),
    }
}

/// Returns the ids of a process and of all that come from it.
#[must_use]
pub fn family(pid: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parents: Vec<(i32, i32)> = pids.filter_map(|pid| Some((pid, state_and_parent(pid)?.1))).collect();
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    family
}

/// Says whether a process is there and no zombie.
#[must_use]
pub fn alive(pid: i32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A name may hold anything, but the last parenthesis is behind it.
    let mut words = stat.rsplit(')').next()?.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}
