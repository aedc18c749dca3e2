//! Homes, folders, variables, names: missing, odd, too many, no text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use mlctl_tests::{Seal, end, through};

/// No text in any encoding that a terminal has.
const NO_TEXT: &[u8] = b"no\xff\xfetext";

fn no_text() -> &'static OsStr {
    OsStr::from_bytes(NO_TEXT)
}

/// Returns a deploy that nothing tells where to keep its state.
fn homeless(seal: &Seal) -> Command {
    let mut command = seal.command(&["deploy"]);
    for name in ["HOME", "MLCTL_STATE", "MLCTL_LOCAL", "XDG_RUNTIME_DIR", "MLCTL_OPERATOR", "MLCTL_HOST"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command on a machine whose accounts are what that text says.
fn with_accounts(seal: &Seal, accounts: &str, command: &Command) -> Command {
    // Files only: systemd would make an administrator up.
    for (name, text) in [("passwd", accounts), ("nsswitch.conf", "passwd: files\n")] {
        std::fs::write(seal.path(name), text).unwrap();
    }
    let script = r#"for name in passwd nsswitch.conf; do mount --bind "$0/$name" /etc/$name || exit 99; done; exec "$@""#;
    through(&["unshare", "--mount", "sh", "-c", script, seal.path("").to_str().unwrap()], command)
}

#[test]
fn without_home_the_accounts_say_and_where_they_do_not_nothing_is_guessed() {
    let seal = Seal::new("healthy.toml");
    let nobody = with_accounts(&seal, "daemon:x:1:1::/nonexistent:/bin/false\n", &homeless(&seal));
    let _ = end(nobody).is_clear().ends(40).says("no home folder").says("MLCTL_STATE");

    let home = seal.path("account");
    let accounts = format!("admin:x:0:0::{}:/bin/sh\n", home.display());
    let _ = end(with_accounts(&seal, &accounts, &homeless(&seal))).is_clear().ends(0);
    assert!(home.join(".local/state/mlctl/runs").is_dir());

    let accounts = "admin:x:0:0::/proc/nowhere:/bin/sh\n";
    let _ = end(with_accounts(&seal, accounts, &homeless(&seal))).is_clear().ends(20).says("/proc/nowhere");
}

#[test]
fn a_home_that_is_not_there_is_made_and_one_that_cannot_be_is_told() {
    let seal = Seal::new("healthy.toml");
    std::fs::write(seal.path("a-file"), "").unwrap();
    let deploy = |home: &OsStr| {
        let mut command = homeless(&seal);
        command.env("HOME", home);
        end(command).is_clear()
    };
    let _ = deploy(seal.path("not/there/yet").as_os_str()).ends(0);
    assert!(seal.path("not/there/yet/.local/state/mlctl/runs").is_dir());
    let _ = deploy(seal.path("a-file").as_os_str()).ends(20).says("a-file").says("Not a directory");
    let _ = deploy(OsStr::new("/dev/null")).ends(20).says("/dev/null");
}

#[test]
fn what_is_no_text_is_refused_by_its_name_and_never_passed_over() {
    let seal = Seal::new("healthy.toml");
    let folders = ["MLCTL_STATE", "MLCTL_LOCAL", "HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"];
    let others = ["MLCTL_TARGET", "MLCTL_TIMEOUT", "MLCTL_YES", "MLCTL_OPERATOR"];
    for name in folders.into_iter().chain(others) {
        let mut command = seal.plain(&["status"]);
        command.env(name, no_text());
        let _ = end(command).is_clear().ends(2).says(name).says("UTF-8");
    }
    // What is none of ours, or only a name to show, may be anything.
    for name in ["OTHER", "USER", "TERM", "LANG", "COLUMNS", "CI", "GITHUB_ACTOR", "GITHUB_ACTIONS"] {
        let mut command = seal.command(&["status"]);
        command.env(name, no_text());
        let _ = end(command).is_clear().ends(0);
    }
    for (args, code) in [
        (&["status"][..], 2),
        (&["scale"], 2),
        (&["deploy", "--phase"], 2),
        (&["runs", "show"], 2),
        (&["deploy", "--plan"], 3),
        (&[], 2),
        (&["status", "--target"], 2),
    ] {
        let mut command = seal.plain(args);
        command.arg(no_text());
        assert_eq!(end(command).is_clear().code, Some(code), "{args:?}");
    }
    let mut command = seal.command(&["status", "--file"]);
    command.arg(no_text());
    let _ = end(command).is_clear().ends(2);
}

#[test]
fn a_folder_whose_name_is_no_text_is_as_good_as_any() {
    let seal = Seal::new("healthy.toml");
    let odd = seal.path("odd").join(no_text());
    std::fs::create_dir_all(&odd).unwrap();
    for name in ["mlctl.yaml", "healthy.toml"] {
        std::fs::copy(seal.path(name), odd.join(name)).unwrap();
    }
    std::fs::write(odd.join(no_text()), "a file beside it").unwrap();
    let mut command = seal.command(&["deploy"]);
    command.current_dir(&odd);
    let _ = end(command).is_clear().ends(0);
}

#[test]
fn a_folder_that_is_gone_is_told_and_an_absolute_file_needs_none() {
    let seal = Seal::new("healthy.toml");
    let script = r#"mkdir gone && cd gone && rmdir ../gone && exec "$@""#;
    let gone = |args: &[&str]| {
        let mut command = through(&["sh", "-c", script, "sh"], &seal.plain(args));
        command.current_dir(seal.path("."));
        end(command).is_clear()
    };
    let _ = gone(&["status"]).ends(3).says("mlctl.yaml").says("--file");
    let (file, scenario) = (seal.path("mlctl.yaml"), seal.path("healthy.toml"));
    let target = format!("sim:{}", scenario.display());
    let _ = gone(&["deploy", "--file", file.to_str().unwrap(), "--target", &target]).ends(0);
    let _ = gone(&["version"]).ends(0);
}

#[test]
fn a_closed_umask_and_a_huge_environment_change_nothing() {
    let seal = Seal::new("healthy.toml");
    for umask in ["777", "000"] {
        let script = format!(r#"umask {umask}; exec "$@""#);
        let _ = end(through(&["sh", "-c", &script, "sh"], &seal.command(&["deploy"]))).is_clear().ends(0);
        seal.is_well();
        seal.edit("LEVEL: ", "LEVEL: more-");
    }
    let mut command = seal.command(&["deploy"]);
    for number in 0..12 {
        command.env(format!("HUGE_{number}"), "x".repeat(100_000));
    }
    for number in 0..5_000 {
        command.env(format!("SMALL_{number}"), "");
    }
    let _ = end(command).is_clear().ends(0);
    seal.is_well();
}

#[test]
fn the_language_and_width_of_the_environment_change_no_data() {
    let seal = Seal::new("healthy.toml");
    let _ = seal.mlctl(&["deploy"]).ends(0);
    let plain = seal.mlctl(&["status"]).stdout;
    for (name, value) in [
        ("LANG", "C"),
        ("LC_ALL", "xx_YY.nonsense"),
        ("COLUMNS", "0"),
        ("COLUMNS", "1"),
        ("COLUMNS", "10000"),
        ("COLUMNS", "-5"),
        ("COLUMNS", "99999999999999999999"),
        ("TERM", ""),
        ("TERM", "no-such-terminal"),
    ] {
        let mut command = seal.command(&["status"]);
        command.env(name, value);
        assert_eq!(end(command).is_clear().ends(0).stdout, plain, "{name}={value}");
    }
}
