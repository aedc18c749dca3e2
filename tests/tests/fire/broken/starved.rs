//! Releases that take too much, and a disk that has nothing left to give.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mlctl_tests::{BACK, FRONT, Load, Sandbox, at_full_length, eventually, note};

use super::{REPLICAS, a_good_one_works, is_taken_back, only, release, told_cause, whole};
use crate::{deployed, knobs};

#[tokio::test(flavor = "multi_thread")]
async fn memory_past_its_limit_is_named() {
    let sandbox = deployed().await;
    let whole = whole(&sandbox);
    release(&sandbox, "two", &[("KNOB_MEMORY_MIB", "400")]);
    sandbox.edit_service(
        "back",
        "stop: {grace: 2s}",
        "stop: {grace: 2s}\n    resources: {limits: {memory: 64Mi}}",
    );
    sandbox.edit_service("back", "minReady: 300ms", "minReady: 3s");
    let mut evidence = vec!["killed for its memory"];
    // Where control groups can be made the kernel enforces the limit, and nothing about it is approximate.
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let enforced = group
        .is_some_and(|group| Path::new("/sys/fs/cgroup").join(group).join("cgroup.subtree_control").exists());
    if !enforced {
        evidence.extend(["of at most 64 MiB", "approximate, for no control group can be made here"]);
    }
    is_taken_back(&sandbox, "memory past its limit", &evidence).await;
    assert!(told_cause(&sandbox, "oom"));
    a_good_one_works(&sandbox, &whole).await;
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_without_a_descriptor_left_is_told_so() {
    let sandbox = deployed().await;
    let whole = whole(&sandbox);
    release(&sandbox, "two", &[("KNOB_LEAK_FILES", "64")]);
    // Ready for longer than it takes its probes to notice: three times two answers that do not come.
    sandbox.edit_service("back", "minReady: 300ms", "minReady: 4s");
    sandbox.edit_service("back", "timeout: 1s", "timeout: 300ms");
    let evidence = ["no answer from", "all 64 file descriptors it may have are open", "Too many open files"];
    is_taken_back(&sandbox, "descriptors exhausted", &evidence).await;
    a_good_one_works(&sandbox, &whole).await;
    sandbox.end().await;
}

/// Returns the sizes of the log files of every replica of `back`, by replica.
fn logs(sandbox: &Sandbox) -> Vec<(String, Vec<u64>)> {
    let folders = std::fs::read_dir(sandbox.local().join("knobs/replicas")).unwrap().flatten();
    let named = |entry: &std::fs::DirEntry| entry.file_name().into_string().unwrap();
    let back = folders.filter(|entry| named(entry).starts_with("back-"));
    back.map(|folder| {
        let files = std::fs::read_dir(folder.path()).unwrap().flatten();
        let of_log = files.filter(|file| named(file) == "log" || named(file).starts_with("log."));
        (named(&folder), of_log.filter_map(|file| Some(file.metadata().ok()?.len())).collect())
    })
    .collect()
}

/// Bytes of one log file, and what the write that fills it may bring.
const FILE: u64 = 20 << 20;
const SLACK: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_log_lines_is_bounded_and_harms_nobody() {
    let sandbox = knobs();
    sandbox.edit_service("back", "replicas: {min: 2", "replicas: {min: 1");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    let whole = whole(&sandbox);
    let load = Load::start(&[sandbox.url(FRONT)], 50, false, None);
    release(&sandbox, "two", &[("KNOB_FLOOD_MIB", "1000000")]);
    sandbox.mlctl(&["deploy"]).await.ends(0);
    // The rate: by the numbers of the lines, since old ones are thrown away.
    let newest = async || {
        let lines = sandbox.mlctl(&["logs", "back", "--tail", "1"]).await.ends(0);
        let number = lines.stdout.split("line ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let number: u64 = number.unwrap_or_else(|| panic!("{}", lines.told()));
        (Instant::now(), number)
    };
    let (from, first) = newest().await;
    let rotated = if at_full_length() { 5 } else { 2 };
    eventually("the log to be rotated", Duration::from_secs(120), async || {
        let most = logs(&sandbox).into_iter().map(|(_, sizes)| sizes.len()).max().unwrap_or_default();
        if most >= rotated { Ok(()) } else { Err(format!("{most} files")) }
    })
    .await;
    // A moment more: what is full is thrown away, and the rest stays bounded.
    tokio::time::sleep(Duration::from_secs(if at_full_length() { 20 } else { 2 })).await;
    let (until, last) = newest().await;
    let rate = (last - first) as f64 / (until - from).as_secs_f64();
    for (replica, sizes) in logs(&sandbox) {
        note(&format!("{replica}: log files of {sizes:?} bytes, at {rate:.0} lines a second"));
        assert!(sizes.len() <= 5 && sizes.iter().all(|size| *size <= FILE + SLACK), "{replica}: {sizes:?}");
    }
    // The agent answers and so do the logs.
    let status = sandbox.mlctl(&["status"]).await.ends(0);
    assert!(status.took < Duration::from_secs(5), "{}", status.told());
    let tail = sandbox.mlctl(&["logs", "back", "--tail", "100"]).await.ends(0);
    assert_eq!(tail.stdout.lines().count(), 100, "one replica, a hundred lines");
    assert!(tail.took < Duration::from_secs(10), "{:?}", tail.took);
    let tally = load.stop().await;
    note(&format!("the neighbour of a flood: {tally}; the last lines were there after {:.1?}", tail.took));
    tally.is_clean();
    std::fs::write(sandbox.system_file(), &whole).unwrap();
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: good");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    only(&sandbox, REPLICAS - 1).await;
    sandbox.end().await;
}

/// A small disk in the place of the embedded target's folder; taken away again when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn of(sandbox: &Sandbox, mib: u64) -> Self {
        let at = sandbox.local();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "mlctl-test"]).arg(&at);
        let done = mount.output().unwrap();
        assert!(done.status.success(), "a small disk has to be mounted, as root: {done:?}");
        Self(at)
    }

    /// Fills it until so many KiB are left.
    fn fill(&self, left_kib: usize) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        let block = vec![1_u8; 16 << 10];
        let mut written = 0_u64;
        while let Ok(bytes) = ballast.write(&block) {
            written += bytes as u64;
        }
        ballast.set_len(written.saturating_sub((left_kib as u64) << 10)).unwrap();
    }

    fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whatever a failed test left running there goes with its sandbox.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_in_the_middle_keeps_the_old_release_and_works_again_with_room() {
    let sandbox = knobs();
    let size = std::fs::metadata(env!("CARGO_BIN_EXE_knobs")).unwrap().len() >> 20;
    let disk = SmallDisk::of(&sandbox, 4 * size + 48);
    sandbox.mlctl(&["deploy"]).await.ends(0);
    let whole = whole(&sandbox);
    let full = "No space left on device";

    // Room for records, not for the program of the next release.
    let mut program = std::fs::read(sandbox.system_folder().join("knobs")).unwrap();
    program.extend_from_slice(b"another build of the same");
    std::fs::write(sandbox.system_folder().join("knobs-two"), &program).unwrap();
    make_executable(&sandbox.system_folder().join("knobs-two"));
    release(&sandbox, "two", &[]);
    sandbox.edit_service("back", "artifact: knobs", "artifact: knobs-two");
    disk.fill(2 << 10);
    let load = Load::start(&[sandbox.url(FRONT), sandbox.url(BACK)], 100, false, None);
    let failed = sandbox.mlctl(&["deploy"]).await.says(full);
    note(&format!("no room for a program: ended with {:?} after {:.1?}", failed.code, failed.took));
    assert!(matches!(failed.code, Some(20 | 21)), "{}", failed.told());
    // No room for anything at all.
    disk.empty();
    disk.fill(0);
    let failed = sandbox.mlctl(&["deploy"]).await.says(full);
    note(&format!("no room at all: ended with {:?} after {:.1?}", failed.code, failed.took));
    assert!(matches!(failed.code, Some(1 | 4 | 20)), "{}", failed.told());
    sandbox.mlctl(&["status"]).await.ends(0);
    let tally = load.stop().await;
    note(&format!("on a full disk: {tally}"));
    tally.is_clean();
    assert_eq!(tally.bodies.keys().collect::<Vec<_>>(), ["one"]);
    only(&sandbox, REPLICAS).await;

    // Space freed: the very same deploy works.
    disk.empty();
    sandbox.mlctl(&["deploy"]).await.ends(0);
    assert_eq!(mlctl_tests::get(&sandbox.url(BACK)).await.body, "two\n");

    // A log that fills it: the program goes on, its lines are lost, and the others do not notice.
    std::fs::write(sandbox.system_file(), &whole).unwrap();
    release(&sandbox, "one", &[("KNOB_FLOOD_MIB", "300")]);
    let flooded = sandbox.mlctl(&["deploy"]).await;
    note(&format!("a log that fills the disk: ended with {:?} after {:.1?}", flooded.code, flooded.took));
    let free = || {
        let line = Command::new("df").args(["--output=avail", "-k"]).arg(sandbox.local()).output().unwrap();
        let text = String::from_utf8(line.stdout).unwrap();
        text.lines().last().unwrap().trim().parse::<u64>().unwrap()
    };
    eventually("the log to fill the disk", Duration::from_secs(120), async || {
        if free() < 256 { Ok(()) } else { Err(format!("{} KiB are free", free())) }
    })
    .await;
    let load = Load::start(&[sandbox.url(FRONT), sandbox.url(BACK)], 100, false, None);
    sandbox.mlctl(&["status"]).await.ends(0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let tally = load.stop().await;
    note(&format!("with the disk full of a log: {tally}"));
    tally.is_clean();
    // What a person does: empty the logs. The flood is over by now, or they would fill up again.
    for entry in std::fs::read_dir(sandbox.local().join("knobs/replicas")).unwrap().flatten() {
        for name in ["log", "log.1", "log.2", "log.3", "log.4"] {
            let log = std::fs::OpenOptions::new().write(true).open(entry.path().join(name));
            let _ = log.and_then(|log| log.set_len(0));
        }
    }
    a_good_one_works(&sandbox, &whole).await;
    sandbox.end_on(disk).await;
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Ends a sandbox whose folder is a disk of its own.
trait EndOn {
    async fn end_on(self, disk: SmallDisk);
}

impl EndOn for Sandbox {
    async fn end_on(self, disk: SmallDisk) {
        self.mlctl(&["down", "--purge", "--yes"]).await.ends(0);
        drop(disk);
        self.end().await;
    }
}
