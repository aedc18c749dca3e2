//! `/ml/health`: how it stands with MercadoLibre; and the operator's hold on a breaker.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use service_kit::ApiError;
use service_kit::auth::Internal;
use service_kit::extract::{Json, Path};

use super::App;
use crate::breaker::{Hold, State as BreakerState};
use crate::limiter::Scope;
use crate::ml::Group;

/// `GET /ml/health`: `ok`, or `degraded` when a breaker is not closed, a limit is nearly used up, or their store is
/// away. Always 200: MercadoLibre's health is not this service's readiness.
pub(super) async fn health(State(app): State<App>) -> Json<Value> {
    let mut degraded = false;
    let mut breakers = Map::new();
    for group in Group::ALL {
        let state = app.client.breaker(group).map_or(BreakerState::Closed, |breaker| breaker.state());
        degraded |= state != BreakerState::Closed;
        breakers.insert(group.name().to_owned(), json!(state.name()));
    }
    let usage = app.client.limiter().usage().await;
    degraded |= usage.is_none_or(|usage| usage.iter().any(|usage| usage.utilization > 0.9));
    let limits: Map<String, Value> = Scope::ALL
        .iter()
        .enumerate()
        .map(|(position, scope)| (scope.name().to_owned(), json!(usage.map(|usage| usage[position]))))
        .collect();
    Json(json!({
        "status": if degraded { "degraded" } else { "ok" },
        "mode": app.client.limiter().mode().name(),
        "breaker_enabled": app.client.breaker_enabled(),
        "breaker": breakers,
        "limits": limits,
        "notifications_waiting": app.store.waiting().await.ok(),
    }))
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct HoldBody {
    hold: Hold,
}

/// `POST /internal/ml/breakers/{group} {hold: auto|open|closed}`: of the replica that answers.
pub(super) async fn hold(
    State(app): State<App>,
    _: Internal,
    Path(group): Path<String>,
    Json(body): Json<HoldBody>,
) -> Result<StatusCode, ApiError> {
    let group = Group::ALL.into_iter().find(|known| known.name() == group);
    let breaker = group.and_then(|group| app.client.breaker(group));
    let breaker =
        breaker.ok_or_else(|| ApiError::not_found("not_found", "Breakers are oauth, users and items."))?;
    breaker.hold(body.hold);
    Ok(StatusCode::NO_CONTENT)
}
