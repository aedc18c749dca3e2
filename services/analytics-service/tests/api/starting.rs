//! Starting before the database is migrated, and what a fresh process shows.

use serde_json::json;
use service_kit::testing::eventually;

use crate::running::{System, event};

#[tokio::test]
async fn a_start_waits_for_the_migrations_and_goes_on_by_itself() {
    let system = System::without_migrations().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    system.append(event("product.created", &user)).await;
    let health = eventually("the first look", || async {
        let (status, health) = replica.get("/startupz").await;
        assert_eq!(status, 503);
        (health["checks"]["migrations"]["detail"] != "not checked yet").then_some(health)
    })
    .await;
    let detail = health["checks"]["migrations"]["detail"].as_str().unwrap();
    assert!(detail.contains("analytics_positions"), "{detail}");
    assert_eq!(replica.status("/readyz").await, 503);
    assert_eq!(replica.status("/livez").await, 200);
    let (status, body) = user.get("/analytics/summary").await;
    assert_eq!((status, &body["error"]), (503, &json!("store_unavailable")));

    system.migrate();
    replica.ready().await;
    assert_eq!(replica.status("/startupz").await, 200);
    user.counted(1).await;
    replica.stop().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_migrations() {
    let system = System::without_migrations().await;
    let replica = system.start().await;
    replica.stop().await;
}

#[tokio::test]
async fn the_metrics_of_the_plan_are_there_from_the_start() {
    let system = System::new().await;
    let replica = system.start().await;
    let lag = "kafka_consumer_lag{topic=\"ml-events\",partition=\"0\",group=\"analytics-service\"}";
    assert_eq!(replica.metric(lag).await, 0.0);
    assert_eq!(replica.metric("database_connections_max{store=\"postgresql\"}").await, 4.0);
    for outcome in ["counted", "duplicate", "skipped", "dead"] {
        assert_eq!(replica.outcome(outcome).await, 0.0);
    }
    replica.stop().await;
}
