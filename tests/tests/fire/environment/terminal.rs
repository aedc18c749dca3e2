//! A real terminal: its window changes, somebody presses Ctrl-C or Ctrl-Z, it goes away.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mlctl_tests::{Seal, pause, through};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use std::os::fd::AsFd as _;

/// Time for anything that a person would wait for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with one command in it, the leader of its session.
struct Terminal {
    master: File,
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    closing: Arc<AtomicBool>,
    reader: std::thread::JoinHandle<()>,
    modes: String,
}

/// How a command in a terminal ended.
struct Ended {
    code: Option<i32>,
    text: String,
}

impl Terminal {
    fn of(command: &Command, size: (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        resize(&master, size);
        let modes = modes(&master);
        let mut command = through(&["setsid", "--ctty"], command);
        let mut options = File::options();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, nix::libc::O_NOCTTY);
        let open = || {
            let path = std::ffi::OsStr::from_bytes(name.as_bytes());
            OwnedFd::from(options.read(true).write(true).open(path).unwrap())
        };
        let mut open = open;
        command.stdin(open()).stdout(open()).stderr(open());
        let child = command.spawn().unwrap();
        let (said, closing) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::new(AtomicBool::new(false)));
        let master = File::from(master);
        let reader = {
            let (mut master, said, closing) =
                (master.try_clone().unwrap(), Arc::clone(&said), Arc::clone(&closing));
            std::thread::spawn(move || {
                let mut part = [0; 4096];
                while !closing.load(Ordering::Relaxed) {
                    let mut asked = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
                    if poll(&mut asked, PollTimeout::from(20_u8)).is_ok_and(|count| count == 0) {
                        continue;
                    }
                    // Nobody has the other end open any more.
                    let Ok(count) = master.read(&mut part) else { return };
                    said.lock().unwrap().extend_from_slice(&part[..count]);
                }
            })
        };
        Self { master, child, said, closing, reader, modes }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    fn says(&self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.text().contains(text) {
            assert!(Instant::now() < until, "it never says `{text}`:\n{}", self.text());
            pause(Duration::from_millis(10));
        }
    }

    fn resize(&self, size: (u16, u16)) {
        resize(&self.master, size);
    }

    fn types(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn wait(child: &mut Child, text: impl Fn() -> String) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if Instant::now() > until {
                child.kill().unwrap();
                panic!("it does not end:\n{}", text());
            }
            pause(Duration::from_millis(10));
        }
    }

    /// Waits for the command's end and sees that it left the terminal as it was.
    #[track_caller]
    fn end(mut self) -> Ended {
        let said = Arc::clone(&self.said);
        let code =
            Self::wait(&mut self.child, || String::from_utf8_lossy(&said.lock().unwrap()).into_owned());
        self.reader.join().unwrap();
        let text = String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned();
        assert_eq!(modes(&self.master), self.modes, "it left other modes:\n{text}");
        // A hidden cursor, another screen, a mouse that reports: nothing of the sort is begun.
        for mode in ["?25l", "?1049h", "?1000h", "?2004h", "?7l"] {
            assert!(!text.contains(&format!("\u{1b}[{mode}")), "{mode}: {text:?}");
        }
        assert!(!text.contains("panicked at") && !text.contains("has a bug"), "{text}");
        let tail = text.rfind("\u{1b}[").map_or("", |at| &text[at..]);
        let plain = tail.is_empty() || tail.starts_with("\u{1b}[0m") || tail.starts_with("\u{1b}[J");
        assert!(plain, "the last sequence leaves something on: {tail:?}");
        Ended { code, text }
    }

    /// Closes the window, as its [x] does, and waits for the command's end.
    fn hang_up(self) -> Option<i32> {
        let Self { master, mut child, closing, reader, .. } = self;
        closing.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        drop(master);
        Self::wait(&mut child, || "the terminal is gone".to_owned())
    }
}

fn resize(master: &impl std::os::fd::AsFd, (columns, rows): (u16, u16)) {
    tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

fn modes(master: &impl std::os::fd::AsFd) -> String {
    let found = tcgetattr(master).unwrap();
    format!("{:?} {:?} {:?}", found.input_modes, found.output_modes, found.local_modes)
}

/// Returns a deploy for a terminal of that kind that takes some seconds.
fn deploy(seal: &Seal, term: &str) -> Command {
    let mut command = seal.command(&["deploy", "--yes"]);
    command.env("TERM", term);
    command
}

/// Returns how many rows each redraw goes up, with what was drawn before it.
fn redraws(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut drawn = 0;
    for (at, _) in text.match_indices("A\u{1b}[J") {
        let begin = text[..at].rfind("\u{1b}[").unwrap();
        found.push((text[begin + 2..at].parse().unwrap(), text[drawn..begin].to_owned()));
        drawn = at + "A\u{1b}[J".len();
    }
    found
}

/// Returns a line as it shows, without color.
fn visible(line: &str) -> String {
    let mut parts = line.trim_end_matches('\r').split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |shown, part| shown + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn a_window_that_changes_its_size_disturbs_no_run() {
    let seal = Seal::new("healthy.toml").patient();
    let terminal = Terminal::of(&deploy(&seal, "xterm-256color"), (80, 24));
    terminal.says("A\u{1b}[J");
    for size in [(1, 1), (20, 5), (300, 100), (0, 0), (80, 2), (3, 50), (65535, 65535), (80, 24)] {
        terminal.resize(size);
        pause(Duration::from_millis(250));
    }
    let ended = terminal.end();
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert!(ended.text.contains("deploy of release 1 succeeded"), "{}", ended.text);
    seal.is_well();
}

#[test]
fn what_is_drawn_fits_the_window_at_any_size() {
    for (size, columns) in
        [((80, 24), ""), ((20, 5), ""), ((300, 100), ""), ((80, 24), "10000"), ((80, 24), "30")]
    {
        let seal = Seal::new("healthy.toml").patient();
        let mut command = deploy(&seal, "xterm");
        if !columns.is_empty() {
            command.env("COLUMNS", columns);
        }
        let ended = Terminal::of(&command, size).end();
        assert_eq!(ended.code, Some(0), "{}", ended.text);
        let redraws = redraws(&ended.text);
        assert!(redraws.len() > 5, "{size:?}: {} redraws", redraws.len());
        let most = columns.parse().map_or(size.0, |asked: u16| asked.min(size.0));
        for (up, before) in &redraws {
            assert!(*up < usize::from(size.1), "{size:?}: {up} rows up");
            let lines: Vec<String> = before.lines().map(visible).collect();
            // What one redraw takes away is what the one before it drew.
            for line in lines.iter().rev().take(*up) {
                assert!(line.chars().count() < usize::from(most), "{size:?} {columns}: `{line}`");
            }
        }
    }
}

#[test]
fn where_nothing_can_be_drawn_there_are_lines() {
    for (size, term, columns) in [
        ((1, 1), "xterm", ""),
        ((19, 24), "xterm", ""),
        ((80, 3), "xterm", ""),
        ((80, 24), "dumb", ""),
        ((80, 24), "xterm", "1"),
    ] {
        let seal = Seal::new("healthy.toml");
        let mut command = deploy(&seal, term);
        if !columns.is_empty() {
            command.env("COLUMNS", columns);
        }
        let ended = Terminal::of(&command, size).end();
        assert_eq!(ended.code, Some(0), "{}", ended.text);
        assert!(redraws(&ended.text).is_empty(), "{size:?} {term} {columns}: {:?}", ended.text);
        assert!(term != "dumb" || !ended.text.contains('\u{1b}'), "{:?}", ended.text);
    }
    // A terminal that nobody knows, and one without a name, get what all of them understand.
    for term in ["", "no-such-terminal"] {
        let seal = Seal::new("healthy.toml");
        assert_eq!(Terminal::of(&deploy(&seal, term), (80, 24)).end().code, Some(0));
    }
}

#[test]
fn ctrl_c_once_finishes_the_step_and_twice_stops_at_once_and_both_give_the_lock_back() {
    for times in [1, 2] {
        let seal = Seal::new("healthy.toml").patient();
        let mut terminal = Terminal::of(&deploy(&seal, "xterm"), (80, 24));
        terminal.says("A\u{1b}[J");
        let asked = Instant::now();
        terminal.types(b"\x03");
        terminal.says("stopping after this step");
        if times == 2 {
            terminal.types(b"\x03");
        }
        let ended = terminal.end();
        assert_eq!(ended.code, Some(130), "{}", ended.text);
        assert!(ended.text.contains("--resume"), "{}", ended.text);
        assert!(times == 1 || asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        let runs = seal.mlctl(&["runs", "-o", "json"]).ends(0).json();
        assert_eq!(runs["lock"], serde_json::Value::Null, "{runs:#}");
        let _ = seal.mlctl(&["deploy", "--resume"]).ends(0);
        seal.is_well();
    }
}

#[test]
fn a_question_can_be_left_by_every_way_out_and_nothing_is_changed() {
    let ask = |seal: &Seal| {
        let mut command = seal.command(&["deploy"]);
        command.env("TERM", "xterm");
        let terminal = Terminal::of(&command, (80, 24));
        terminal.says("[y/N]");
        terminal
    };
    for (keys, code, said) in [
        (&b"\x03"[..], 130, "stopped before anything was changed"),
        (b"\x04", 40, "not confirmed; nothing was changed"),
        (b"n\r", 40, "not confirmed; nothing was changed"),
        (b"\r", 40, "not confirmed; nothing was changed"),
        (b"\xff\xfe\r", 40, "not confirmed; nothing was changed"),
        (b"yes\r", 0, "deploy of release 1 succeeded"),
    ] {
        let seal = Seal::new("healthy.toml");
        let mut terminal = ask(&seal);
        terminal.types(keys);
        let ended = terminal.end();
        assert_eq!(ended.code, Some(code), "{keys:?}: {}", ended.text);
        assert!(ended.text.contains(said), "{keys:?}: {}", ended.text);
    }
    let seal = Seal::new("healthy.toml");
    // The end of input and the signal come at once, and either is an answer.
    let code = ask(&seal).hang_up();
    assert!(matches!(code, Some(40 | 143)), "{code:?}");
    let runs = seal.mlctl(&["runs", "-o", "json"]).ends(0).json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 0, "{runs:#}");
}

#[test]
fn a_terminal_that_goes_away_stops_the_run_after_its_step_and_it_can_be_carried_on() {
    let seal = Seal::new("healthy.toml").patient();
    let terminal = Terminal::of(&deploy(&seal, "xterm"), (80, 24));
    terminal.says("A\u{1b}[J");
    assert_eq!(terminal.hang_up(), Some(143));
    let runs = seal.mlctl(&["runs", "-o", "json"]).ends(0).json();
    assert_eq!(
        (&runs["lock"], &runs["runs"][0]["state"]),
        (&serde_json::Value::Null, &"interrupted".into()),
        "{runs:#}"
    );
    let _ = seal.mlctl(&["deploy", "--resume"]).ends(0);
    seal.is_well();
}

#[test]
fn a_run_that_was_stopped_for_a_moment_goes_on() {
    let seal = Seal::new("healthy.toml").patient();
    // A shell with jobs, since the kernel stops nobody whom no shell could wake again.
    let script = r#"set -m; "$@"; echo "stopped $?"; sleep 2; fg; echo "then $?""#;
    let shell = through(&["bash", "-c", script, "bash"], &deploy(&seal, "xterm"));
    let mut terminal = Terminal::of(&shell, (80, 24));
    terminal.says("A\u{1b}[J");
    terminal.types(b"\x1a");
    // 128 and the number of SIGTSTP.
    terminal.says("stopped 148");
    let ended = terminal.end();
    assert!(ended.text.contains("then 0") && ended.text.contains("succeeded"), "{}", ended.text);
    seal.is_well();
}
