//! Handing items over to a catalog with the body limit that every service has.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use integration_service::publish::{Owner, Publisher, Source};
use serde_json::{Value, json};
use service_kit::auth::SharedToken;
use service_kit::eventlog::{EventLog, ML_EVENTS};
use service_kit::extract::body;
use service_kit::testing::Running;
use service_kit::{ApiError, Base, Clock, Identity, Kit, ServeError};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Length of a body, and the ids in it.
type Taken = (usize, Vec<String>);

async fn catalog() -> (Running<ServeError>, mpsc::UnboundedReceiver<Taken>) {
    async fn upsert(State(sender): State<mpsc::UnboundedSender<Taken>>, sent: Body) -> Result<(), ApiError> {
        let bytes = body(sent).await?;
        let hand_over: Value = serde_json::from_slice(&bytes).unwrap();
        let ids = hand_over["items"].as_array().unwrap().iter();
        sender
            .send((bytes.len(), ids.map(|item| item["id"].as_str().unwrap().to_owned()).collect()))
            .unwrap();
        Ok(())
    }
    let (sender, taken) = mpsc::unbounded_channel();
    let identity = Identity::new("catalog-service", "0.0.0", 3003);
    let routes = Router::new().route("/internal/products/upsert", post(upsert)).with_state(sender);
    let running = Running::start(|listener, shutdown| async move {
        Kit::new(identity, &Base::new(identity)).serve(routes, listener, shutdown).await
    });
    (running.await.unwrap(), taken)
}

#[tokio::test]
async fn large_items_go_in_as_many_calls_as_they_need() {
    let (running, mut taken) = catalog().await;
    let folder = tempfile::tempdir().unwrap();
    let log = EventLog::open(folder.path(), Clock::system()).await.unwrap();
    let internal = SharedToken::new("internal".to_owned().into());
    let publisher =
        Publisher::new(Arc::new(log.clone()), running.client().unwrap(), internal, Clock::system());
    let owner = Owner { tenant: "default", user_id: Uuid::nil() };

    // 200 items fit by their number, but are 8 MB; one of them is longer than a call should be.
    let items: Vec<Value> = (0..200)
        .map(|number| {
            let kilobytes = if number == 100 { 700 } else { 40 };
            json!({ "id": format!("MLA{number}"), "description": "x".repeat(kilobytes * 1024) })
        })
        .collect();
    publisher.items(owner, Source::Sync, "run", &items, "").await.unwrap();
    drop(publisher);

    let mut ids = Vec::new();
    while let Ok((length, of_call)) = taken.try_recv() {
        assert!(length <= 512 * 1024 || of_call == ["MLA100"], "{length} bytes with {of_call:?}");
        ids.extend(of_call);
    }
    let want: Vec<String> = items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, want);
    assert_eq!(log.head(ML_EVENTS).await.unwrap(), 200);
}
