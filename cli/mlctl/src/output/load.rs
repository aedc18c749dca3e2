//! What a load run showed, as a table.

use mlctl_core::ports::LoadReport;
use mlctl_core::steps::load::micros;

use super::Table;

/// Returns a row for all requests and one for each endpoint.
#[must_use]
pub fn endpoint_table(report: &LoadReport) -> Table {
    let mut table = Table::new(&["ENDPOINT", "COUNT", "FAILED", "P50", "P95", "P99", "MAX", "SERVICE P99"]);
    let total = ("all".to_owned(), &report.total);
    for (name, endpoint) in std::iter::once(total).chain(report.endpoints.iter().map(|(n, e)| (n.clone(), e)))
    {
        let response = |name: &str| micros(endpoint.response_us.get(name).copied().unwrap_or_default());
        let service = micros(endpoint.service_us.get("p99").copied().unwrap_or_default());
        table.plain(&[
            &name,
            &endpoint.count.to_string(),
            &endpoint.failed.to_string(),
            &response("p50"),
            &response("p95"),
            &response("p99"),
            &response("max"),
            &service,
        ]);
    }
    table
}
