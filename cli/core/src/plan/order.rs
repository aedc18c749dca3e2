//! Order by need: items in groups, each group standing only on the groups before it.

use std::collections::BTreeSet;

use super::PlanError;
use crate::item::{Item, ItemId};

/// Returns the items in groups; within a group the given order is kept. Needs outside the list count as met.
///
/// # Errors
/// Items that need each other in a circle.
pub(super) fn groups<'a>(items: &[&'a Item]) -> Result<Vec<Vec<&'a Item>>, PlanError> {
    let mut open: Vec<&Item> = items.to_vec();
    let mut groups = Vec::new();
    while !open.is_empty() {
        let waiting: BTreeSet<&ItemId> = open.iter().map(|item| &item.id).collect();
        let (group, rest): (Vec<&'a Item>, Vec<&'a Item>) =
            open.iter().partition(|item| !item.needs.iter().any(|need| waiting.contains(need)));
        if group.is_empty() {
            return Err(PlanError::Cycle { items: rest.iter().map(|item| item.id.clone()).collect() });
        }
        groups.push(group);
        open = rest;
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Digest, Tier};

    fn item(name: &str, needs: &[&str]) -> Item {
        Item {
            id: ItemId::workload(name),
            tier: Tier::Applications,
            needs: needs.iter().map(|n| ItemId::workload(*n)).collect(),
            digest: Digest::of(name.as_bytes()),
            replicas: None,
            progress_deadline_ms: None,
            payload: serde_json::Value::Null,
        }
    }

    fn names(items: &[Item]) -> Result<Vec<Vec<String>>, PlanError> {
        let list: Vec<&Item> = items.iter().collect();
        Ok(groups(&list)?.iter().map(|g| g.iter().map(|i| i.id.name.clone()).collect()).collect())
    }

    #[test]
    fn groups_stand_on_the_groups_before() {
        let items = [
            item("gateway", &["user", "catalog"]),
            item("user", &["elsewhere"]),
            item("catalog", &["user"]),
            item("batch", &[]),
        ];
        assert_eq!(names(&items).unwrap(), [vec!["user", "batch"], vec!["catalog"], vec!["gateway"]]);
    }

    #[test]
    fn a_circle_is_refused_with_its_members() {
        let error = names(&[item("a", &["b"]), item("b", &["a"]), item("c", &[])]).unwrap_err();
        assert_eq!(error.to_string(), "plan the order of workload/a, workload/b: they need each other");
    }
}
