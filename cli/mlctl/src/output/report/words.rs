//! Words that several readers use.

use mlctl_core::item::ItemId;
use mlctl_core::status::{Cause, Status};

/// Returns milliseconds as people read them: `840 ms`, `12.4 s`, `3m 05s`.
#[must_use]
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{}m {:02}s", ms / 60_000, ms / 1000 % 60),
    }
}

/// Returns a moment as people read it, to the second and in UTC; JSON has the whole.
#[must_use]
pub fn to_the_second(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Says how an interrupted run is carried on: a release by its journal, an act by doing it once more.
#[must_use]
pub fn carry_on(operation: &str) -> &'static str {
    match operation {
        "deploy" | "rollback" => "`mlctl deploy --resume` goes on from here",
        _ => "run it again to finish it",
    }
}

/// Returns one sentence on where an item stands: "catalog: 1 of 2 replicas ready, waiting: starting (0.4 s)".
#[must_use]
pub fn item_line(item: &ItemId, status: Status, counts: (u32, u32, u32), cause: Option<&Cause>) -> String {
    let (ready, updated, desired) = counts;
    let mut line = format!("{}: ", item.name);
    if desired == 0 {
        line.push_str(status.word());
    } else {
        line.push_str(&format!("{ready} of {desired} replicas ready"));
        if updated < desired && status == Status::InProgress {
            line.push_str(&format!(", {updated} updated"));
        }
    }
    match (status, cause) {
        (Status::Current, _) => {}
        (_, Some(cause)) if cause.terminal => line.push_str(&format!(", failed: {}", cause.text)),
        (_, Some(cause)) => line.push_str(&format!(", waiting: {}", cause.text)),
        (Status::Failed, None) => line.push_str(", failed"),
        _ => {}
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_grow_coarser() {
        for (ms, text) in
            [(0, "0 ms"), (999, "999 ms"), (1_000, "1.0 s"), (12_440, "12.4 s"), (185_000, "3m 05s")]
        {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn only_a_release_is_carried_on() {
        for (operation, told) in [
            ("deploy", "`mlctl deploy --resume` goes on from here"),
            ("rollback", "`mlctl deploy --resume` goes on from here"),
            ("scale", "run it again to finish it"),
            ("down", "run it again to finish it"),
        ] {
            assert_eq!(carry_on(operation), told, "{operation}");
        }
    }

    #[test]
    fn an_item_line_says_what_it_waits_for() {
        let id = ItemId::workload("catalog");
        let cause = Cause::transient("starting", "catalog-1 is starting");
        for (status, counts, cause, line) in [
            (Status::Current, (2, 2, 2), None, "catalog: 2 of 2 replicas ready"),
            (
                Status::InProgress,
                (2, 1, 2),
                Some(&cause),
                "catalog: 2 of 2 replicas ready, 1 updated, waiting: catalog-1 is starting",
            ),
            (Status::NotFound, (0, 0, 0), None, "catalog: not found"),
        ] {
            assert_eq!(item_line(&id, status, counts, cause), line);
        }
    }
}
