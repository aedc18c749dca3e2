//! The end of a service: nothing that is open is lost, and nothing holds it open for ever.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use service_kit::testing::{Running, Wire};
use service_kit::{Base, Identity, Kit, ServeError};
use tokio::sync::Notify;
use tokio::time::timeout;

const IDENTITY: Identity = Identity::new("test-service", "1.2.3", 1);

/// A request that `GET /slow` is answering: `entered` tells that it is there, `leave` lets it go.
#[derive(Clone, Default)]
struct Slow {
    entered: Arc<Notify>,
    leave: Arc<Notify>,
}

async fn start(drain: Duration, slow: &Slow) -> Running<ServeError> {
    let slow = slow.clone();
    Running::start(move |listener, shutdown| async move {
        let kit = Kit::new(IDENTITY, &Base { drain, ..Base::new(IDENTITY) });
        let handler = move || async move {
            slow.entered.notify_one();
            slow.leave.notified().await;
            "done"
        };
        let routes = Router::new().route("/fast", get(|| async { "fast" })).route("/slow", get(handler));
        kit.serve(routes, listener, shutdown).await
    })
    .await
    .unwrap()
}

/// Asks to stop and waits until no new connection is taken, which is when the drain has begun.
async fn drain(service: &Running<ServeError>) {
    service.trigger().drain();
    let refused = async {
        while Wire::connect(service.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), refused).await.expect("still accepting connections");
}

async fn ends_within(service: Running<ServeError>, limit: Duration) {
    timeout(limit, service.ended()).await.expect("the service did not end").unwrap().unwrap();
}

#[tokio::test]
async fn without_connections_it_ends_at_once() {
    let service = start(Duration::from_secs(60), &Slow::default()).await;
    service.trigger().drain();
    ends_within(service, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn an_idle_connection_gets_one_more_answer_and_then_closes() {
    let service = start(Duration::from_secs(60), &Slow::default()).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    let before = wire.get("/fast", &[]).await.unwrap();
    assert!(!before.closes());

    drain(&service).await;
    let after = wire.get("/readyz", &[]).await.unwrap();
    assert_eq!((after.status, after.closes()), (503, true));
    assert!(after.body.contains("\"status\":\"draining\""), "{}", after.body);
    assert!(wire.closed().await);
    ends_within(service, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_connection_that_has_sent_nothing_yet_is_answered_too() {
    let service = start(Duration::from_secs(60), &Slow::default()).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    let mut first = Wire::connect(service.address).await.unwrap();
    // Connections are accepted in order: when the second one is answered, the first one is the server's.
    first.get("/fast", &[("connection", "close")]).await.unwrap();
    drain(&service).await;
    let answer = wire.get("/fast", &[]).await.unwrap();
    assert_eq!((answer.body.as_str(), answer.closes()), ("fast", true));
    ends_within(service, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn connections_still_in_the_queue_are_answered() {
    let service = start(Duration::from_secs(60), &Slow::default()).await;
    // One thread and no await in between: the service can only see the stop before it sees the connection.
    let mut queued = std::net::TcpStream::connect(service.address).unwrap();
    service.trigger().drain();
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        queued.write_all(b"GET /fast HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        let mut answer = String::new();
        queued.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(answer.await.unwrap().ends_with("\r\n\r\nfast"));
    ends_within(service, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_request_in_flight_is_finished() {
    let slow = Slow::default();
    let service = start(Duration::from_secs(60), &slow).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    wire.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    slow.entered.notified().await;
    drain(&service).await;
    slow.leave.notify_one();
    let answer = wire.reply().await.unwrap();
    assert_eq!((answer.status, answer.body.as_str(), answer.closes()), (200, "done", true));
    ends_within(service, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn idle_connections_close_when_the_drain_time_is_over() {
    let service = start(Duration::from_millis(50), &Slow::default()).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    wire.get("/fast", &[]).await.unwrap();
    service.trigger().drain();
    assert!(wire.closed().await);
    ends_within(service, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_request_that_outlives_every_deadline_is_cut_off() {
    let slow = Slow::default();
    let service = start(Duration::from_millis(50), &slow).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    wire.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    slow.entered.notified().await;
    service.trigger().drain();
    assert!(wire.closed().await);
    ends_within(service, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn the_request_to_end_at_once_does_not_wait() {
    let slow = Slow::default();
    let service = start(Duration::from_secs(60), &slow).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    wire.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    slow.entered.notified().await;
    service.trigger().drain();
    service.trigger().now();
    ends_within(service, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn metrics_are_served_while_draining() {
    let slow = Slow::default();
    let service = start(Duration::from_secs(60), &slow).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    wire.send("GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    slow.entered.notified().await;
    drain(&service).await;
    assert!(service.scrape().await.unwrap().contains("http_request_duration_seconds"));
    slow.leave.notify_one();
    assert_eq!(wire.reply().await.unwrap().status, 200);
    ends_within(service, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_passed_socket_stays_open_for_its_other_holders() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = socket.try_clone().unwrap();
    let address = socket.local_addr().unwrap();
    let (trigger, shutdown) = service_kit::Shutdown::channel();
    let base = Base::new(IDENTITY);
    let listener = service_kit::Listener::open(&base, Some(socket)).await.unwrap();
    let kit = Kit::new(IDENTITY, &base);
    let task = tokio::spawn(async move { kit.serve(Router::new(), listener, shutdown).await });
    let mut wire = Wire::connect(address).await.unwrap();
    assert_eq!(wire.get("/readyz", &[("connection", "close")]).await.unwrap().status, 200);

    trigger.drain();
    timeout(Duration::from_secs(5), task).await.unwrap().unwrap().unwrap();
    // Nobody accepts now; the connection waits in the queue for the next holder instead of being reset.
    let mut waiting = Wire::connect(address).await.unwrap();
    let (next_trigger, next_shutdown) = service_kit::Shutdown::channel();
    let listener = service_kit::Listener::open(&base, Some(other)).await.unwrap();
    let kit = Kit::new(IDENTITY, &base);
    let task = tokio::spawn(async move { kit.serve(Router::new(), listener, next_shutdown).await });
    assert_eq!(waiting.get("/readyz", &[("connection", "close")]).await.unwrap().status, 200);
    next_trigger.drain();
    timeout(Duration::from_secs(5), task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_socket_that_does_not_listen_is_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let not_listening = std::net::TcpListener::from(std::os::fd::OwnedFd::from(client));
    let opened = service_kit::Listener::open(&Base::new(IDENTITY), Some(not_listening)).await;
    assert!(opened.unwrap_err().to_string().contains("descriptor 3"));
}
