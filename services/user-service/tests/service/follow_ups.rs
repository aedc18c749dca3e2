//! What the rest of the system hears when a user leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::delete;
use serde_json::{Value, json};
use service_kit::eventlog::{EventLog, ML_EVENTS, Record};
use service_kit::testing::{Running, eventually};
use service_kit::{Base, Clock, Identity, Kit, PROBE_TENANT, ServeError};
use tokio::sync::mpsc;

use crate::support::{INTERNAL, OPERATOR, PASSWORD, PATIENCE, SignedIn, World};

/// Waits for this many events.
async fn events(world: &World, count: usize) -> Vec<Record> {
    let log = EventLog::open(&world.folder.path().join("embedded"), Clock::system()).await.unwrap();
    eventually("the events", || async {
        let records = log.read(ML_EVENTS, 0, 100).await.unwrap();
        (records.len() >= count).then_some(records)
    })
    .await
}

#[tokio::test]
async fn the_others_hear_of_a_user_who_left() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    assert_eq!(world.leave(&ana).await.status, 204);

    let call = world.integration.call().await;
    assert_eq!((call.method, call.content.as_str()), ("DELETE", Some(ana.id())));
    assert_eq!(call.headers["x-internal-token"], INTERNAL);

    let records = events(&world, 1).await;
    assert_eq!(records.len(), 1);
    let event = &records[0].payload;
    assert_eq!(records[0].key, ana.id());
    assert_eq!(records[0].id, event["id"].as_str().unwrap());
    let told: Value = json!({
        "id": event["id"], "type": "user.deleted", "tenant": "default", "user_id": ana.id(),
        "at": "2027-01-15T08:00:00Z", "data": {},
    });
    assert_eq!(*event, told);
}

async fn probe(world: &World) -> SignedIn {
    let body = json!({"email": "probe@example.com", "password": PASSWORD, "tenant": PROBE_TENANT});
    let answer = world.post("/auth/register", &[("x-operator-token", OPERATOR)], &body).await;
    SignedIn::read(&answer, 201)
}

/// User, query and internal token of a call.
type Told = (String, String, String);

type Script = (mpsc::UnboundedSender<Told>, Arc<AtomicU32>);

/// A catalog-service that fails the first call and tells of every one.
async fn catalog() -> (Running<ServeError>, mpsc::UnboundedReceiver<Told>) {
    async fn erase(
        State((sender, calls)): State<Script>,
        Path(user_id): Path<String>,
        RawQuery(query): RawQuery,
        headers: HeaderMap,
    ) -> StatusCode {
        let token = headers["x-internal-token"].to_str().unwrap().to_owned();
        sender.send((user_id, query.unwrap(), token)).unwrap();
        match calls.fetch_add(1, Ordering::Relaxed) {
            0 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::NO_CONTENT,
        }
    }
    let (sender, calls) = mpsc::unbounded_channel();
    let routes = Router::new().route("/internal/products/users/{user_id}", delete(erase)).with_state((
        sender,
        Arc::default(),
    )
        as Script);
    let identity = Identity::new("catalog-service", "0.0.0", 3003);
    let running = Running::start(|listener, shutdown| async move {
        Kit::new(identity, &Base::new(identity)).serve(routes, listener, shutdown).await
    });
    (running.await.unwrap(), calls)
}

#[tokio::test]
async fn a_probe_user_leaves_no_event_and_no_product() {
    let (catalog, mut calls) = catalog().await;
    let world = World::with(|settings| settings.catalog = Some(catalog.url().parse().unwrap())).await;
    let probe = probe(&world).await;
    assert_eq!(world.leave(&probe).await.status, 204);
    let told = (probe.id().to_owned(), format!("tenant={PROBE_TENANT}"), INTERNAL.to_owned());
    let mut call = async || tokio::time::timeout(PATIENCE, calls.recv()).await.unwrap().unwrap();
    assert_eq!(call().await, told);
    // The first call failed; another user who leaves wakes the worker before its next look.
    world.clock.advance(Duration::from_secs(2));
    let ana = world.register("ana@example.com").await;
    world.leave(&ana).await;
    assert_eq!(call().await, told);

    assert_eq!(world.integration.call().await.content.as_str(), Some(ana.id()));
    assert_eq!(world.integration.unseen().await, 0, "a probe user has no account there");
    let records = events(&world, 1).await;
    assert_eq!(records.iter().map(|record| record.key.as_str()).collect::<Vec<_>>(), [ana.id()]);
}

#[tokio::test]
async fn without_a_catalog_to_call_the_end_of_a_probe_user_is_published() {
    let world = World::new().await;
    let probe = probe(&world).await;
    assert_eq!(world.leave(&probe).await.status, 204);
    assert_eq!(events(&world, 1).await[0].payload["tenant"], PROBE_TENANT);
    assert_eq!(world.integration.unseen().await, 0);
}

#[tokio::test]
async fn a_failed_follow_up_is_tried_again_until_it_is_done() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    world.integration.answer(500, json!({}));
    world.leave(&ana).await;
    world.integration.call().await;
    events(&world, 1).await;

    // The worker polls every five seconds; another user who leaves wakes it at once.
    world.integration.answer(204, json!({}));
    world.clock.advance(Duration::from_secs(2));
    let bob = world.register("bob@example.com").await;
    world.leave(&bob).await;
    let mut told = vec![world.integration.call().await.content, world.integration.call().await.content];
    told.sort_by_key(|id| id.as_str() != Some(ana.id()));
    assert_eq!(told, [json!(ana.id()), json!(bob.id())]);
    assert_eq!(events(&world, 2).await.len(), 2, "the event was not repeated");
}
