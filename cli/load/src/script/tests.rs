use http_body_util::BodyExt as _;
use mlctl_core::secret::Secret;

use super::*;

fn profile(text: &str) -> LoadProfile {
    let mut value = serde_json::json!({
        "rate": "10/s", "duration": "1s", "warmup": "0", "connections": 1, "timeout": "1s",
        "headers": {}, "setup": [], "mix": [], "teardown": [], "thresholds": []
    });
    let own: serde_json::Value = serde_json::from_str(text).unwrap();
    for (key, part) in own.as_object().unwrap() {
        value[key] = part.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn entry(more: &str) -> String {
    format!(r#"{{"name":"it","weight":1,"body":null,"headers":{{}},"expect":"2xx",{more}}}"#)
}

fn refusal(text: &str) -> String {
    Script::compile(&profile(text)).err().unwrap().to_string()
}

#[test]
fn mistakes_are_found_before_anything_is_sent() {
    for (text, wanted) in [
        (
            format!(r#"{{"mix":[{}]}}"#, entry(r#""get":"/items/{{id}}""#)),
            "request `it`: nothing sets `{{id}}`: save it in an earlier setup request",
        ),
        (
            format!(r#"{{"mix":[{}]}}"#, entry(r#""get":"items""#)),
            "request `it`: `items` is not a path that starts with `/`",
        ),
        (
            format!(r#"{{"headers":{{"a b":"x"}},"mix":[{}]}}"#, entry(r#""get":"/""#)),
            "request `it`: `a b` is not a header that can be sent",
        ),
        (format!(r#"{{"mix":[{}]}}"#, entry(r#""get":"/{{""#)), "request `it`: `{{` without `}}` in `/{{`"),
    ] {
        assert_eq!(refusal(&text), wanted);
    }
}

#[test]
fn a_setup_request_may_not_use_what_it_saves_itself() {
    let setup = r#"{"setup":[{"name":"s","get":"/{{a}}","body":null,"headers":{},"expect":"2xx","save":{"a":"/a"}}]}"#;
    assert!(refusal(setup).contains("nothing sets `{{a}}`"));
}

#[test]
fn headers_for_all_may_hold_what_the_setup_saves() {
    let setup = r#"{"name":"s","get":"/","body":null,"headers":{},"expect":"2xx","save":{"token":"/t"}}"#;
    let headers = r#"{"authorization":"Bearer {{token}}"}"#;
    let mix = entry(r#""get":"/""#);
    Script::compile(&profile(&format!(r#"{{"headers":{headers},"setup":[{setup}],"mix":[{mix}]}}"#)))
        .unwrap();
    let refused = refusal(&format!(r#"{{"headers":{headers},"mix":[{mix}]}}"#));
    assert!(refused.contains("nothing sets `{{token}}`"), "{refused}");
}

#[tokio::test]
async fn a_request_is_written_with_its_values() {
    let text = format!(
        r#"{{"headers":{{"authorization":"none","X-Run":"{{{{secret:run}}}}"}},"mix":[{}]}}"#,
        r#"{"name":"it","weight":1,"expect":"2xx","post":"/p?n={{seq}}","body":{"a":"{{seq}}"},
            "headers":{"Authorization":"Bearer {{secret:run}}"}}"#
    );
    let script = Script::compile(&profile(&text)).unwrap();
    assert_eq!(script.secrets().collect::<Vec<_>>(), ["run", "run"]);
    let values = Values { secrets: [("run".to_owned(), Secret::new("r1"))].into(), ..Values::default() };
    let prepared = script.mix[0].bind(&values, "/base", "127.0.0.1:1", false).unwrap();
    let request = prepared.request(7, &mut StdRng::seed_from_u64(1)).unwrap();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "/base/p?n=7");
    for (header, value) in [
        ("authorization", "Bearer r1"),
        ("x-run", "r1"),
        ("host", "127.0.0.1:1"),
        ("connection", "close"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(request.headers()[header], value, "{header}");
    }
    assert!(!format!("{:?}", request.headers()).contains("r1"), "a token does not show in Debug");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, r#"{"a":"7"}"#);
    assert_eq!(script.mix[0].title("/base"), "POST /base/p?n={{seq}}");
}

#[test]
fn a_value_that_does_not_fit_a_header_is_found_when_binding() {
    let text = format!(r#"{{"headers":{{"x-run":"{{{{secret:run}}}}"}},"mix":[{}]}}"#, entry(r#""get":"/""#));
    let script = Script::compile(&profile(&text)).unwrap();
    let values = Values { secrets: [("run".to_owned(), Secret::new("a\nb"))].into(), ..Values::default() };
    let error = script.mix[0].bind(&values, "", "h", true).err().unwrap();
    assert_eq!(error.to_string(), "request `it`: `x-run` is not a header that can be sent");
}
