//! A playbook file from bytes to a typed playbook.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::bind::{self, BindError};
use super::cross::{cross_check, unknown_names};
use super::model::Playbook;
use super::shape::ROOT;
use crate::system::System;
use crate::yaml::{self, Entry, Kind, Node, Placeholders, Problems, Value, complete, did_you_mean};

const KIND: Kind = Kind::Struct(&ROOT);

/// A playbook that was read and found free of problems, its parameters still open.
#[derive(Debug, Clone)]
pub struct PlaybookFile {
    name: Arc<str>,
    /// Checked, with defaults, placeholders unfilled.
    completed: Node,
}

impl PlaybookFile {
    /// Reads and checks a playbook. `name` is what problems call the file.
    ///
    /// # Errors
    /// Every problem of the file, in the order of the file.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problems> {
        let written = yaml::read(name, bytes)?;
        let mut problems = yaml::check(name, &written, &KIND, Placeholders::Open);
        let completed = complete(&written, &KIND);
        if !problems.is_full() {
            problems.extend(cross_check(name, &completed));
        }
        problems.or(Self { name: name.into(), completed })
    }

    /// Returns the playbook's own name.
    pub fn playbook(&self) -> &str {
        self.completed.text_of("playbook").unwrap_or_default()
    }

    /// Returns a problem for every service, KPI and load profile the playbook names and `system` does not have.
    pub fn unknown_names(&self, system: &System) -> Problems {
        unknown_names(&self.name, &self.completed, system)
    }

    /// Fills in parameters; those not given take their defaults.
    ///
    /// # Errors
    /// A parameter is unknown, missing or of the wrong kind; or the playbook is not valid with these values.
    pub fn bind(&self, given: &IndexMap<String, String>) -> Result<Playbook, BindError> {
        let values = self.values(given)?;
        if bind::filled_size(&self.completed, &values) > yaml::LARGEST {
            return Err(BindError::TooLarge { playbook: self.playbook().to_owned() });
        }
        let filled = Value::Map(
            (self.completed.entries().iter())
                .map(|entry| match entry.key.as_str() {
                    "guards" | "phases" => Entry { node: bind::fill(&entry.node, &values), ..entry.clone() },
                    _ => entry.clone(),
                })
                .collect(),
        );
        let filled = Node { value: filled, ..self.completed.clone() };
        let problems = yaml::check(&self.name, &filled, &KIND, Placeholders::Filled);
        if !problems.is_empty() {
            return Err(BindError::Invalid(problems));
        }
        serde_json::from_value(yaml::to_json(&filled, &KIND))
            .map_err(|source| BindError::Model { file: self.name.to_string(), source })
    }

    fn values(&self, given: &IndexMap<String, String>) -> Result<IndexMap<String, String>, BindError> {
        let params = self.completed.get("params").map_or(&[][..], Node::entries);
        let names: Vec<_> = params.iter().map(|entry| entry.key.as_str()).collect();
        let playbook = || self.playbook().to_owned();
        if let Some(name) = given.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(BindError::Unknown {
                playbook: playbook(),
                name: name.clone(),
                known: if names.is_empty() { "none".to_owned() } else { names.join(", ") },
                suggestion: did_you_mean(name, names.iter().copied()),
            });
        }
        let mut values = IndexMap::new();
        for entry in params {
            let name = entry.key.clone();
            let Some(value) = given.get(&name).map(String::as_str).or_else(|| entry.node.text_of("default"))
            else {
                return Err(BindError::Missing { playbook: playbook(), name });
            };
            let allowed: Vec<_> =
                entry.node.get("values").map_or(&[][..], Node::items).iter().filter_map(Node::text).collect();
            if let Err(expected) =
                bind::accepts(entry.node.text_of("type").unwrap_or_default(), &allowed, value)
            {
                return Err(BindError::Value {
                    playbook: playbook(),
                    name,
                    value: value.to_owned(),
                    expected,
                });
            }
            values.insert(name, value.to_owned());
        }
        Ok(values)
    }
}

/// Returns the JSON Schema of playbooks.
pub fn schema() -> Json {
    yaml::json_schema(&ROOT, "playbook.schema.json")
}

/// Returns the keys of playbooks as a Markdown table.
pub fn reference() -> String {
    yaml::reference(&ROOT)
}
