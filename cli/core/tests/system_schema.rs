//! The JSON Schemas in the repository are the generated ones.
//!
//! `UPDATE_SCHEMAS=1 cargo test -p mlctl-core --test system_schema` writes them anew.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use mlctl_core::{playbook, system};

fn is_generated(name: &str, schema: &serde_json::Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema").join(name);
    let generated = format!("{}\n", serde_json::to_string_pretty(schema).unwrap());
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "schema/{name} is stale: run this test with UPDATE_SCHEMAS=1");
}

#[test]
fn the_schema_of_systems_is_current() {
    is_generated("mlctl.schema.json", &system::schema());
}

#[test]
fn the_schema_of_playbooks_is_current() {
    is_generated("playbook.schema.json", &playbook::schema());
}
