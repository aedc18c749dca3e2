//! One trace from the client through the gateway to the last service, and none of it at MercadoLibre.

use axum::http::Method;
use serde_json::{Value, json};
use service_kit::testing::{SeenSpan, eventually};

use crate::system::{System, send};

const TRACES: [&str; 4] = [
    "4bf92f3577b34da6a3ce929d0e0e4731",
    "4bf92f3577b34da6a3ce929d0e0e4732",
    "4bf92f3577b34da6a3ce929d0e0e4733",
    "4bf92f3577b34da6a3ce929d0e0e4734",
];
const SPAN: &str = "00f067aa0ba902b7";

fn parent(trace: &str) -> String {
    format!("00-{trace}-{SPAN}-01")
}

/// The one span of a trace that a service has under this name.
async fn find(system: &System, trace: &str, service: &str, name: &str) -> SeenSpan {
    eventually(&format!("{name} of {service}"), || async {
        let spans = system.collector.spans();
        spans.into_iter().find(|span| span.trace == trace && span.service == service && span.name == name)
    })
    .await
}

#[tokio::test]
async fn a_trace_goes_through_every_service_and_ends_at_mercadolibre() {
    let system = System::start().await;
    let front = system.front();
    let nothing = json!({});
    let person = json!({"email": "traced@example.com", "password": "correct horse battery"});
    let answer = send(&front, Method::POST, "/api/auth/register", &[], &person, 201).await;
    let token = answer.json::<Value>().unwrap()["access_token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let signed = ("authorization", bearer.as_str());

    // gateway -> user-service -> integration-service -> MercadoLibre
    let started = send(&front, Method::GET, "/api/auth/ml/connect", &[signed], &nothing, 200).await;
    let cookie = started.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let url = started.json::<Value>().unwrap()["authorize_url"].as_str().unwrap().to_owned();
    let path = format!("/api/auth/ml/callback?{}", system.consent(&url).await);
    let headers = [("cookie", cookie.as_str()), ("traceparent", &parent(TRACES[0])), ("tracestate", "us=1")];
    send(&front, Method::GET, &path, &headers, &nothing, 200).await;
    let chain = [
        ("gateway", "GET /api/auth"),
        ("gateway", "forward"),
        ("user-service", "GET /auth/ml/callback"),
        ("user-service", "POST"),
        ("integration-service", "POST /internal/ml/accounts"),
        ("integration-service", "POST"),
    ];
    let mut above = SPAN.to_owned();
    for (service, name) in chain {
        let span = find(&system, TRACES[0], service, name).await;
        assert_eq!((&span.parent, span.state.as_str()), (&above, "us=1"), "{span:?}");
        above = span.id;
    }
    let call = find(&system, TRACES[0], "integration-service", "POST").await;
    assert_eq!(call.attributes["peer.service"], "mercadolibre");

    // gateway -> integration-service -> catalog-service, and the events -> analytics-service
    let headers = [signed, ("traceparent", &parent(TRACES[1]))];
    send(&front, Method::POST, "/api/ml/items/sync", &headers, &nothing, 200).await;
    let sync = find(&system, TRACES[1], "integration-service", "POST /ml/items/sync").await;
    let taken = find(&system, TRACES[1], "catalog-service", "POST /internal/products/upsert").await;
    assert_ne!((&sync.id, &taken.parent), (&taken.parent, &sync.id), "a call is in between");

    let headers = [signed, ("traceparent", &parent(TRACES[2]))];
    let product = json!({"title": "Lamp", "price": 10, "currency_id": "ARS", "available_quantity": 1});
    send(&front, Method::POST, "/api/products", &headers, &product, 201).await;
    let made = find(&system, TRACES[2], "catalog-service", "POST /products").await;
    let counted = eventually("the span that counts the event", || async {
        let spans = system.collector.spans();
        spans.into_iter().find(|span| span.links.contains(&(TRACES[2].to_owned(), made.id.clone())))
    })
    .await;
    assert_eq!((counted.service.as_str(), counted.kind), ("analytics-service", 5));

    // user-service keeps what follows a removal in its database; the event tells of its cause all the same.
    let headers = [signed, ("traceparent", &parent(TRACES[3]))];
    let gone = front.call(Method::DELETE, "/api/users/me", &headers, axum::body::Bytes::new()).await.unwrap();
    assert_eq!(gone.status.as_u16(), 204);
    let removed = find(&system, TRACES[3], "user-service", "DELETE /users/me").await;
    eventually("the span that counts the removal", || async {
        let spans = system.collector.spans();
        let linked = |span: &SeenSpan| span.links.contains(&(TRACES[3].to_owned(), removed.id.clone()));
        spans.iter().any(|span| span.service == "analytics-service" && linked(span)).then_some(())
    })
    .await;

    let collector = system.stop().await;
    let spans = collector.spans();
    let at_mercadolibre: Vec<_> = spans.iter().filter(|span| span.service == "ml-api-sim").collect();
    assert!(!at_mercadolibre.is_empty());
    for span in at_mercadolibre {
        assert_eq!(span.parent, "", "MercadoLibre was told of our trace: {span:?}");
        assert_eq!(span.state, "");
    }
}
