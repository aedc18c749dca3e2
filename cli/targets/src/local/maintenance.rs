//! What overrides in force change about a workload on this target. Pure.

use jiff::Timestamp;
use mlctl_core::local_protocol::{EnvSource, LaterContent, WorkloadSpec};
use mlctl_core::overrides::{Override, OverrideKind};
use serde_json::{Map, Value, json};

use super::routes::ROUTES_FILE;

/// Lays overrides over a spec: variables of its service, and maintenance over a route table. Those that are over by
/// `now` are passed over; a maintenance that has an end takes its end along, so that the agent ends it by itself.
///
/// A spec with other variables is another revision to the agent, under the same digest of its item: so the release
/// stays the release, and its replicas roll.
pub(super) fn overlay(spec: &mut WorkloadSpec, overrides: &[Override], now: Timestamp) {
    for entry in overrides.iter().filter(|entry| entry.in_force(now)) {
        if let OverrideKind::Env { service, set } = &entry.kind
            && *service == spec.name
        {
            for (name, value) in set {
                // A value here is meant as it stands: it holds no placeholders.
                let text = value.replace('{', "{{").replace('}', "}}");
                spec.env.insert(name.clone(), EnvSource::Text(text));
            }
        }
    }
    let mut ends: Vec<Timestamp> = overrides
        .iter()
        .filter(|entry| matches!(entry.kind, OverrideKind::Maintenance { .. }))
        .filter_map(|entry| entry.until.filter(|until| now < *until))
        .collect();
    ends.sort_unstable();
    ends.dedup();
    for file in spec.files.iter_mut().filter(|file| file.live && file.name == ROUTES_FILE) {
        if let Ok(Value::Object(table)) = serde_json::from_str(&file.content) {
            file.content = at(&table, overrides, now);
            file.later = ends
                .iter()
                .map(|end| LaterContent { from: *end, content: at(&table, overrides, *end) })
                .collect();
        }
    }
}

/// Returns a route table as it is at a time: the last maintenance that is in force then is the one that is told.
fn at(table: &Map<String, Value>, overrides: &[Override], time: Timestamp) -> String {
    let maintenance =
        overrides.iter().rev().filter(|entry| entry.in_force(time)).find_map(|entry| match &entry.kind {
            OverrideKind::Maintenance { message, retry_after_seconds } => Some(json!({
                "since": entry.since,
                "message": message,
                "retry_after_seconds": retry_after_seconds,
            })),
            _ => None,
        });
    let mut table = table.clone();
    table.insert("maintenance".to_owned(), maintenance.unwrap_or(Value::Null));
    Value::Object(table).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maintenance(message: &str, until: Option<i64>) -> Override {
        Override {
            id: message.to_owned(),
            owner: "test".to_owned(),
            reason: "test".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            until: until.map(|second| Timestamp::from_second(second).unwrap()),
            kind: OverrideKind::Maintenance { message: message.to_owned(), retry_after_seconds: 1 },
        }
    }

    #[test]
    fn what_follows_the_end_of_a_maintenance_goes_along() {
        let table = json!({ "routes": [], "maintenance": null });
        let told = |overrides: &[Override], now: i64| {
            let now = Timestamp::from_second(now).unwrap();
            let message = |time| {
                let text = at(table.as_object().unwrap(), overrides, time);
                let table: Value = serde_json::from_str(&text).unwrap();
                table["maintenance"]["message"].as_str().unwrap_or("-").to_owned()
            };
            let mut spec: WorkloadSpec = serde_json::from_value(json!({
                "name": "front", "argv": ["true"], "env": {},
                "files": [{ "name": ROUTES_FILE, "content": table.to_string(), "live": true }],
                "health": { "period_ms": 1, "timeout_ms": 1, "failures": 1, "grace_ms": 1 },
                "update": { "surge": 1, "unavailable": 0, "min_ready_ms": 0, "drain_ms": 0, "stop_grace_ms": 0,
                            "stop_signal": "TERM", "progress_deadline_ms": 1 },
            }))
            .unwrap();
            overlay(&mut spec, overrides, now);
            let file = &spec.files[0];
            assert_eq!(file.content, at(table.as_object().unwrap(), overrides, now));
            let later = file.later.iter().map(|l| format!("{}={}", l.from.as_second(), message(l.from)));
            [message(now)].into_iter().chain(later).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&[], 0), "-");
        assert_eq!(told(&[maintenance("a", None)], 0), "a");
        assert_eq!(told(&[maintenance("a", Some(10))], 0), "a 10=-");
        assert_eq!(told(&[maintenance("a", Some(10))], 10), "-", "over");
        assert_eq!(told(&[maintenance("a", None), maintenance("b", Some(10))], 0), "b 10=a");
        assert_eq!(told(&[maintenance("a", Some(20)), maintenance("b", Some(10))], 0), "b 10=a 20=-");
    }
}
