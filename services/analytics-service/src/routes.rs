//! The routes of analytics: what happened to the asking user's products, items and accounts.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, State};
use service_kit::auth::{Principal, Verifier};
use service_kit::extract::{Json, Query};
use service_kit::{ApiError, Clock, Routes};

use crate::event::Owner;
use crate::query::{RangeParams, Series, Summary};
use crate::store::AnalyticsStore;

/// Every route as (method, template), for the metric's series.
pub const ROUTES: &[(&str, &str)] = &[("GET", "/analytics/summary"), ("GET", "/analytics/events")];

/// What the routes work with.
#[derive(Clone)]
pub struct App {
    /// The counts.
    pub store: Arc<dyn AnalyticsStore>,
    /// Checks the clients' tokens.
    pub verifier: Verifier,
    /// The time of day.
    pub clock: Clock,
}

impl FromRef<App> for Verifier {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}

/// The routes over `app`.
pub fn router(app: App) -> Router {
    routes().over(app)
}

fn routes() -> Routes<App> {
    Routes::new().get("/analytics/summary", summary).get("/analytics/events", events)
}

fn owner(principal: Principal) -> Owner {
    Owner { tenant: principal.tenant, user_id: principal.user_id }
}

async fn summary(State(app): State<App>, principal: Principal) -> Result<Json<Summary>, ApiError> {
    Ok(Json(Summary::of(app.store.totals(&owner(principal)).await?)))
}

async fn events(
    State(app): State<App>,
    principal: Principal,
    Query(params): Query<RangeParams>,
) -> Result<Json<Series>, ApiError> {
    let range = params.check(app.clock.now())?;
    Ok(Json(Series::of(range, app.store.hours(&owner(principal), range).await?)))
}

#[cfg(test)]
mod tests {
    use service_openapi::{Document, committed};

    use super::*;

    #[test]
    fn the_document_is_what_the_handlers_say() {
        let mut document = Document::of(crate::IDENTITY, "Counts of what happened, by hour and by day.");
        let sums = "What happened to the caller's products, items and accounts, summed up.";
        document.operation("GET", "/analytics/summary", sums, summary, |_| {});
        let series = "The same over time, in points of an hour or a day.";
        document.operation("GET", "/analytics/events", series, events, |_| {});
        assert_eq!(routes().list(), ROUTES);
        document.covers(ROUTES);
        committed::check(env!("CARGO_MANIFEST_DIR"), document);
    }
}
