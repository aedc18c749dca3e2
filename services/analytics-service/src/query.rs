//! What clients ask and what they are answered, without a store: time ranges, buckets, sums.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fold::Total;

/// Most points of one answer: almost three years of days, or six weeks of hours.
const POINTS_MAX: i64 = 1_000;

/// Width of one point of a series. Days are UTC days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    /// One hour.
    #[default]
    Hour,
    /// 24 hours from midnight, UTC.
    Day,
}

impl Bucket {
    /// Hours of one bucket.
    fn hours(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => 24,
        }
    }

    /// Buckets of the range that is shown when the client names none.
    fn default_points(self) -> i64 {
        match self {
            Self::Hour => 24,
            Self::Day => 30,
        }
    }
}

/// Query string of `GET /analytics/events`.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RangeParams {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    #[serde(default)]
    bucket: Bucket,
}

/// A checked range: whole buckets, in hours since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First hour of the range.
    pub from: i64,
    /// First hour after the range.
    pub to: i64,
    /// Width of a point.
    pub bucket: Bucket,
}

/// What is wrong with a range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// `from` is not before `to`.
    #[error("from must be before to")]
    Order,
    /// Too many points.
    #[error(
        "the range has {0} points, at most {POINTS_MAX} are answered: ask for a shorter range or bucket=day"
    )]
    TooLong(i64),
}

impl RangeParams {
    /// Checks the query string and widens the range to whole buckets. Without `to` it ends with the bucket that `now`
    /// lies in; without `from` it is 24 hours or 30 days long.
    ///
    /// # Errors
    /// [`RangeError`] names the rule that the range breaks.
    pub fn check(&self, now: Timestamp) -> Result<Range, RangeError> {
        let width = self.bucket.hours();
        let floor = |hour: i64| hour.div_euclid(width) * width;
        let to = match self.to {
            // The bucket that holds the last instant before `to`.
            Some(to) => floor((to.as_second() - 1).div_euclid(3_600)) + width,
            None => floor(now.as_second().div_euclid(3_600)) + width,
        };
        let from = match self.from {
            Some(from) => floor(from.as_second().div_euclid(3_600)),
            None => to - width * self.bucket.default_points(),
        };
        if from >= to || self.from.zip(self.to).is_some_and(|(from, to)| from >= to) {
            return Err(RangeError::Order);
        }
        let points = (to - from) / width;
        if points > POINTS_MAX {
            return Err(RangeError::TooLong(points));
        }
        Ok(Range { from, to, bucket: self.bucket })
    }
}

/// One row of the store: events of one type in one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourCount {
    /// The hour since 1970, UTC.
    pub hour: i64,
    /// The type of the events.
    pub event_type: String,
    /// How many.
    pub events: u64,
}

/// Answer of `GET /analytics/events`.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Series {
    /// Width of a point.
    pub bucket: Bucket,
    /// Start of the first point.
    pub from: Timestamp,
    /// End of the last point.
    pub to: Timestamp,
    /// Every point of the range, also those without an event, oldest first.
    pub points: Vec<Point>,
}

/// Events of one bucket.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Point {
    /// Start of the bucket.
    pub start: Timestamp,
    /// Events of all types.
    pub total: u64,
    /// Events by type; types without an event are left out.
    pub by_type: BTreeMap<String, u64>,
}

impl Series {
    /// The series of `range` from the rows of the store, in any order; rows outside the range are ignored.
    #[must_use]
    pub fn of(range: Range, rows: Vec<HourCount>) -> Self {
        let width = range.bucket.hours();
        let mut points: Vec<Point> = (range.from..range.to)
            .step_by(width as usize)
            .map(|hour| Point { start: hour_start(hour), total: 0, by_type: BTreeMap::new() })
            .collect();
        for row in rows {
            let index = usize::try_from((row.hour - range.from).div_euclid(width)).ok();
            if let Some(point) = index.and_then(|index| points.get_mut(index)) {
                point.total += row.events;
                *point.by_type.entry(row.event_type).or_default() += row.events;
            }
        }
        Self { bucket: range.bucket, from: hour_start(range.from), to: hour_start(range.to), points }
    }
}

fn hour_start(hour: i64) -> Timestamp {
    hour.checked_mul(3_600).and_then(|second| Timestamp::from_second(second).ok()).unwrap_or(Timestamp::MAX)
}

/// Answer of `GET /analytics/summary`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Summary {
    /// Products of the catalog.
    pub products: ProductCounts,
    /// Items of MercadoLibre.
    pub items: ItemCounts,
    /// MercadoLibre accounts.
    pub accounts: AccountCounts,
    /// Events of all types.
    pub events_total: u64,
    /// Events by type.
    pub by_type: BTreeMap<String, u64>,
    /// When the latest event happened.
    pub last_event_at: Option<Timestamp>,
}

/// Events of the catalog's products.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProductCounts {
    /// Products made.
    pub created: u64,
    /// Changes of products.
    pub updated: u64,
    /// Products deleted.
    pub deleted: u64,
}

/// Events of items.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ItemCounts {
    /// Item states taken over from MercadoLibre.
    pub synced: u64,
}

/// Events of MercadoLibre accounts.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AccountCounts {
    /// Accounts connected.
    pub connected: u64,
    /// Accounts disconnected.
    pub disconnected: u64,
}

impl Summary {
    /// Sums up the totals of one user.
    #[must_use]
    pub fn of(totals: Vec<(String, Total)>) -> Self {
        let mut summary = Self::default();
        for (event_type, total) in totals {
            match event_type.as_str() {
                "product.created" => summary.products.created += total.events,
                "product.updated" => summary.products.updated += total.events,
                "product.deleted" => summary.products.deleted += total.events,
                "item.updated" => summary.items.synced += total.events,
                "account.connected" => summary.accounts.connected += total.events,
                "account.disconnected" => summary.accounts.disconnected += total.events,
                _ => {}
            }
            summary.events_total += total.events;
            summary.last_event_at = summary.last_event_at.max(Some(total.last_at));
            *summary.by_type.entry(event_type).or_default() += total.events;
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn range(
        from: Option<&str>,
        to: Option<&str>,
        bucket: Bucket,
    ) -> Result<(Timestamp, Timestamp), RangeError> {
        let params = RangeParams { from: from.map(time), to: to.map(time), bucket };
        params.check(time("2026-11-24T03:15:00Z")).map(|range| (hour_start(range.from), hour_start(range.to)))
    }

    #[test]
    fn a_range_is_widened_to_whole_buckets() {
        for (from, to, bucket, expected_from, expected_to) in [
            (None, None, Bucket::Hour, "2026-11-23T04:00:00Z", "2026-11-24T04:00:00Z"),
            (None, None, Bucket::Day, "2026-10-26T00:00:00Z", "2026-11-25T00:00:00Z"),
            (
                Some("2026-11-24T01:59:59Z"),
                None,
                Bucket::Hour,
                "2026-11-24T01:00:00Z",
                "2026-11-24T04:00:00Z",
            ),
            (
                Some("2026-11-01T23:00:00Z"),
                Some("2026-11-03T00:00:00Z"),
                Bucket::Day,
                "2026-11-01T00:00:00Z",
                "2026-11-03T00:00:00Z",
            ),
            (
                None,
                Some("1970-01-01T00:00:00Z"),
                Bucket::Hour,
                "1969-12-31T00:00:00Z",
                "1970-01-01T00:00:00Z",
            ),
        ] {
            assert_eq!(
                range(from, to, bucket),
                Ok((time(expected_from), time(expected_to))),
                "{from:?} {to:?}"
            );
        }
    }

    #[test]
    fn a_range_that_is_empty_or_too_long_is_refused() {
        let noon = Some("2026-11-24T12:00:00Z");
        assert_eq!(range(noon, noon, Bucket::Hour), Err(RangeError::Order));
        assert_eq!(range(noon, Some("2026-11-24T11:59:00Z"), Bucket::Hour), Err(RangeError::Order));
        assert_eq!(range(noon, None, Bucket::Hour), Err(RangeError::Order), "now is earlier");
        assert_eq!(range(Some("2026-01-01T00:00:00Z"), noon, Bucket::Hour), Err(RangeError::TooLong(7_860)));
        assert!(range(Some("2026-01-01T00:00:00Z"), noon, Bucket::Day).is_ok());
        assert!(matches!(
            range(Some("-009999-01-03T00:00:00Z"), Some("9999-12-30T20:00:00Z"), Bucket::Day),
            Err(RangeError::TooLong(_))
        ));
    }

    #[test]
    fn a_series_has_every_point_and_adds_hours_into_days() {
        let range = Range { from: 0, to: 48, bucket: Bucket::Day };
        let row =
            |hour, event_type: &str, events| HourCount { hour, event_type: event_type.to_owned(), events };
        let rows = vec![row(0, "a", 1), row(23, "a", 2), row(23, "b", 4), row(48, "a", 8), row(-1, "a", 16)];
        let series = Series::of(range, rows);
        assert_eq!(series.points.len(), 2);
        assert_eq!(series.points[0].total, 7);
        assert_eq!(series.points[0].by_type, BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 4)]));
        assert_eq!((series.points[1].total, series.points[1].start), (0, time("1970-01-02T00:00:00Z")));
    }

    #[test]
    fn a_summary_names_what_the_system_knows_and_counts_the_rest() {
        let total = |events, last_at: &str| Total { events, last_at: time(last_at) };
        let summary = Summary::of(vec![
            ("product.created".to_owned(), total(3, "2026-11-24T01:00:00Z")),
            ("item.updated".to_owned(), total(5, "2026-11-24T02:00:00Z")),
            ("something.new".to_owned(), total(7, "2026-11-24T00:00:00Z")),
        ]);
        assert_eq!((summary.products.created, summary.items.synced, summary.events_total), (3, 5, 15));
        assert_eq!(summary.last_event_at, Some(time("2026-11-24T02:00:00Z")));
        assert_eq!(summary.by_type["something.new"], 7);
        assert_eq!(Summary::of(Vec::new()), Summary::default());
    }
}
