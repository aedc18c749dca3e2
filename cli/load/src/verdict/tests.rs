use super::*;
use crate::failure::Failure;
use crate::recorder::{Outcome, Sent};

const PASS: Verdict = Verdict::Pass;
const FAIL: Verdict = Verdict::Fail;
const UNCLEAR: Verdict = Verdict::Inconclusive;

/// A run of one second in which so many requests were good, late (2 s) and failed so.
struct Run {
    good: u64,
    late: u64,
    failed: Vec<(Failure, u64)>,
    lateness: Duration,
    planned: Option<u64>,
    interrupted: bool,
}

impl Run {
    fn of(good: u64, late: u64, failed: u64) -> Self {
        Self {
            good,
            late,
            failed: vec![(Failure::Status(500), failed)],
            lateness: Duration::from_millis(1),
            planned: None,
            interrupted: false,
        }
    }

    fn judge(&self, threshold: &str) -> GateResult {
        let threshold: Threshold = threshold.parse().unwrap();
        let mut recorder = Recorder::new(1, limits(std::slice::from_ref(&threshold))).unwrap();
        let mut record = |times: u64, response: Duration, failure: Option<Failure>| {
            let sent = Sent { service: response, lateness: self.lateness };
            let sent = (failure != Some(Failure::NotSent)).then_some(sent);
            for _ in 0..times {
                recorder.record(&Outcome { entry: 0, measured: true, response, sent, failure });
            }
        };
        record(self.good, Duration::from_millis(10), None);
        record(self.late, Duration::from_secs(2), None);
        for (failure, times) in &self.failed {
            record(*times, Duration::from_millis(1), Some(*failure));
        }
        let planned = self.planned.unwrap_or(recorder.total.count);
        let names = ["login".to_owned()];
        let evidence = Evidence {
            recorder: &recorder,
            names: &names,
            planned,
            seconds: 1.0,
            interrupted: self.interrupted,
        };
        evidence.judge(&threshold)
    }
}

#[test]
fn figures_are_judged_by_what_is_certain() {
    for (run, threshold, wanted) in [
        // A percentile is a share of late ones.
        (Run::of(1000, 0, 0), "p99<500ms", PASS),
        (Run::of(298, 0, 0), "p99<500ms", UNCLEAR),
        (Run::of(299, 0, 0), "p99<500ms", PASS),
        (Run::of(990, 10, 0), "p99<500ms", UNCLEAR),
        (Run::of(970, 30, 0), "p99<500ms", FAIL),
        (Run::of(970, 30, 0), "p95<500ms", PASS),
        (Run::of(970, 30, 0), "p99<3s", PASS),
        (Run::of(1000, 0, 0), "p99<10ms", FAIL),
        (Run::of(1000, 0, 0), "p99<=10ms", PASS),
        (Run::of(10_000, 0, 0), "p99.9<500ms", PASS),
        (Run::of(1000, 0, 0), "max<500ms", PASS),
        (Run::of(1000, 1, 0), "max<500ms", FAIL),
        (Run::of(1000, 0, 0), "p99>1ms", UNCLEAR),
        // Quick errors are no service in time.
        (Run::of(0, 0, 1000), "p99<500ms", FAIL),
        (Run::of(0, 0, 1000), "p50<500ms", FAIL),
        // Shares.
        (Run::of(5000, 0, 0), "errors<0.1%", PASS),
        (Run::of(2994, 0, 0), "errors<0.1%", UNCLEAR),
        (Run::of(2995, 0, 0), "errors<0.1%", PASS),
        (Run::of(4999, 0, 1), "errors<0.1%", PASS),
        (Run::of(4997, 0, 3), "errors<0.1%", UNCLEAR),
        (Run::of(4985, 0, 15), "errors<0.1%", FAIL),
        (Run::of(5000, 0, 0), "success>99.9%", PASS),
        (Run::of(4985, 0, 15), "success>=99.9%", FAIL),
        (Run::of(10, 0, 0), "errors<=0%", PASS),
        (Run::of(10, 0, 0), "errors==0%", PASS),
        (Run::of(9999, 0, 1), "errors==0%", FAIL),
        (Run::of(9999, 0, 1), "success==100%", FAIL),
        (Run::of(10, 0, 0), "errors>1%", UNCLEAR),
        // The rate counts good answers.
        (Run::of(200, 0, 0), "rate>10000/min", PASS),
        (Run::of(100, 0, 100), "rate>10000/min", FAIL),
        (Run::of(100, 0, 0), "rate>10000/min", UNCLEAR),
        (Run::of(0, 0, 1000), "rate>1/s", FAIL),
        // Mean and least are over good answers only.
        (Run::of(1000, 0, 0), "avg<20ms", PASS),
        (Run::of(1000, 100, 0), "avg<20ms", FAIL),
        (Run::of(1000, 10, 0), "avg<30ms", UNCLEAR),
        (Run::of(29, 0, 0), "avg<20ms", UNCLEAR),
        (Run::of(0, 0, 1000), "avg<20ms", UNCLEAR),
        (Run::of(0, 0, 1000), "min<20ms", UNCLEAR),
        (Run::of(1, 0, 0), "min<20ms", PASS),
        // Nothing is no pass.
        (Run::of(0, 0, 0), "errors<1%", UNCLEAR),
        (Run::of(0, 0, 0), "max<1s", UNCLEAR),
        (Run::of(0, 0, 0), "errors==0%", UNCLEAR),
        // Scopes.
        (Run::of(1000, 0, 0), "login:p99<500ms", PASS),
        (Run::of(1000, 0, 0), "nobody:p99<500ms", UNCLEAR),
    ] {
        let result = run.judge(threshold);
        assert_eq!(result.verdict, wanted, "{threshold} of {}/{}: {}", run.good, run.late, result.got);
        assert_eq!(result.want, threshold);
    }
}

#[test]
fn a_run_cut_short_or_not_offered_never_passes_and_still_fails() {
    let cut = |good, failed| Run { interrupted: true, ..Run::of(good, 0, failed) };
    assert_eq!(cut(1000, 0).judge("p99<500ms").verdict, UNCLEAR);
    assert_eq!(cut(0, 1000).judge("errors<1%").verdict, FAIL);
    let short = |planned| Run { planned: Some(planned), ..Run::of(1000, 0, 0) };
    assert_eq!(short(1052).judge("p99<500ms").verdict, PASS);
    let result = short(1060).judge("p99<500ms");
    assert_eq!(result.verdict, UNCLEAR);
    assert!(result.got.ends_with("but only 1000 of 1060 requests could be sent"), "{}", result.got);
}

#[test]
fn a_late_client_accuses_nobody() {
    let late = |run: Run| Run { lateness: Duration::from_millis(60), ..run };
    assert_eq!(late(Run::of(500, 500, 0)).judge("p99<500ms").verdict, UNCLEAR);
    assert_eq!(late(Run::of(1000, 0, 0)).judge("p99<500ms").verdict, PASS, "good in spite of it");
    assert_eq!(late(Run::of(0, 0, 1000)).judge("errors<1%").verdict, FAIL, "an error status is the server's");
    let unsent = || Run { failed: vec![(Failure::NotSent, 30)], ..Run::of(970, 0, 0) };
    assert_eq!(unsent().judge("errors<1%").verdict, FAIL, "the server kept every connection busy");
    assert_eq!(late(unsent()).judge("errors<1%").verdict, UNCLEAR);
}

#[test]
fn ports_that_ran_out_are_the_clients_own() {
    let run = Run { failed: vec![(Failure::ClientExhausted, 500)], ..Run::of(500, 0, 0) };
    let result = run.judge("errors<1%");
    assert_eq!(result.verdict, UNCLEAR);
    assert!(result.got.ends_with("but 500 of the failures are this client's own"), "{}", result.got);
    assert_eq!(run.judge("p99<500ms").verdict, UNCLEAR);
}

#[test]
fn verdicts_say_what_they_rest_on() {
    for (run, threshold, wanted) in [
        (Run::of(5000, 0, 0), "errors<0.1%", "0 of 5000 failed, 95 % sure below 0.06 % (allowed 0.1 %)"),
        (Run::of(800, 0, 200), "errors<0.1%", "200 of 1000 failed, 95 % sure above 18 % (allowed 0.1 %)"),
        (
            Run::of(100, 0, 0),
            "p99<500ms",
            "10.0 ms; 0 of 100 failed or not within 500ms, between 0 % and 3 % (allowed 1 %): 299 requests would tell",
        ),
        (Run::of(200, 0, 0), "rate>10000/min", "12000 good answers/min of 12000/min offered"),
        (Run::of(1000, 0, 0), "avg<20ms", "10.0 ms +- 0 us (of 1000 good answers)"),
        (Run::of(10, 0, 1), "errors==0%", "1 of 11 failed"),
    ] {
        assert_eq!(run.judge(threshold).got, wanted, "{threshold}");
    }
}

#[test]
fn equal_limits_are_counted_once() {
    let thresholds: Vec<Threshold> = ["p99<500ms", "login:p95<500ms", "max<=500ms", "errors<1%"]
        .iter()
        .map(|t| t.parse().unwrap())
        .collect();
    assert_eq!(limits(&thresholds).len(), 2);
}
