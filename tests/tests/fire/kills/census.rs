//! Every process below a sandbox, accounted for.

use std::collections::BTreeSet;
use std::path::Path;

use mlctl_tests::{Sandbox, of_folder};

/// A replica as its processes show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) service: String,
    /// The name of its folder.
    pub(super) name: String,
    pub(super) shim: i32,
    pub(super) program: i32,
}

/// All processes of a sandbox, by what they are.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) agents: Vec<i32>,
    pub(super) relays: Vec<i32>,
    pub(super) relay_shims: Vec<i32>,
    pub(super) members: Vec<Member>,
    /// Shims without a program.
    pub(super) lone_shims: Vec<i32>,
    /// Programs whose parent is no shim.
    pub(super) lone_programs: Vec<i32>,
    /// What programs started, and the programs.
    pub(super) children: Vec<(i32, i32)>,
    /// What is neither.
    pub(super) strangers: Vec<String>,
}

impl Census {
    pub(super) fn take(sandbox: &Sandbox) -> Self {
        let mut census = Self::default();
        let (mut shims, mut programs) = (Vec::new(), Vec::new());
        for process in of_folder(sandbox.root()) {
            let Some(parent) = parent(process.pid) else { continue };
            let word = process.args.get(1).map(String::as_str);
            let is_program = process.args[0].contains("/artifacts/");
            match word {
                Some("agent") => census.agents.push(process.pid),
                Some("relay") => census.relays.push(process.pid),
                Some("shim") => {
                    let folder = Path::new(process.args.last().unwrap());
                    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
                    if name == "relay" {
                        census.relay_shims.push(process.pid);
                    } else {
                        shims.push((process.pid, name));
                    }
                }
                Some("child") if is_program => census.children.push((process.pid, parent)),
                None if is_program => programs.push((process.pid, parent)),
                _ => census.strangers.push(format!("{} {:?}", process.pid, process.args)),
            }
        }
        for (program, parent) in programs {
            match shims.iter().find(|(shim, _)| *shim == parent) {
                Some((shim, name)) => {
                    let service = name.rsplit_once('-').unwrap().0.to_owned();
                    census.members.push(Member { service, name: name.clone(), shim: *shim, program });
                }
                None => census.lone_programs.push(program),
            }
        }
        let busy: BTreeSet<i32> = census.members.iter().map(|member| member.shim).collect();
        census.lone_shims =
            shims.into_iter().map(|(shim, _)| shim).filter(|shim| !busy.contains(shim)).collect();
        census.members.sort_by(|one, other| one.name.cmp(&other.name));
        census
    }

    /// Returns the members of a service.
    pub(super) fn of(&self, service: &str) -> Vec<&Member> {
        self.members.iter().filter(|member| member.service == service).collect()
    }

    /// Says what is not as it should be: one agent, one relay, each replica once with its one child, nothing else.
    pub(super) fn is_whole(&self, wanted: &[(&str, usize)]) -> Result<(), String> {
        let told = |what: &str| Err(format!("{what}: {self:#?}"));
        if self.agents.len() != 1 || self.relays.len() != 1 || self.relay_shims.len() != 1 {
            return told("not one agent, one relay and one shim of the relay");
        }
        if wanted.iter().any(|(service, count)| self.of(service).len() != *count) {
            return told("not the replicas that are wanted");
        }
        let names: BTreeSet<&String> = self.members.iter().map(|member| &member.name).collect();
        let total: usize = wanted.iter().map(|(_, count)| count).sum();
        if names.len() != total || self.members.len() != total {
            return told("a replica that runs twice, or of no service");
        }
        let parents: BTreeSet<i32> = self.children.iter().map(|(_, parent)| *parent).collect();
        let programs: BTreeSet<i32> = self.members.iter().map(|member| member.program).collect();
        if parents != programs || self.children.len() != programs.len() {
            return told("not one child a program, or an orphan");
        }
        if !self.lone_shims.is_empty() || !self.lone_programs.is_empty() || !self.strangers.is_empty() {
            return told("processes that belong to nothing");
        }
        Ok(())
    }
}

/// Returns the fields of a process's stat behind its name.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(ToOwned::to_owned).collect())
}

/// Returns who started a process, or took it over.
fn parent(pid: i32) -> Option<i32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// Says whether a process runs: a zombie does not, one whose first thread alone has ended does.
pub(super) fn runs(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "X" && !has_ended(&fields))
}

/// Says whether a process has ended and nobody has asked how.
pub(super) fn is_zombie(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| has_ended(&fields))
}

fn has_ended(fields: &[String]) -> bool {
    fields[0] == "Z" && fields[17].parse::<u32>().unwrap() <= 1
}

/// Returns when a process started: with its number, who it is.
pub(super) fn started(pid: i32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// Returns the resident memory in kilobytes and the number of open descriptors.
pub(super) fn weight(pid: i32) -> Option<(u64, usize)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes = memory.split_whitespace().next()?.parse().ok()?;
    Some((kilobytes, std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()))
}
