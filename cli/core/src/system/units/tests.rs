//! Tables: what is read, what it means, how it is written back.

use std::fmt::Display;
use std::str::FromStr;

use proptest::prelude::*;

use super::*;

/// Reads `text`, writes it back, and reads that again: the value stays the same.
fn written<U: FromStr<Err = UnitError> + Display + PartialEq + std::fmt::Debug>(
    text: &str,
) -> Option<String> {
    let value: U = text.parse().ok()?;
    let again = value.to_string();
    assert_eq!(again.parse::<U>().as_ref(), Ok(&value), "{text} became {again}");
    Some(again)
}

#[test]
fn time_spans() {
    for (text, expected) in [
        ("500ms", Some("500ms")),
        ("2s", Some("2s")),
        ("15m", Some("15m")),
        ("90s", Some("1m30s")),
        ("1h30m", Some("1h30m")),
        ("1.5s", Some("1500ms")),
        ("24h", Some("1d")),
        ("0", Some("0s")),
        ("0s", Some("0s")),
        ("", None),
        ("5", None),
        ("s", None),
        ("-1s", None),
        ("1 second", None),
        ("1m2h", None),
        ("1s1s", None),
        ("0.1ms", None),
        ("9999999999d", None),
        ("1µs", None),
    ] {
        assert_eq!(written::<TimeSpan>(text).as_deref(), expected, "{text}");
    }
    assert_eq!("1h30m".parse::<TimeSpan>().unwrap().get(), std::time::Duration::from_secs(5400));
}

#[test]
fn sizes() {
    for (text, expected) in [
        ("64Mi", Some("64Mi")),
        ("64MiB", Some("64Mi")),
        ("1024Mi", Some("1Gi")),
        ("1GB", Some("1GB")),
        ("1.5Gi", Some("1536Mi")),
        ("1B", Some("1B")),
        ("0B", Some("0B")),
        ("64", None),
        ("64mi", None),
        ("1gb", None),
        ("1.3B", None),
        ("-1B", None),
        ("99999999Ti", None),
    ] {
        assert_eq!(written::<ByteSize>(text).as_deref(), expected, "{text}");
    }
    assert_eq!("1GB".parse::<ByteSize>().unwrap().bytes(), 1_000_000_000);
}

#[test]
fn processor_time() {
    for (text, expected) in [
        ("500m", Some("500m")),
        ("1", Some("1")),
        ("0.5", Some("500m")),
        ("2000m", Some("2")),
        ("0", None),
        ("0.0001", None),
        ("1 core", None),
        ("half", None),
    ] {
        assert_eq!(written::<Cpu>(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn rates_and_percentages() {
    for (text, expected) in [
        ("250/s", Some("250/s")),
        ("0.5/min", Some("0.5/min")),
        ("45000/h", Some("45000/h")),
        ("5/m", None),
        ("5", None),
    ] {
        assert_eq!(written::<Rate>(text).as_deref(), expected, "{text}");
    }
    assert!((("600/min".parse::<Rate>().unwrap()).per_second() - 10.0).abs() < 1e-9);
    for (text, expected) in
        [("80%", Some("80%")), ("0.1%", Some("0.1%")), ("80", None), ("%", None), ("-1%", None)]
    {
        assert_eq!(written::<Percent>(text).as_deref(), expected, "{text}");
    }
    assert!(("0.1%".parse::<Percent>().unwrap().ratio() - 0.001).abs() < 1e-12);
}

#[test]
fn quantities_know_their_base_unit() {
    for (text, base) in [
        ("80%", 0.8),
        ("500ms", 0.5),
        ("500/min", 500.0 / 60.0),
        ("64Mi", 67_108_864.0),
        ("1000", 1000.0),
        ("0", 0.0),
        ("0.01", 0.01),
    ] {
        let quantity: Quantity = text.parse().unwrap();
        assert!((quantity.base() - base).abs() < 1e-9, "{text}: {}", quantity.base());
        assert_eq!(written::<Quantity>(text).as_deref(), Some(text));
    }
    for text in ["lots", "", "-5", "5 apples", "%"] {
        assert_eq!(written::<Quantity>(text), None, "{text}");
    }
}

#[test]
fn bounds_compare_in_base_units() {
    for (text, actual, holds) in [
        ("<500ms", 0.499, true),
        ("<500ms", 0.5, false),
        ("<=500ms", 0.5, true),
        (">10000/min", 167.0, true),
        (">10000/min", 166.0, false),
        ("<0.1%", 0.0, true),
        (">=99.9%", 0.999, true),
        ("==2", 2.0, true),
        ("!=2", 2.0, false),
        ("< 1", f64::NAN, false),
        ("!= 1", f64::NAN, false),
    ] {
        assert_eq!(text.parse::<Bound>().unwrap().holds(actual), holds, "{actual} {text}");
    }
    for text in ["500ms", "=<1", "<", "=1", "~1"] {
        assert_eq!(written::<Bound>(text), None, "{text}");
    }
}

#[test]
fn thresholds() {
    for (text, scope, measure) in [
        ("p99<500ms", None, "p99"),
        ("p99.9<=1s", None, "p99.9"),
        ("errors<0.1%", None, "errors"),
        ("rate>10000/min", None, "rate"),
        ("login:p95<150ms", Some("login"), "p95"),
        ("login: p95 < 150ms", Some("login"), "p95"),
        ("max<2s", None, "max"),
    ] {
        let threshold: Threshold = text.parse().unwrap();
        assert_eq!((threshold.scope.as_deref(), threshold.measure.as_str()), (scope, measure), "{text}");
        assert!(written::<Threshold>(text).is_some());
    }
    for (text, expected) in [
        ("p99<1%", "`p99` to be compared with a duration such as 500ms"),
        ("errors<5ms", "`errors` to be compared with a percentage such as 0.1%"),
        ("rate>10", "`rate` to be compared with a rate such as 10000/min"),
        ("p101<1s", Threshold::EXPECTED),
        ("p<1s", Threshold::EXPECTED),
        ("pinf<1s", Threshold::EXPECTED),
        (":p99<1s", Threshold::EXPECTED),
        ("fast", Threshold::EXPECTED),
        ("p99", Threshold::EXPECTED),
    ] {
        assert_eq!(text.parse::<Threshold>().unwrap_err().expected, expected, "{text}");
    }
    assert_eq!("p99.9<1s".parse::<Threshold>().unwrap().percentile(), Some(99.9));
    assert_eq!("errors<1%".parse::<Threshold>().unwrap().percentile(), None);
}

#[test]
fn indicators_and_conditions() {
    for text in [
        "circuit_breaker_state",
        "p99(http_request_duration_seconds)",
        "ratio(errors, requests)",
        "ratio(requests{outcome=\"ok\",method=\"GET\"}, requests)",
        "rate(requests)",
    ] {
        assert_eq!(written::<Indicator>(text).as_deref(), Some(text));
    }
    for text in
        ["", "p99 of x", "ratio(errors)", "rate(a, b)", "median(a)", "a{b=c}", "a{b=\"c\"", "2x", "p0(a)"]
    {
        assert_eq!(written::<Indicator>(text), None, "{text}");
    }
    for (text, expected) in [
        ("error_rate > 5%", Some("error_rate > 5%")),
        ("max(circuit_breaker_state)==2", Some("max(circuit_breaker_state) == 2")),
        ("a{b=\"c>d\"} >= 1", Some("a{b=\"c>d\"} >= 1")),
        ("error_rate", None),
        ("> 5%", None),
        ("a > b", None),
    ] {
        assert_eq!(written::<Condition>(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn expected_statuses() {
    for (text, good, bad) in
        [("2xx", 204, 301), ("201", 201, 200), ("200, 404", 404, 201), ("2xx,409", 409, 400)]
    {
        let expect: Expect = text.parse().unwrap();
        assert!(expect.matches(good) && !expect.matches(bad), "{text}");
        assert!(written::<Expect>(text).is_some());
    }
    for text in ["", "ok", "6xx", "0xx", "99", "600", "200,", "xx"] {
        assert_eq!(written::<Expect>(text), None, "{text}");
    }
}

#[test]
fn units_survive_serialisation() {
    let json = serde_json::to_string(&"login:p95<150ms".parse::<Threshold>().unwrap()).unwrap();
    assert_eq!(json, "\"login:p95<150ms\"");
    assert_eq!(serde_json::from_str::<Threshold>(&json).unwrap().to_string(), "login:p95<150ms");
    let error = serde_json::from_str::<TimeSpan>("\"soon\"").unwrap_err();
    assert!(error.to_string().starts_with("expected a duration"), "{error}");
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic_and_what_is_read_is_stable(text in "[-a-zA-Z0-9.%/<>=!:{}(),\" ]{0,24}") {
        written::<TimeSpan>(&text);
        written::<ByteSize>(&text);
        written::<Cpu>(&text);
        written::<Bound>(&text);
        written::<Threshold>(&text);
        written::<Condition>(&text);
        written::<Expect>(&text);
    }

    #[test]
    fn every_span_of_whole_milliseconds_is_written_exactly(millis in 0_u64..10_000_000_000) {
        let span = TimeSpan::from_millis(millis);
        prop_assert_eq!(span.to_string().parse::<TimeSpan>().unwrap(), span);
    }

    #[test]
    fn every_size_is_written_exactly(bytes in 0_u64..(1 << 53)) {
        let size = ByteSize::new(bytes);
        prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
    }
}
