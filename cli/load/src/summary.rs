//! A load report as rows for people: pure, so that a terminal, a CI summary and a test show the same.

use mlctl_core::ports::{EndpointReport, LoadReport};
use mlctl_core::steps::load::micros;

/// A table: a title, a header, and rows as long as it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What it shows.
    pub title: &'static str,
    /// The names of its columns.
    pub header: Vec<&'static str>,
    /// Its rows.
    pub rows: Vec<Vec<String>>,
}

/// Returns the tables of a report, in reading order; those without a row are left out.
#[must_use]
pub fn tables(report: &LoadReport) -> Vec<Table> {
    let mut tables = vec![verdicts(report), latencies(report), failures(report)];
    tables.retain(|table| !table.rows.is_empty());
    tables
}

/// Returns the sentences that stand above the tables: what was done, and what makes the figures doubtful.
#[must_use]
pub fn headlines(report: &LoadReport) -> Vec<String> {
    let failed = report.due.saturating_sub(report.succeeded);
    let mut lines = vec![format!(
        "{} requests sent of {} due in {:.1} s: {:.1} good answers/s of {:.1}/s offered, {failed} failed",
        report.sent, report.due, report.seconds, report.achieved_per_second, report.offered_per_second
    )];
    if report.interrupted {
        lines.push("The run was cut short: nothing passes.".to_owned());
    }
    if report.client_lateness_p99_us > 10_000 {
        lines.push(format!(
            "The client was {} late (p99): this machine is busy, and the latencies are partly its own.",
            micros(report.client_lateness_p99_us)
        ));
    }
    lines
}

fn verdicts(report: &LoadReport) -> Table {
    let row = |result: &mlctl_core::gate::GateResult| {
        vec![
            result.verdict.word().to_owned(),
            result.subject.clone(),
            result.want.clone(),
            result.got.clone(),
        ]
    };
    Table {
        title: "Verdicts",
        header: vec!["verdict", "subject", "want", "got"],
        rows: report.verdicts.iter().map(row).collect(),
    }
}

const PERCENTILES: [&str; 6] = ["p50", "p90", "p95", "p99", "p999", "max"];

/// Response latency counts from when a request was due; where service latency (from when it was sent) is much
/// shorter, requests waited for a connection.
fn latencies(report: &LoadReport) -> Table {
    let mut rows: Vec<Vec<String>> =
        report.endpoints.iter().filter(|(_, e)| e.count > 0).map(|(name, e)| latency_row(name, e)).collect();
    if report.total.count > 0 {
        rows.push(latency_row("total", &report.total));
    }
    Table {
        title: "Response latency, from when each request was due",
        header: vec![
            "request",
            "count",
            "failed",
            "p50",
            "p90",
            "p95",
            "p99",
            "p999",
            "max",
            "service p50",
            "service p99",
        ],
        rows,
    }
}

fn latency_row(name: &str, endpoint: &EndpointReport) -> Vec<String> {
    let figure = |figures: &std::collections::BTreeMap<String, u64>, key: &str| {
        figures.get(key).map_or_else(|| "-".to_owned(), |us| micros(*us))
    };
    let mut row = vec![name.to_owned(), endpoint.count.to_string(), endpoint.failed.to_string()];
    row.extend(PERCENTILES.iter().map(|key| figure(&endpoint.response_us, key)));
    row.extend(["p50", "p99"].iter().map(|key| figure(&endpoint.service_us, key)));
    row
}

fn failures(report: &LoadReport) -> Table {
    let mut counted: Vec<_> = report.failures.iter().collect();
    counted.sort_by_key(|(class, count)| (std::cmp::Reverse(**count), *class));
    let row = |(class, count): (&String, &u64)| {
        let share = *count as f64 * 100.0 / report.due.max(1) as f64;
        vec![class.clone(), count.to_string(), format!("{share:.2} %")]
    };
    Table {
        title: "Failures",
        header: vec!["class", "count", "share"],
        rows: counted.into_iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use mlctl_core::gate::{GateResult, Verdict};

    use super::*;

    fn report() -> LoadReport {
        let endpoint = EndpointReport {
            count: 100,
            failed: 3,
            response_us: [("p50", 900), ("p99", 12_400), ("max", 1_900_000)]
                .map(|(k, v)| (k.to_owned(), v))
                .into(),
            service_us: [("p50".to_owned(), 700)].into(),
        };
        LoadReport {
            offered_per_second: 10.0,
            achieved_per_second: 9.7,
            due: 100,
            sent: 99,
            succeeded: 97,
            failures: [("status_500".to_owned(), 2), ("not_sent".to_owned(), 1)].into(),
            total: endpoint.clone(),
            endpoints: [("item".to_owned(), endpoint), ("unused".to_owned(), EndpointReport::default())]
                .into(),
            client_lateness_p99_us: 60_000,
            verdicts: vec![GateResult {
                subject: "load".into(),
                want: "p99<500ms".into(),
                got: "12.4 ms".into(),
                verdict: Verdict::Pass,
            }],
            interrupted: true,
            seconds: 10.0,
        }
    }

    #[test]
    fn a_report_becomes_rows() {
        let tables = tables(&report());
        assert_eq!(tables.iter().map(|t| t.rows.len()).collect::<Vec<_>>(), [1, 2, 2]);
        for table in &tables {
            assert!(table.rows.iter().all(|row| row.len() == table.header.len()), "{}", table.title);
        }
        assert_eq!(tables[0].rows[0], ["pass", "load", "p99<500ms", "12.4 ms"]);
        assert_eq!(
            tables[1].rows[0],
            ["item", "100", "3", "900 us", "-", "-", "12.4 ms", "-", "1.90 s", "700 us", "-"]
        );
        assert_eq!(tables[2].rows, [["status_500", "2", "2.00 %"], ["not_sent", "1", "1.00 %"]]);
    }

    #[test]
    fn headlines_tell_what_is_doubtful() {
        let mut report = report();
        assert_eq!(headlines(&report).len(), 3);
        report.interrupted = false;
        report.client_lateness_p99_us = 900;
        assert_eq!(
            headlines(&report),
            ["99 requests sent of 100 due in 10.0 s: 9.7 good answers/s of 10.0/s offered, 3 failed"]
        );
    }

    #[test]
    fn an_empty_report_has_no_tables() {
        let mut empty = report();
        empty.verdicts.clear();
        empty.failures.clear();
        empty.endpoints.clear();
        empty.total = EndpointReport::default();
        assert!(tables(&empty).is_empty());
    }
}
