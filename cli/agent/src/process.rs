//! Processes, known by pid and start time: a pid alone is reused, a zombie is dead.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::OnceLock;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

/// Clock ticks in a second, as `/proc` counts them: a constant of Linux' user interface on every architecture we build.
const TICKS_PER_SECOND: u64 = 100;
/// Open files that are counted at most: to count more takes longer than the answer is worth.
const COUNTED_DESCRIPTORS: usize = 65_536;

/// One process of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
}

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time since its start, in milliseconds.
    pub(crate) cpu_ms: u64,
    /// Resident memory in bytes.
    pub(crate) memory_bytes: u64,
}

impl Process {
    /// Returns the living process of that number; none when there is none, or a zombie.
    #[must_use]
    pub fn find(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        (!stat.is_dead()).then_some(Self { pid, start: stat.start })
    }

    /// Returns a child that was not waited for yet, ended or not.
    pub(crate) fn of_child(pid: u32) -> Self {
        Self { pid, start: Stat::read(pid).map_or(0, |stat| stat.start) }
    }

    /// Returns this process.
    #[must_use]
    pub fn own() -> Self {
        let pid = std::process::id();
        Self::find(pid).unwrap_or(Self { pid, start: 0 })
    }

    /// Says whether it still runs.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Sends a signal; says whether it was there to take it.
    ///
    /// The descriptor is opened before the identity is checked, so the signal cannot hit a process that got the
    /// number in between.
    pub(crate) fn signal(self, signal: Signal) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return false };
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        self.is_alive() && pidfd_send_signal(&descriptor, signal).is_ok()
    }

    /// Waits until it has ended, whoever its parent is.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; what makes `new` unsound, a lying AsRawFd, OwnedFd is not"
    )]
    pub(crate) async fn ended(self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let descriptor = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok());
        if let Some(descriptor) = descriptor.and_then(|d| AsyncFd::new(d).ok())
            && self.is_alive()
        {
            // Readable means ended, and stays so.
            let _ = descriptor.readable().await;
            return;
        }
        // A kernel without process descriptors.
        while self.is_alive() {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }

    /// Returns how it ended, while nobody has waited for it yet: the status is with the zombie until then.
    pub(crate) fn left_status(self) -> Option<ExitStatus> {
        let stat = Stat::read(self.pid).filter(|stat| stat.start == self.start && stat.is_dead())?;
        stat.wait_status.map(ExitStatus::from_raw)
    }

    /// Says whether its number belongs to another process by now.
    fn is_reused(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.start != self.start)
    }

    /// Returns how many file descriptors it has open and how many it may have; none where that cannot be seen.
    pub(crate) fn descriptors(self) -> Option<(u64, u64)> {
        let limit = open_files(&fs::read_to_string(format!("/proc/{}/limits", self.pid)).ok()?)?;
        let most = usize::try_from(limit).ok()?.min(COUNTED_DESCRIPTORS);
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?.take(most).count();
        self.is_alive().then_some((u64::try_from(open).ok()?, limit))
    }

    /// Returns what it has used so far; none once it has ended.
    pub(crate) fn usage(self) -> Option<Usage> {
        let stat = Stat::read(self.pid)?;
        (stat.start == self.start && !stat.is_dead()).then_some(Usage {
            cpu_ms: stat.cpu_ticks * 1000 / TICKS_PER_SECOND,
            memory_bytes: stat.resident_bytes(),
        })
    }
}

/// Returns the limit of open files from the text of `/proc/PID/limits`: the soft one, which is the one in force.
fn open_files(limits: &str) -> Option<u64> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

/// Returns all living processes below one: its children, theirs, and so on.
pub(crate) fn descendants(ancestor: u32) -> Vec<Process> {
    let all: Vec<(u32, Stat)> = all().collect();
    let mut found = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for (pid, stat) in all.iter().filter(|(_, stat)| stat.parent == parent) {
            parents.push(*pid);
            if !stat.is_dead() {
                found.push(Process { pid: *pid, start: stat.start });
            }
        }
    }
    found
}

/// Returns the resident memory of everything below a process, in bytes.
pub(crate) fn memory_below(ancestor: u32) -> u64 {
    descendants(ancestor).into_iter().filter_map(Process::usage).map(|usage| usage.memory_bytes).sum()
}

/// Kills a shim with all that lies below it, in whichever session that is. Looked at first: what loses its shim comes
/// to another process, and nothing tells any more whose it was.
pub(crate) fn kill_shim(shim: Process) {
    let below = if shim.is_alive() { descendants(shim.pid) } else { Vec::new() };
    shim.signal(Signal::KILL);
    for process in below {
        // One that has ended meanwhile is what was wanted.
        process.signal(Signal::KILL);
    }
}

/// Kills what is left of a shim's session after it was killed: the program itself dies with its shim, processes that it
/// started do not. Those that have left the session cannot be told from others any more. A number is not given to a new process while a session has it: a shim whose number is another's by
/// now has left nothing.
pub(crate) fn kill_orphans(shim: Process) {
    if shim.start == 0 || shim.is_reused() {
        return;
    }
    let of_session = |(pid, stat): &(u32, Stat)| {
        *pid != shim.pid && stat.session == shim.pid && stat.start >= shim.start && !stat.is_dead()
    };
    for (pid, stat) in all().filter(of_session) {
        // One that has ended meanwhile is what was wanted.
        let _ = Process { pid, start: stat.start }.signal(Signal::KILL);
    }
}

/// Names this boot of the machine: pids and start times are those of one boot only. Empty where the kernel does not
/// tell.
pub(crate) fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    })
}

/// Returns all processes of the machine that can be seen.
fn all() -> impl Iterator<Item = (u32, Stat)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, Stat::read(pid)?))
    })
}

/// The fields of `/proc/PID/stat` that we read; see proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: u32,
    session: u32,
    cpu_ticks: u64,
    threads: u64,
    start: u64,
    resident_pages: u64,
    /// As wait(2) would tell it; nothing to say before its end.
    wait_status: Option<i32>,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses and may hold spaces and parentheses itself.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(1)?).ok()?,
            session: u32::try_from(number(3)?).ok()?,
            cpu_ticks: number(11)? + number(12)?,
            threads: number(17)?,
            start: number(19)?,
            resident_pages: number(21)?,
            wait_status: fields.get(49).and_then(|status| status.parse().ok()),
        })
    }

    fn resident_bytes(&self) -> u64 {
        self.resident_pages * rustix::param::page_size() as u64
    }

    /// A process lives on when only its first thread has ended, and holds its files until the last one has.
    const fn is_dead(&self) -> bool {
        matches!(self.state, 'X' | 'x') || self.state == 'Z' && self.threads <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_program_is_called() {
        let tail =
            "S 1 4242 4243 0 -1 4194560 100 0 0 0 7 3 0 0 20 0 1 0 987654 1000000 250 18446744073709551615";
        for name in ["app", "my app", "a) S (b", ""] {
            let stat = Stat::parse(&format!("4242 ({name}) {tail}")).unwrap();
            let expected = Stat {
                state: 'S',
                parent: 1,
                session: 4243,
                cpu_ticks: 10,
                threads: 1,
                start: 987_654,
                resident_pages: 250,
                wait_status: None,
            };
            assert_eq!(stat, expected, "{name}");
        }
        for (state, threads, dead) in
            [('S', 1, false), ('Z', 1, true), ('Z', 0, true), ('Z', 3, false), ('X', 1, true)]
        {
            let line = format!("7 (app) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 5 0 0");
            assert_eq!(Stat::parse(&line).unwrap().is_dead(), dead, "{line}");
        }
        assert_eq!(Stat::parse("4242 (app"), None);
        assert_eq!(Stat::parse("4242 (app) S 1"), None);
    }

    #[test]
    fn a_zombie_and_a_reused_pid_are_dead() {
        let own = Process::own();
        assert!(own.is_alive());
        assert!(!Process { start: own.start + 1, ..own }.is_alive());
        assert!(!Process { start: own.start + 1, ..own }.signal(Signal::KILL));

        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        // Not waited for yet: it becomes a zombie and stays one.
        while Process::find(pid).is_some() {
            std::thread::yield_now();
        }
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
        child.wait().unwrap();
    }

    #[test]
    fn a_zombie_tells_how_it_ended_until_it_is_waited_for() {
        for (script, expected) in [("exit 7", (Some(7), None)), ("kill -9 $$", (None, Some(9)))] {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let process = Process::of_child(child.id());
            while process.is_alive() {
                std::thread::yield_now();
            }
            let status = process.left_status().unwrap();
            assert_eq!((status.code(), status.signal()), expected, "{script}");
            assert_eq!(Process { start: process.start + 1, ..process }.left_status(), None);
            child.wait().unwrap();
            assert_eq!(process.left_status(), None);
        }
        assert_eq!(Process::own().left_status(), None);
    }

    /// Starts a script that leads a session, as a shim does, and tells the pid of what it has started.
    fn session(script: &str) -> (std::process::Child, Process, Process) {
        let mut leader = std::process::Command::new("setsid")
            .args(["sh", "-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut told = std::io::BufReader::new(leader.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut told, &mut line).unwrap();
        let started = Process::find(line.trim().parse().unwrap()).unwrap();
        let known = Process::find(leader.id()).unwrap();
        (leader, known, started)
    }

    #[test]
    fn orphans_are_those_of_the_shims_own_session_and_of_no_other() {
        let (mut shim, known, orphan) = session("sleep 600 & echo $!; wait");
        // The number of a shim that ended long ago: it is another's now, and so is everything in that session.
        kill_orphans(Process { start: known.start - 1, ..known });
        kill_orphans(Process { start: 0, ..known });
        assert!(orphan.is_alive() && known.is_alive());
        shim.kill().unwrap();
        kill_orphans(known);
        while orphan.is_alive() {
            std::thread::yield_now();
        }
        shim.wait().unwrap();
    }

    #[test]
    fn what_has_left_the_session_of_a_shim_is_killed_with_it() {
        let (mut shim, known, child) = session("setsid sleep 600 & echo $!; wait");
        while Stat::read(child.pid).unwrap().session != child.pid {
            std::thread::yield_now();
        }
        kill_shim(Process { start: known.start - 1, ..known });
        assert!(child.is_alive() && known.is_alive(), "the number of another");
        kill_shim(known);
        while child.is_alive() {
            std::thread::yield_now();
        }
        shim.wait().unwrap();
    }

    #[test]
    fn what_lies_below_a_process_is_found() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let begun = std::time::Instant::now();
        while descendants(child.id()).is_empty() {
            assert!(begun.elapsed() < std::time::Duration::from_secs(10), "the shell has started no child");
            std::thread::yield_now();
        }
        let below = descendants(child.id());
        assert!(below.iter().all(|process| descendants(own).contains(process)));
        assert!(descendants(own).iter().any(|process| process.pid == child.id()));
        for process in below {
            process.signal(Signal::KILL);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn open_files_are_counted_against_their_limit() {
        let text = "Limit   Soft Limit  Hard Limit  Units\nMax processes  7 8 processes\nMax open files            1024                 4096                 files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(open_files("Max open files  unlimited unlimited files"), None);
        let (open, limit) = Process::own().descriptors().unwrap();
        assert!(open >= 3 && open < limit, "{open} of {limit}");
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_seen_without_being_its_parent() {
        let mut child = tokio::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::find(child.id().unwrap()).unwrap();
        assert!(process.usage().is_some());
        assert!(process.signal(Signal::KILL));
        process.ended().await;
        child.wait().await.unwrap();
        assert!(!process.is_alive());
    }
}
