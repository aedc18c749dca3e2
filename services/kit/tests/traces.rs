//! Traces over real sockets: what a request brings, what a call carries on, what a collector gets.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise, also in what its cases share")]

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use service_kit::client::{Client, HttpUrl};
use service_kit::testing::{Collector, Running, Wire, client, eventually};
use service_kit::trace::TraceConfig;
use service_kit::{ApiError, Base, Configuration, Environment, Identity, Kit, Reader, ServeError};

const CALLEE: Identity = Identity::new("callee", "1.0.0", 3998);
const CALLER: Identity = Identity::new("caller", "1.0.0", 3999);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn base(identity: Identity, collector: Option<&str>, share: f64) -> Base {
    let endpoint = collector.map(|url| url.parse().unwrap());
    Base { traces: TraceConfig { endpoint, share }, drain: Duration::ZERO, ..Base::new(identity) }
}

async fn service(base: Base, identity: Identity, routes: Router) -> Running<ServeError> {
    let running = Running::start(move |listener, shutdown| async move {
        Kit::new(identity, &base).serve(routes, listener, shutdown).await
    });
    let running = running.await.unwrap();
    running.ready(Duration::from_secs(5)).await.unwrap();
    running
}

/// A service that tells which trace headers it got.
async fn callee(collector: Option<&str>) -> Running<ServeError> {
    let tell = |headers: HeaderMap| async move {
        let text = |name: &str| {
            let values: Vec<_> =
                headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect();
            values.join("|")
        };
        format!("{};{}", text("traceparent"), text("tracestate"))
    };
    let routes = Router::new()
        .route("/tell", get(tell))
        .route("/fail", get(|| async { Err::<(), _>(ApiError::internal("no")) }));
    service(base(CALLEE, collector, 1.0), CALLEE, routes).await
}

/// A service that asks the other one.
async fn caller(collector: Option<&str>, share: f64, callee: &Running<ServeError>) -> Running<ServeError> {
    let url: HttpUrl = callee.url().parse().unwrap();
    let ask = move |path: &'static str| {
        let client = Client::new(url.clone(), Duration::from_secs(5));
        get(move || async move {
            let answer = client.get(path, &[]).await.unwrap();
            String::from_utf8(answer.body.to_vec()).unwrap()
        })
    };
    let routes = Router::new().route("/ask/{id}", ask("/tell?token=hidden")).route("/ask-fail", ask("/fail"));
    service(base(CALLER, collector, share), CALLER, routes).await
}

#[tokio::test]
async fn a_call_is_a_child_of_the_request_that_made_it() {
    let collector = Collector::start().await.unwrap();
    let callee = callee(Some(&collector.url())).await;
    let caller = caller(Some(&collector.url()), 0.0, &callee).await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let mut wire = Wire::connect(caller.address).await.unwrap();
    let headers = [("traceparent", parent.as_str()), ("tracestate", "rojo=1"), ("tracestate", "congo=2")];
    let reply = wire.get("/ask/secret-id?token=hidden", &headers).await.unwrap();
    let server = collector.span("caller", "GET /ask/{id}").await;
    let call = collector.span("caller", "GET").await;
    let inner = collector.span("callee", "GET /tell").await;
    assert_eq!((server.kind, call.kind, inner.kind), (2, 3, 2));
    for span in [&server, &call, &inner] {
        assert_eq!((span.trace.as_str(), span.state.as_str()), (TRACE, "rojo=1,congo=2"), "{span:?}");
    }
    assert_eq!((&*server.parent, &call.parent, &inner.parent), (SPAN, &server.id, &call.id));
    assert_eq!(server.attributes["http.route"], "/ask/{id}");
    assert_eq!(call.attributes["http.response.status_code"], "200");
    assert_eq!(call.attributes["server.port"], callee.address.port().to_string());
    assert!(!collector.text().contains("hidden") && !collector.text().contains("secret-id"));
    // The handler reads the span that it runs in.
    assert_eq!(reply.body, format!("00-{TRACE}-{}-01;rojo=1,congo=2", inner.id));
    assert!(wire.get("/ask-fail", &headers).await.is_ok());
    assert!(collector.span("callee", "GET /fail").await.failed);
    let told = collector.spans();
    assert!(!told.iter().any(|span| span.name.contains("ready")), "probes are not recorded: {told:?}");
}

#[tokio::test]
async fn what_cannot_be_believed_begins_a_new_trace_and_the_decision_is_kept() {
    let collector = Collector::start().await.unwrap();
    let callee = callee(Some(&collector.url())).await;
    let caller = caller(Some(&collector.url()), 1.0, &callee).await;
    let mut wire = Wire::connect(caller.address).await.unwrap();
    for bad in ["junk", "00-0-0-01", &format!("00-{}-{SPAN}-01", TRACE.to_uppercase())] {
        let reply = wire.get("/ask/1", &[("traceparent", bad), ("tracestate", "rojo=1")]).await.unwrap().body;
        assert!(reply.ends_with("-01;"), "neither the state nor the parent survive: {reply}");
        assert!(!reply.contains(TRACE) && !reply.contains('|'), "{reply}");
    }
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    let reply = wire.get("/ask/1", &[("traceparent", &unsampled)]).await.unwrap().body;
    assert!(reply.starts_with(&format!("00-{TRACE}-")) && reply.ends_with("-00;"), "{reply}");
    caller.stop().await.unwrap().unwrap();
    callee.stop().await.unwrap().unwrap();
    assert!(collector.spans().iter().all(|span| span.trace != TRACE), "somebody decided not to record it");
    assert_eq!(collector.spans().len(), 9, "three requests of three spans each: {:?}", collector.spans());
}

#[tokio::test]
async fn without_a_collector_ids_are_passed_on_and_nothing_is_recorded() {
    let callee = callee(None).await;
    let caller = caller(None, 1.0, &callee).await;
    let mut wire = Wire::connect(caller.address).await.unwrap();
    let reply = wire.get("/ask/1", &[]).await.unwrap().body;
    assert!(reply.starts_with("00-") && reply.ends_with("-00;"), "{reply}");
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let reply = wire.get("/ask/1", &[("traceparent", &parent)]).await.unwrap().body;
    assert!(reply.starts_with(&format!("00-{TRACE}-")) && reply.ends_with("-01;"), "{reply}");
    assert!(!caller.scrape().await.unwrap().contains("trace_spans"));
    let outside = client(callee.address).unwrap().get("/tell", &[]).await.unwrap();
    assert!(outside.body.starts_with(b"00-"), "the callee begins a trace for who has none");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_no_request_waits() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let callee = callee(Some(&nobody)).await;
    let mut wire = Wire::connect(callee.address).await.unwrap();
    let began = Instant::now();
    for _ in 0..3_000 {
        assert_eq!(wire.get("/tell", &[]).await.unwrap().status, 200);
    }
    let took = began.elapsed();
    let dropped = eventually("dropped spans", || async {
        let page = callee.scrape().await.unwrap();
        let count =
            page.lines().find_map(|line| line.strip_prefix("trace_spans_total{outcome=\"queue_full\"} "));
        count.unwrap().parse::<u64>().ok().filter(|count| *count > 0)
    });
    assert!(dropped.await < 3_000, "the queue held some");
    assert!(took < Duration::from_secs(20), "requests waited: {took:?}");
    let began = Instant::now();
    callee.stop().await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "the end waits a moment and no longer");
}

#[tokio::test]
async fn a_busy_collector_is_asked_again_and_a_refusal_is_final() {
    let collector = Collector::start().await.unwrap();
    let callee = callee(Some(&collector.url())).await;
    let mut wire = Wire::connect(callee.address).await.unwrap();
    let count = |outcome: &'static str| {
        let callee = &callee;
        async move {
            let page = callee.scrape().await.unwrap();
            let series = format!("trace_spans_total{{outcome=\"{outcome}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse::<u64>().unwrap()
        }
    };
    collector.answer(400);
    wire.get("/tell", &[]).await.unwrap();
    eventually("the refusal", || async { (count("failed").await == 1).then_some(()) }).await;
    collector.answer(503);
    wire.get("/tell", &[]).await.unwrap();
    eventually("the first try", || async {
        (collector.text().matches("resourceSpans").count() == 2).then_some(())
    })
    .await;
    collector.answer(200);
    collector.span("callee", "GET /tell").await;
    assert_eq!((count("exported").await, count("failed").await), (1, 1));
}

#[tokio::test]
async fn the_drain_exports_what_is_left() {
    let collector = Collector::start().await.unwrap();
    let callee = callee(Some(&collector.url())).await;
    let mut wire = Wire::connect(callee.address).await.unwrap();
    for _ in 0..700 {
        wire.get("/tell", &[]).await.unwrap();
    }
    drop(wire);
    callee.stop().await.unwrap().unwrap();
    assert_eq!(collector.spans().len(), 700, "more than one batch, and none is lost");
}

#[test]
fn variables_say_where_traces_go() {
    struct Config(Base);
    impl Configuration for Config {
        fn read(base: Base, _: &mut Reader<'_>) -> Option<Self> {
            Some(Self(base))
        }
        fn base(&self) -> &Base {
            &self.0
        }
    }
    let read = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(name, value)| (*name, *value));
        let config = Config::from_environment(CALLEE, &Environment::of(pairs));
        config.map(|Config(base)| base.traces.endpoint.map(|url| url.to_string()))
    };
    let own = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
    let plan = ("JAEGER_ENDPOINT", "http://jaeger:14268/api/traces");
    for (pairs, expected) in [
        (vec![], None),
        (vec![own], Some("http://collector:4318")),
        (vec![plan], Some("http://jaeger:4318")),
        (vec![own, plan], Some("http://collector:4318")),
        (vec![("JAEGER_ENDPOINT", "http://jaeger/api/traces")], Some("http://jaeger:4318")),
        (vec![("JAEGER_ENDPOINT", "http://jaeger:9999")], Some("http://jaeger:9999")),
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://gate/otlp/")], Some("http://gate/otlp")),
    ] {
        assert_eq!(read(&pairs).unwrap().as_deref(), expected, "{pairs:?}");
    }
    for bad in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"),
        ("JAEGER_ENDPOINT", "jaeger:14268"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "all"),
    ] {
        let error = read(&[bad]).unwrap_err();
        assert_eq!(error.problems[0].variable, bad.0);
    }
}
