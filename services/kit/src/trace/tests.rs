//! Spans and who knows them.

use super::*;

const IDENTITY: Identity = Identity::new("trace-test", "1.2.3", 3009);

fn tracer(share: f64, on: bool) -> Tracer {
    let endpoint = on.then(|| "http://127.0.0.1:9".parse().unwrap());
    Tracer::new(IDENTITY, &TraceConfig { endpoint, share }, &Metrics::new())
}

#[test]
fn whether_a_trace_is_recorded_is_decided_where_it_begins() {
    let parent = |sampled| Context::root(|_| sampled);
    for (share, on, came, expected) in [
        (1.0, true, None, true),
        (0.0, true, None, false),
        (1.0, false, None, false),
        (0.0, true, Some(true), true),
        (1.0, true, Some(false), false),
        (1.0, false, Some(true), true),
    ] {
        let parent = came.map(parent);
        let span = tracer(share, on).open("x", Kind::Server, parent.as_ref());
        assert_eq!(span.context().sampled, expected, "share {share}, exported {on}, came {came:?}");
        assert_eq!(span.record.is_some(), expected && on);
    }
}

#[tokio::test]
async fn the_open_span_is_known_to_its_task_only() {
    assert_eq!(current(), None);
    assert!(open("x", Kind::Client).is_none(), "outside of every scope");
    let tracer = tracer(1.0, true);
    let outer = tracer.open("outer", Kind::Server, None);
    let inside = outer.scope(async {
        let inner = open("inner", Kind::Client).unwrap();
        assert_eq!(inner.context().trace, outer.context().trace);
        assert_eq!(inner.record.as_ref().unwrap().parent, Some(outer.context().span));
        work(Some(inner), async { current() }).await
    });
    let inside = inside.await.unwrap();
    assert_ne!(inside.span, outer.context().span);
    assert_eq!(current(), None);
    let fresh = tracer.scope(async { open("root", Kind::Internal) }).await.unwrap();
    assert_ne!(fresh.context().trace, outer.context().trace);
}

#[tokio::test]
async fn an_event_that_waits_keeps_its_trace() {
    let mut event = serde_json::json!({"id": "1", "data": {}});
    let before = event.clone();
    keep_in(&mut event);
    assert_eq!(event, before, "no span is open");
    assert!(take_from(&mut event).is_empty());
    let span = tracer(1.0, false).open("x", Kind::Server, None);
    let headers = span
        .scope(async {
            keep_in(&mut event);
            event_headers()
        })
        .await;
    assert_eq!(take_from(&mut event), headers);
    assert_eq!(event, before, "what is published is what it was");
    assert_eq!(of_event(&headers).unwrap().span, span.context().span);
    event[FIELD] = "junk".into();
    assert!(take_from(&mut event).is_empty());
    assert_eq!(event, before);
}

#[test]
fn a_full_queue_drops_and_counts_and_nobody_waits() {
    let metrics = Metrics::new();
    let endpoint = "http://127.0.0.1:9".parse().ok();
    let tracer = Tracer::new(IDENTITY, &TraceConfig { endpoint, share: 1.0 }, &metrics);
    for _ in 0..3_000 {
        drop(tracer.open("x", Kind::Internal, None));
    }
    let text = metrics.encode();
    assert!(text.contains("trace_spans_total{outcome=\"queue_full\"} 952\n"), "{text}");
}
