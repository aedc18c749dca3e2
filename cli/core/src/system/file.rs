//! `mlctl.yaml` from bytes to a typed system.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::cross::{self, cross_check};
use super::explain::{self, Explained};
use super::model::System;
use super::shape::{PROFILE, ROOT};
use super::template::load_variables;
use crate::yaml::{
    self, Entry, KeyPath, Kind, Node, Origin, Placeholders, Problem, Problems, Value, complete, did_you_mean,
    overlay,
};

const KIND: Kind = Kind::Struct(&ROOT);
/// Each profile is checked over the whole file.
const MOST_PROFILES: usize = 32;

/// A system file that was read and found free of problems, under each of its profiles.
#[derive(Debug, Clone)]
pub struct SystemFile {
    name: Arc<str>,
    /// As written: profiles are laid over it before defaults are added.
    written: Node,
}

/// A profile cannot be laid over the system.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file has no such profile.
    #[error("{file} has no profile `{profile}`; it has {known}{}", suggestion.as_ref().map(|name| format!(". Did you mean `{name}`?")).unwrap_or_default())]
    Unknown {
        /// File.
        file: String,
        /// Name that was asked for.
        profile: String,
        /// Names there are.
        known: String,
        /// Name that was probably meant.
        suggestion: Option<String>,
    },
    /// The checked tree does not fit the typed model: a mistake of mlctl's own.
    #[error("cannot read the checked {file} as a system")]
    Model {
        /// File.
        file: String,
        /// What did not fit.
        source: serde_json::Error,
    },
}

impl SystemFile {
    /// Reads and checks a file. `name` is what problems call it.
    ///
    /// # Errors
    /// Every problem of the file, under each of its profiles, in the order of the file.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problems> {
        let written = yaml::read(name, bytes)?;
        let mut problems = yaml::check(name, &written, &KIND, Placeholders::Filled);
        let file = Self { name: name.into(), written };
        if !problems.is_full() {
            problems.extend(cross_check(name, &complete(&file.written, &KIND)));
        }
        let without_profile = problems.clone();
        if let Some(entry) = file.written.entry("profiles")
            && file.profiles().count() > MOST_PROFILES
        {
            problems.push(Problem {
                file: Arc::clone(&file.name),
                line: entry.line,
                column: entry.column,
                path: KeyPath::default().key("profiles"),
                message: format!(
                    "found {} profiles, expected at most {MOST_PROFILES}",
                    file.profiles().count()
                ),
                suggestion: None,
            });
        }
        for profile in file.profiles().take(MOST_PROFILES) {
            if problems.is_full() {
                break;
            }
            let merged = file.merged(profile);
            let mut under = yaml::check(name, &merged, &KIND, Placeholders::Filled);
            under.extend(cross_check(name, &complete(&merged, &KIND)));
            for problem in &under {
                // What is wrong without the profile was told already, perhaps under the profile's own path.
                let told = |each: &Problem| {
                    (each.line, each.column, &each.message)
                        == (problem.line, problem.column, &problem.message)
                };
                if !without_profile.iter().any(told) {
                    let message = format!("{} (under profile `{profile}`)", problem.message);
                    problems.push(Problem { message, ..problem.clone() });
                }
            }
        }
        problems.or(file)
    }

    /// Returns the name the file was read under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the names of the profiles.
    pub fn profiles(&self) -> impl Iterator<Item = &str> {
        self.written.get("profiles").map_or(&[][..], Node::entries).iter().map(|entry| entry.key.as_str())
    }

    /// Returns the system without any profile.
    ///
    /// # Errors
    /// Only a mistake of mlctl's own: the file was checked.
    pub fn system(&self) -> Result<System, ProfileError> {
        self.typed(&complete(&self.written, &KIND), None)
    }

    /// Returns the system under a profile: what the profile says wins over what the services say, and what it
    /// says of one service wins over what it says of all.
    ///
    /// # Errors
    /// The file has no such profile.
    pub fn with_profile(&self, profile: &str) -> Result<System, ProfileError> {
        self.known(profile)?;
        self.typed(&complete(&self.merged(profile), &KIND), Some(profile))
    }

    /// Returns every effective value with where it comes from, in the order of the file.
    ///
    /// # Errors
    /// The file has no such profile.
    pub fn explain(&self, profile: Option<&str>) -> Result<Vec<Explained>, ProfileError> {
        let effective = match profile {
            Some(profile) => {
                self.known(profile)?;
                self.merged(profile)
            }
            None => self.written.clone(),
        };
        Ok(explain::explain(&without(&complete(&effective, &KIND), "profiles"), &KIND))
    }

    /// Returns a problem for each folder the file refers to, under any profile, that is not there. `exists`
    /// answers for a path relative to the file.
    pub fn missing_files(&self, exists: impl Fn(&str) -> bool) -> Problems {
        let trees =
            std::iter::once(self.written.clone()).chain(self.profiles().map(|name| self.merged(name)));
        let mut problems = Problems::default();
        for tree in trees {
            for service in tree.get("services").map_or(&[][..], Node::entries) {
                let Some(node) = service.node.get("migrations") else { continue };
                let Some(folder) = node.text().filter(|folder| !exists(folder)) else { continue };
                problems.push(Problem {
                    file: Arc::clone(&self.name),
                    line: node.line,
                    column: node.column,
                    path: KeyPath::default().key("services").key(&service.key).key("migrations"),
                    message: format!("found `{folder}`, expected a folder that exists"),
                    suggestion: None,
                });
            }
        }
        problems
    }

    fn known(&self, profile: &str) -> Result<(), ProfileError> {
        if self.profiles().any(|name| name == profile) {
            return Ok(());
        }
        let known: Vec<_> = self.profiles().collect();
        Err(ProfileError::Unknown {
            file: self.name.to_string(),
            profile: profile.to_owned(),
            suggestion: did_you_mean(profile, known.iter().copied()),
            known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
        })
    }

    /// Lays a profile over the file, without defaults.
    fn merged(&self, profile: &str) -> Node {
        let Some(mut over) = self.written.get("profiles").and_then(|profiles| profiles.get(profile)).cloned()
        else {
            return self.written.clone();
        };
        over.attribute(&Origin::Profile(profile.into()));
        let Value::Map(entries) = &self.written.value else { return self.written.clone() };
        let merged =
            entries.iter().map(|entry| Entry { node: merge_root_key(entry, &over), ..entry.clone() });
        Node { value: Value::Map(merged.collect()), ..self.written.clone() }
    }

    fn typed(&self, effective: &Node, profile: Option<&str>) -> Result<System, ProfileError> {
        let mut json = yaml::to_json(effective, &KIND);
        json["profile"] = json!(profile);
        if let Some(services) = json.get_mut("services").and_then(Json::as_object_mut) {
            services.retain(|_, service| service["enabled"] != json!(false));
        }
        drop_needs_of_disabled(effective, &mut json);
        keep_secrets_in_use(&mut json);
        for entry in effective.get("targets").map_or(&[][..], Node::entries) {
            if let Some(kind) = cross::target_kind(&entry.key, &entry.node) {
                json["targets"][&entry.key]["kind"] = json!(kind);
            }
        }
        serde_json::from_value(json)
            .map_err(|source| ProfileError::Model { file: self.name.to_string(), source })
    }
}

/// Lays what a profile says of one key of the file over that key. Parts of a profile that lead nowhere are
/// problems of the profile; here they are passed over, so that they are told once.
fn merge_root_key(entry: &Entry, over: &Node) -> Node {
    let Some(kind) = ROOT.keys.iter().find(|key| key.name == entry.key).map(|key| key.kind) else {
        return entry.node.clone();
    };
    let parts = |keep: &dyn Fn(&str) -> bool, node: &Node| {
        let entries = node.entries().iter().filter(|part| keep(&part.key)).cloned().collect();
        Node { value: Value::Map(entries), ..node.clone() }
    };
    let mut node = entry.node.clone();
    if entry.key == "services"
        && let (Value::Map(services), Kind::Map { of, .. }) = (&mut node.value, kind)
    {
        // First what is said of all, then what is said of one.
        let known =
            |name: &str| PROFILE.keys.iter().any(|key| key.name == name) && !WHOLE_MAPS.contains(&name);
        let of_all = parts(&known, over);
        for service in services {
            service.node = overlay(&service.node, &of_all, of);
        }
    }
    match over.get(&entry.key).filter(|_| WHOLE_MAPS.contains(&entry.key.as_str())) {
        Some(of_one) => overlay(&node, &parts(&|name| entry.node.get(name).is_some(), of_one), &kind),
        None => node,
    }
}

/// Keys of a profile that are maps of the file; the others concern every service.
const WHOLE_MAPS: [&str; 4] = ["services", "stores", "kpis", "load"];

fn drop_needs_of_disabled(effective: &Node, json: &mut Json) {
    let services = effective.get("services").map_or(&[][..], Node::entries);
    let disabled: Vec<_> = services
        .iter()
        .filter(|entry| !cross::enabled(&entry.node))
        .map(|entry| entry.key.as_str())
        .collect();
    let Some(services) = json.get_mut("services").and_then(Json::as_object_mut) else { return };
    for service in services.values_mut() {
        if let Some(needs) = service.get_mut("needs").and_then(Json::as_array_mut) {
            needs.retain(|need| !need.as_str().is_some_and(|need| disabled.contains(&need)));
        }
    }
}

/// A secret nobody reads is never asked for: a laptop has no client secret of the real service.
fn keep_secrets_in_use(json: &mut Json) {
    let mut used = Vec::new();
    for service in
        json.get("services").and_then(Json::as_object).into_iter().flat_map(|services| services.values())
    {
        let env = service.get("env").and_then(Json::as_object).into_iter().flat_map(|env| env.values());
        used.extend(env.filter_map(|value| value.get("secret")?.as_str().map(str::to_owned)));
    }
    if let Some(load) = json.get("load") {
        secrets_in_templates(load, &mut used);
    }
    if let Some(secrets) = json.get_mut("secrets").and_then(Json::as_object_mut) {
        secrets.retain(|name, _| used.contains(name));
    }
}

fn secrets_in_templates(json: &Json, used: &mut Vec<String>) {
    match json {
        Json::String(text) => {
            let variables = load_variables(text).unwrap_or_default().into_iter();
            used.extend(variables.filter_map(|name| name.strip_prefix("secret:").map(str::to_owned)));
        }
        Json::Array(items) => items.iter().for_each(|item| secrets_in_templates(item, used)),
        Json::Object(map) => map.values().for_each(|value| secrets_in_templates(value, used)),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

fn without(node: &Node, key: &str) -> Node {
    let entries = node.entries().iter().filter(|entry| entry.key != key).cloned().collect();
    Node { value: Value::Map(entries), ..node.clone() }
}

/// Returns the JSON Schema of `mlctl.yaml`.
pub fn schema() -> Json {
    yaml::json_schema(&ROOT, "mlctl.schema.json")
}

/// Returns the keys of `mlctl.yaml` as a Markdown table.
pub fn reference() -> String {
    yaml::reference(&ROOT)
}
