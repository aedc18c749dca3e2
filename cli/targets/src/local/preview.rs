//! How an item differs from the one that was last written, field by field.

use std::collections::{BTreeMap, BTreeSet};

use mlctl_core::item::{Digest, Item, ItemKind};
use mlctl_core::local_protocol::{EnvSource, WorkloadSpec};
use mlctl_core::plan::Difference;
use mlctl_core::ports::Result;
use serde_json::Value;

use super::items::{self, LocalWorkload};
use super::servers::LocalStore;
use super::{Local, artifacts, secrets};

/// A variable that only repeats the digest: no difference of its own.
const REVISION: &str = "SERVICE_REVISION";

impl Local {
    /// Returns the differences; refuses a workload whose artifact could not be had.
    pub(super) async fn differences(&self, item: &Item) -> Result<Vec<Difference>> {
        if item.id.kind == ItemKind::Workload {
            artifacts::check(&self.layout, item, "preview").await?;
        }
        let before = items::find(&self.layout, &item.id)?.filter(|record| !record.removed);
        let before = before.map(|record| fields(&record.item)).transpose()?.unwrap_or_default();
        let mut differences = compare(&before, &fields(item)?);
        if item.id.kind == ItemKind::Secret {
            differences.extend(self.given_value(&item.id.name)?);
        }
        Ok(differences)
    }

    /// Tells that a secret was given another value than the one in use; never which.
    fn given_value(&self, name: &str) -> Result<Option<Difference>> {
        let (given, known) = (self.settings.secret_values.get(name), secrets::read(&self.layout, name)?);
        let other = given.is_some_and(|given| known.as_ref().is_some_and(|known| known != given));
        Ok(other.then(|| Difference {
            path: "value".to_owned(),
            before: Some("*** (the one in use)".to_owned()),
            after: Some("*** (the one given in the environment)".to_owned()),
        }))
    }
}

fn fields(item: &Item) -> Result<BTreeMap<String, String>> {
    if item.id.kind == ItemKind::Workload {
        return Ok(workload(&LocalWorkload::of(item, "preview")?.spec));
    }
    let mut fields = BTreeMap::new();
    if item.id.kind == ItemKind::Store
        && let Some(spec) = LocalStore::of(item, "preview")?.server
    {
        return Ok(server(&spec));
    }
    flatten("", &item.payload, &mut fields);
    Ok(fields)
}

/// The fields of a store's server: what runs, where, with which settings.
fn server(spec: &WorkloadSpec) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let programs = spec.argv.iter().skip_while(|word| *word != "--programs").nth(1);
    fields.extend(programs.map(|folder| ("programs".to_owned(), folder.clone())));
    fields.extend(spec.port.map(|port| ("address".to_owned(), super::routes::address(port))));
    for line in spec.files.iter().flat_map(|file| file.content.lines()) {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.trim_start_matches("= ").trim_matches('\'').to_owned();
        let known = fields.entry(format!("settings.{name}")).or_default();
        // Settings that are told by several lines.
        *known = if known.is_empty() { value } else { format!("{known} {value}") };
    }
    fields
}

fn compare(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Difference> {
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| Difference {
            path: path.clone(),
            before: before.get(path).cloned(),
            after: after.get(path).cloned(),
        })
        .collect()
}

/// The fields of a workload as people read them; secrets by name, long things by digest.
fn workload(spec: &WorkloadSpec) -> BTreeMap<String, String> {
    let mut rest = spec.clone();
    let mut fields = BTreeMap::from([("command".to_owned(), spec.argv.join(" "))]);
    if let Some(artifact) = &spec.artifact {
        fields.insert("artifact".to_owned(), artifact.digest.short().to_owned());
    }
    for (name, value) in spec.env.iter().filter(|(name, _)| *name != REVISION) {
        let text = match value {
            EnvSource::Text(text) => text.clone(),
            EnvSource::SecretFile(secret) => format!("*** (file of secret {secret})"),
            EnvSource::SecretValue(secret) => format!("*** (secret {secret})"),
            EnvSource::SecretText { text, .. } => text.replace("{secret}", "***"),
        };
        fields.insert(format!("env.{name}"), text);
    }
    for file in &spec.files {
        let digest = Digest::of(file.content.as_bytes());
        fields.insert(format!("files.{}", file.name), digest.short().to_owned());
    }
    rest.argv.clear();
    rest.artifact = None;
    rest.env.clear();
    rest.files.clear();
    flatten("", &serde_json::to_value(&rest).unwrap_or_default(), &mut fields);
    fields
}

/// Turns a JSON value into dotted paths; texts of more than a line by digest.
fn flatten(path: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Null => {}
        Value::Object(map) => map.iter().for_each(|(name, value)| flatten(&below(name), value, fields)),
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                flatten(&below(&index.to_string()), value, fields);
            }
        }
        Value::String(text) if text.contains('\n') => {
            fields.insert(path.to_owned(), Digest::of(text.as_bytes()).short().to_owned());
        }
        Value::String(text) => {
            fields.insert(path.to_owned(), text.clone());
        }
        scalar => {
            fields.insert(path.to_owned(), scalar.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_told_and_absence_is_absence() {
        let fields = |value: Value| {
            let mut fields = BTreeMap::new();
            flatten("", &value, &mut fields);
            fields
        };
        let before = fields(json!({"a": {"b": 1, "c": "x"}, "list": ["p", "q"], "none": null}));
        let after = fields(json!({"a": {"b": 2, "c": "x"}, "list": ["p"], "sql": "one\ntwo"}));
        let told: Vec<String> = compare(&before, &after)
            .into_iter()
            .map(|d| format!("{} {:?} -> {:?}", d.path, d.before, d.after.map(|a| a.len())))
            .collect();
        assert_eq!(
            told,
            ["a.b Some(\"1\") -> Some(1)", "list.1 Some(\"q\") -> None", "sql None -> Some(12)",]
        );
        assert!(compare(&after, &after).is_empty());
    }
}
