//! The hidden verbs: how one of our processes starts another. No clap here: these lines are written by us only.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::{AgentError, agent, relay, shim, shim_exec, store_exec};

/// Runs a hidden verb (`agent`, `shim`, `shim-exec`, `store-exec`, `relay`) when `args` (program name left out) begins with one;
/// returns `None` otherwise.
///
/// To be called first thing in `main`, before any runtime or thread exists: `shim-exec` closes every descriptor it
/// does not know, and a shim becomes the leader of a session.
pub fn dispatch(args: &[OsString]) -> Option<Result<(), AgentError>> {
    let (verb, rest) = args.split_first()?;
    let result = match verb.to_str()? {
        "agent" => Options::read("agent", rest).and_then(|mut o| {
            agent::run(agent::Settings {
                folder: o.folder("--folder")?,
                runtime: o.folder("--runtime")?,
                build: o.text("--build")?,
            })
        }),
        "shim" => Options::read("shim", rest).and_then(|mut o| shim::run(&o.folder("--folder")?)),
        "relay" => Options::read("relay", rest)
            .and_then(|mut o| relay::run(&o.folder("--socket")?, &o.folder("--table")?)),
        "shim-exec" => shim_exec::run(rest),
        "store-exec" => Options::read("store-exec", rest).and_then(|mut o| store_exec::run(&mut o)),
        _ => return None,
    };
    Some(result)
}

/// `--name value` pairs.
pub(crate) struct Options {
    verb: &'static str,
    pairs: Vec<(String, OsString)>,
}

impl Options {
    fn read(verb: &'static str, args: &[OsString]) -> Result<Self, AgentError> {
        let mut pairs = Vec::new();
        let mut rest = args.iter();
        while let Some(name) = rest.next() {
            let name = name.to_string_lossy().into_owned();
            let Some(value) = rest.next() else {
                return Err(AgentError::Usage { verb, reason: format!("{name} lacks a value") });
            };
            pairs.push((name, value.clone()));
        }
        Ok(Self { verb, pairs })
    }

    fn take(&mut self, name: &str) -> Result<OsString, AgentError> {
        self.pairs
            .iter()
            .position(|(n, _)| n == name)
            .map(|index| self.pairs.swap_remove(index).1)
            .ok_or_else(|| AgentError::Usage { verb: self.verb, reason: format!("{name} is missing") })
    }

    pub(crate) fn folder(&mut self, name: &str) -> Result<PathBuf, AgentError> {
        self.take(name).map(PathBuf::from)
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<String, AgentError> {
        self.take(name).map(|value| value.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn other_verbs_are_left_to_others() {
        assert!(dispatch(&args("deploy --yes")).is_none());
        assert!(dispatch(&[]).is_none());
    }

    #[test]
    fn a_wrong_line_names_verb_and_option() {
        for (line, message) in [
            ("agent --folder /x", "`agent`: --runtime is missing"),
            ("shim --folder", "`shim`: --folder lacks a value"),
            ("relay", "`relay`: --socket is missing"),
            ("shim-exec --report", "`shim-exec`: --report lacks a value"),
            ("shim-exec --parent 1", "`shim-exec`: no program after `--`"),
            ("store-exec --kind mongodb", "`store-exec`: --kind is neither postgresql nor redis"),
            ("store-exec --kind redis --programs /x", "`store-exec`: --home is missing"),
            ("shim-exec --what", "`shim-exec`: --what is not known"),
        ] {
            assert_eq!(dispatch(&args(line)).unwrap().unwrap_err().to_string(), message, "{line}");
        }
    }
}
