//! The disk of the state folder: full at every write, out of inodes, read-only, not ours; descriptors that run out.

use std::collections::BTreeMap;

use mlctl_tests::{Finished, Seal, at_full_length, end, note, through};

use super::Mount;

/// Calls by which a file system is changed.
const CALLS: &str = "write,pwrite64,fsync,fdatasync,openat,mkdir,rename,ftruncate";

/// One call of the thread that runs the engine, on a file below the state folder.
#[derive(Debug, Clone)]
struct Point {
    call: String,
    /// Counts among all calls of that name.
    nth: usize,
    /// The file's name, without what differs from run to run.
    file: String,
}

/// Runs `mlctl ARGS` under strace, its first thread only: counts of other threads are their own.
fn traced(seal: &Seal, args: &[&str], inject: Option<&str>) -> (Finished, String) {
    let log = seal.path("strace.log");
    let log = log.to_str().unwrap();
    let trace = format!("trace={CALLS}");
    let mut wrapper = vec!["strace", "-qq", "-y", "-s", "8", "-o", log, "-e", &trace];
    if let Some(inject) = inject {
        wrapper.extend(["-e", inject]);
    }
    let finished = end(through(&wrapper, &seal.command(args)));
    (finished, std::fs::read_to_string(log).unwrap())
}

/// Returns the calls of a trace that change the state folder.
fn points(seal: &Seal, trace: &str) -> Vec<Point> {
    let state = format!("{}/", seal.path("state").display());
    let mut counts = BTreeMap::new();
    let mut points = Vec::new();
    for line in trace.lines() {
        let Some((call, rest)) = line.split_once('(') else { continue };
        let nth: &mut usize = counts.entry(call.to_owned()).or_default();
        *nth += 1;
        let changes = call != "openat" || rest.contains("O_CREAT");
        if let Some(at) = rest.rfind(&state).filter(|_| changes) {
            let path = &rest[at + state.len()..];
            let path = path.split(['>', '"']).next().unwrap_or_default();
            let name = path.rsplit('/').next().unwrap_or_default();
            // Runs are named by their time, temporary files by their process.
            let name = if name.len() == 26 { "RUN" } else { name };
            let file = if name.ends_with(".tmp") { "TEMPORARY" } else { name };
            points.push(Point { call: call.to_owned(), nth: *nth, file: file.to_owned() });
        }
    }
    points
}

/// Chooses points of every sort: all of them at full length, else the first, the last and some between.
fn chosen(points: Vec<Point>) -> Vec<Point> {
    let mut sorts: BTreeMap<(String, String), Vec<Point>> = BTreeMap::new();
    for point in points {
        sorts.entry((point.call.clone(), point.file.clone())).or_default().push(point);
    }
    let sample = |points: Vec<Point>| {
        let step = if at_full_length() { 1 } else { points.len().div_ceil(3) };
        let last = points.len() - 1;
        let wanted = move |at: usize| at == last || at.is_multiple_of(step);
        points.into_iter().enumerate().filter(move |(at, _)| wanted(*at)).map(|(_, point)| point)
    };
    sorts.into_values().flat_map(sample).collect()
}

/// Of the warning that the copy of a journal at home is not whole.
const ELSEWHERE: &str = "the target has the whole journal";

/// Brings the target to its good end: by going on with the run where that can be done, else by a new deploy.
#[track_caller]
fn recover(seal: &Seal) -> &'static str {
    let resumed = seal.mlctl(&["deploy", "--resume"]).is_clear();
    let how = match resumed.code {
        Some(0) => "resumed",
        Some(6 | 40) => "deployed anew",
        _ => panic!("{}", resumed.told()),
    };
    seal.deploys_well();
    how
}

#[test]
fn a_disk_that_is_full_at_one_write_is_a_clear_end_and_no_obstacle_later() {
    let seal = Seal::new("healthy.toml");
    let (finished, trace) = traced(&seal, &["deploy"], None);
    let _ = finished.ends(0);
    let all = points(&seal, &trace);
    let journaled = all.iter().filter(|point| point.file == "journal.jsonl" && point.call == "write").count();
    assert!(journaled > 10, "a deploy journals more than {journaled} records: {all:#?}");
    let chosen = chosen(all.clone());
    note(&format!("{} of {} places where a deploy changes its state folder", chosen.len(), all.len()));
    let mut ends = BTreeMap::<String, usize>::new();
    for point in chosen {
        let seal = Seal::new("healthy.toml");
        let inject = format!("inject={}:error=ENOSPC:when={}", point.call, point.nth);
        let (finished, trace) = traced(&seal, &["deploy"], Some(&inject));
        let state = seal.path("state").display().to_string();
        let hit = trace.lines().find(|line| line.contains("INJECTED"));
        let Some(hit) = hit.filter(|line| line.contains(&state)) else {
            // The order of calls differs a little from run to run; what was hit is no disk.
            note(&format!("{point:?} hit {hit:?}"));
            continue;
        };
        let finished = finished.is_clear();
        let code = finished.code.unwrap();
        // The target has each record first: without the copy at home a run goes on, and says what is missing where.
        if hit.contains("journal.jsonl") {
            let finished = finished.says("No space left on device").says("journal.jsonl");
            assert!(code != 0 || finished.stderr.contains(ELSEWHERE), "{point:?}: {}", finished.told());
        }
        let how = recover(&seal);
        let file = points(&seal, hit).pop().map_or_else(|| point.file.clone(), |hit| hit.file);
        *ends.entry(format!("{} {file}: {code}, then {how}", point.call)).or_default() += 1;
    }
    ends.iter().for_each(|(end, times)| note(&format!("{times} x {end}")));
    assert!(ends.len() > 5, "{ends:?}");
}

#[test]
fn a_disk_that_fills_up_during_a_deploy_is_a_clear_end_and_no_obstacle_later() {
    // A tmpfs gives whole pages, so each size ends the deploy at another write, and a write half-way.
    let mut size = 4_u32;
    let mut ends = Vec::new();
    while ends.last() != Some(&(0, true)) {
        let seal = Seal::new("healthy.toml");
        let disk = Mount::tmpfs(&seal.path("state"), &format!("size={size}k"));
        let finished = seal.mlctl(&["deploy"]).is_clear();
        ends.push((finished.code.unwrap(), !finished.stderr.contains(ELSEWHERE)));
        disk.remount("size=64m");
        recover(&seal);
        size += if at_full_length() { 4 } else { (size / 4).next_multiple_of(4).max(4) };
        assert!(size < 8192, "a deploy takes less than 8 MiB: {ends:?}");
    }
    note(&format!("up to {size} KiB: {ends:?}"));
    assert!(ends.len() > 3, "{ends:?}");
}

#[test]
fn a_disk_without_inodes_is_a_clear_end_and_no_obstacle_later() {
    let mut ends = Vec::new();
    for inodes in 1.. {
        let seal = Seal::new("healthy.toml");
        let disk = Mount::tmpfs(&seal.path("state"), &format!("nr_inodes={inodes}"));
        let finished = seal.mlctl(&["deploy"]).is_clear();
        ends.push(finished.code.unwrap());
        disk.remount("nr_inodes=1000");
        recover(&seal);
        if ends.last() == Some(&0) && inodes > 12 {
            break;
        }
        assert!(inodes < 40, "{ends:?}");
    }
    note(&format!("{ends:?}"));
    assert_ne!(ends[1], 0, "two inodes hold no run: {ends:?}");
}

#[test]
fn a_read_only_state_folder_is_told_before_anything_changes() {
    let seal = Seal::new("healthy.toml");
    let state = seal.path("state").display().to_string();
    let script = r#"mount -t tmpfs -o ro tmpfs "$0" && exec "$@""#;
    let wrapper = ["unshare", "--mount", "sh", "-c", script, &state];
    let read_only = |args: &[&str]| end(through(&wrapper, &seal.command(args))).is_clear();
    let _ = read_only(&["deploy"])
        .ends(20)
        .says("Read-only file system")
        .says("nothing was changed")
        .says("MLCTL_STATE");
    // Who only looks needs no state folder of its own.
    for query in [&["status"][..], &["deploy", "--dry-run"], &["history"], &["runs"]] {
        let _ = read_only(query).ends(0);
    }
    seal.deploys_well();
}

#[test]
fn a_state_folder_of_somebody_else_is_told_before_anything_changes() {
    for call in ["mkdir", "openat"] {
        let seal = Seal::new("healthy.toml");
        let (_, trace) = traced(&seal, &["deploy"], None);
        let first = points(&seal, &trace).into_iter().find(|point| point.call == call).unwrap();
        let seal = Seal::new("healthy.toml");
        let inject = format!("inject={call}:error=EACCES:when={}", first.nth);
        let (finished, _) = traced(&seal, &["deploy"], Some(&inject));
        let _ = finished.is_clear().ends(20).says("Permission denied").says("MLCTL_STATE");
        recover(&seal);
    }
}

#[test]
fn too_few_descriptors_are_a_clear_end() {
    let mut ends = Vec::new();
    for limit in 3..40 {
        let seal = Seal::new("healthy.toml");
        let limits = format!("--nofile={limit}:{limit}");
        let finished = end(through(&["prlimit", &limits], &seal.command(&["deploy"])));
        if finished.stderr.contains("error while loading shared libraries") {
            // That is the loader's end, before our first instruction.
            continue;
        }
        let finished = finished.is_clear();
        ends.push((limit, finished.code.unwrap()));
        if finished.code != Some(0) {
            let _ = finished.says("Too many open files");
            recover(&seal);
        }
    }
    note(&format!("{ends:?}"));
    assert_ne!(ends.first().unwrap().1, 0, "{ends:?}");
    assert_eq!(ends.last().unwrap().1, 0, "{ends:?}");
}
