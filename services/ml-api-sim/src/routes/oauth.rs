//! Consent, token, and the grants of an application.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Form, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Caller;
use super::observe::Note;
use crate::error::MlError;
use crate::simulator::Simulator;
use crate::world::{Exchange, TokenPair};

#[derive(Debug, Deserialize)]
pub(super) struct Authorization {
    response_type: Option<String>,
    client_id: Option<String>,
    redirect_uri: Option<String>,
    state: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
    /// Whose consent it is; a new test seller when absent. Only the simulator has it: it stands for the login page.
    sim_seller: Option<u64>,
    /// Set to consent as an operator of the account, which MercadoLibre refuses.
    #[serde(default)]
    sim_operator: bool,
}

/// `GET /authorization`: consents at once and sends the browser back with a code.
pub(super) async fn authorization(
    State(simulator): State<Arc<Simulator>>,
    headers: HeaderMap,
    Query(query): Query<Authorization>,
) -> Result<Response, MlError> {
    let missing = |what: &str| MlError::oauth("invalid_request", format!("{what} is missing or wrong"));
    if query.response_type.as_deref() != Some("code") {
        return Err(missing("response_type"));
    }
    let client_id = query.client_id.ok_or_else(|| missing("client_id"))?;
    let redirect_uri = query.redirect_uri.ok_or_else(|| missing("redirect_uri"))?;
    if query.code_challenge.is_some() && query.code_challenge_method.as_deref() != Some("S256") {
        return Err(missing("code_challenge_method"));
    }
    if query.sim_operator {
        return Err(MlError::oauth(
            "invalid_operator_user_id",
            "The consenting login is not the account's administrator",
        ));
    }
    let now_ms = simulator.clock.now_ms();
    let mut world = simulator.world.lock();
    let seller = match query.sim_seller {
        Some(seller) => world.seller(seller).map(|seller| seller.id).ok_or_else(|| missing("sim_seller"))?,
        None => world.create_seller(now_ms),
    };
    let code = world.authorize(&client_id, &redirect_uri, query.code_challenge.as_deref(), seller, now_ms)?;
    drop(world);
    // MercadoLibre gives the state back without looking at it.
    let state = query.state.unwrap_or_default();
    let mut location =
        format!("{redirect_uri}{}code={code}", if redirect_uri.contains('?') { '&' } else { '?' });
    if !state.is_empty() {
        location.push_str("&state=");
        location.push_str(&percent_encode(&state));
    }
    let note = Note { client_id: Some(client_id), seller: Some(seller), detail: Value::Null };
    let wants_json =
        headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"));
    let mut response = if wants_json {
        Json(json!({ "code": code, "state": state, "redirect_to": location, "user_id": seller }))
            .into_response()
    } else {
        Redirect::to(&location).into_response()
    };
    response.extensions_mut().insert(note);
    Ok(response)
}

/// Escapes everything that is not unreserved in a URI (RFC 3986, 2.3).
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct TokenForm {
    #[serde(default)]
    grant_type: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    client_secret: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    redirect_uri: String,
    code_verifier: Option<String>,
    #[serde(default)]
    refresh_token: String,
}

/// `POST /oauth/token`: form body only.
pub(super) async fn token(
    State(simulator): State<Arc<Simulator>>,
    form: Result<Form<TokenForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return MlError::oauth("invalid_request", "The body must be a form").into_response();
    };
    let call = Exchange {
        client_id: &form.client_id,
        client_secret: &form.client_secret,
        code: &form.code,
        redirect_uri: &form.redirect_uri,
        code_verifier: form.code_verifier.as_deref(),
    };
    let now_ms = simulator.clock.now_ms();
    let mut note = Note { client_id: Some(form.client_id.clone()), ..Note::default() };
    let outcome = match form.grant_type.as_str() {
        "authorization_code" => simulator.world.lock().exchange_code(&call, now_ms),
        "refresh_token" => {
            let presented = simulator.world.lock().refresh(&call, &form.refresh_token, now_ms);
            note.seller = presented.seller;
            note.detail =
                json!({ "refresh_token": presented.fingerprint, "granted": presented.outcome.is_ok() });
            presented.outcome
        }
        _ => {
            Err(MlError::oauth("unsupported_grant_type", "grant_type is authorization_code or refresh_token"))
        }
    };
    let mut response = match outcome {
        Ok(pair) => {
            note.seller = Some(pair.seller);
            Json(pair_view(&pair)).into_response()
        }
        Err(error) => error.into_response(),
    };
    response.extensions_mut().insert(note);
    response
}

fn pair_view(pair: &TokenPair) -> Value {
    json!({
        "access_token": pair.access_token,
        "token_type": "bearer",
        "expires_in": pair.expires_in,
        "scope": "offline_access read write",
        "user_id": pair.seller,
        "refresh_token": pair.refresh_token,
    })
}

/// `GET /applications/{id}`.
pub(super) async fn application(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, MlError> {
    own_application(&token.client_id, &id)?;
    let world = simulator.world.lock();
    let app = world.application(&id).ok_or_else(|| MlError::not_found("Application", &id))?;
    Ok(Json(json!({
        "id": app.client_id,
        "callback_url": app.redirect_uri,
        "max_requests_per_hour": 90_000,
        "scopes": ["read", "write", "offline_access"],
        "active": true,
    })))
}

/// `GET /applications/{id}/grants`.
pub(super) async fn grants(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, MlError> {
    own_application(&token.client_id, &id)?;
    let sellers = simulator.world.lock().grants(&id);
    let grants: Vec<Value> =
        sellers.iter().map(|seller| json!({ "user_id": seller, "app_id": id })).collect();
    Ok(Json(json!({ "paging": { "total": grants.len() }, "grants": grants })))
}

/// `DELETE /users/{user_id}/applications/{id}`: the seller disconnects.
pub(super) async fn disconnect(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    Path((user_id, id)): Path<(u64, String)>,
) -> Result<(StatusCode, Json<Value>), MlError> {
    own_application(&token.client_id, &id)?;
    if token.seller != user_id {
        return Err(MlError::access_denied());
    }
    simulator.world.lock().revoke(user_id, Some(&id));
    Ok((StatusCode::OK, Json(json!({ "user_id": user_id, "app_id": id, "msg": "Autorización eliminada" }))))
}

fn own_application(own: &str, wanted: &str) -> Result<(), MlError> {
    if own == wanted {
        Ok(())
    } else {
        Err(MlError::new(
            StatusCode::FORBIDDEN,
            "unauthorized_application",
            "The token belongs to another application",
        ))
    }
}
