//! The breaker on paused time: its table of states, its waits, its permits, and a model that it must agree with.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::advance;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> Policy {
    Policy { failure_threshold: 3, minimum_calls: 1_000, ..Policy::default() }
}

fn breaker(policy: Policy) -> Arc<Breaker> {
    Breaker::new(policy, Arc::new(|_| {}))
}

fn fail(breaker: &Arc<Breaker>, times: u32) {
    for _ in 0..times {
        breaker.acquire().unwrap().record(Outcome::Failure);
    }
}

fn opened() -> Arc<Breaker> {
    let breaker = breaker(policy());
    fail(&breaker, 3);
    assert_eq!(breaker.state(), State::Open);
    breaker
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_it_and_a_success_between_starts_the_count_again() {
    let breaker = breaker(policy());
    fail(&breaker, 2);
    breaker.acquire().unwrap().record(Outcome::Success);
    fail(&breaker, 2);
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn open_rejects_with_the_time_that_is_left() {
    let breaker = opened();
    advance(20 * SECOND).await;
    assert_eq!(breaker.acquire().unwrap_err().retry_after, 40 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn half_open_admits_three_probes_and_closes_when_all_are_good() {
    let breaker = opened();
    advance(60 * SECOND).await;
    let probes: Vec<Permit> = (0..3).map(|_| breaker.acquire().unwrap()).collect();
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(breaker.acquire().is_err());
    for (number, probe) in probes.into_iter().enumerate() {
        assert_eq!(breaker.state(), State::HalfOpen, "before probe {number}");
        probe.record(Outcome::Success);
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_doubles_the_wait_up_to_ten_minutes_and_closing_forgets_it() {
    let breaker = opened();
    for expected in [60, 120, 240, 480, 600, 600] {
        assert_eq!(breaker.acquire().unwrap_err().retry_after, expected * SECOND);
        advance(expected * SECOND).await;
        breaker.acquire().unwrap().record(Outcome::Failure);
    }
    advance(600 * SECOND).await;
    for _ in 0..3 {
        breaker.acquire().unwrap().record(Outcome::Success);
    }
    fail(&breaker, 3);
    assert_eq!(breaker.acquire().unwrap_err().retry_after, 60 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn jitter_only_lengthens_the_wait() {
    let breaker = breaker(Policy { jitter: || 0.5, ..policy() });
    fail(&breaker, 3);
    assert_eq!(breaker.acquire().unwrap_err().retry_after, 63 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_caller_goes_away_gives_its_place_back() {
    let breaker = opened();
    advance(60 * SECOND).await;
    for _ in 0..10 {
        let probe = breaker.acquire().unwrap();
        let task = tokio::spawn(async move {
            std::future::pending::<()>().await;
            probe.record(Outcome::Success);
        });
        tokio::task::yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    assert_eq!(breaker.state(), State::HalfOpen);
    for _ in 0..3 {
        breaker.acquire().unwrap().record(Outcome::Success);
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_after_the_slow_limit_counts_as_a_failure() {
    let breaker = opened();
    advance(60 * SECOND).await;
    let probe = breaker.acquire().unwrap();
    advance(5 * SECOND).await;
    drop(probe);
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_of_an_earlier_state_does_not_count() {
    let breaker = breaker(policy());
    let late = breaker.acquire().unwrap();
    fail(&breaker, 3);
    advance(60 * SECOND).await;
    let probe = breaker.acquire().unwrap();
    late.record(Outcome::Failure);
    assert_eq!(breaker.state(), State::HalfOpen);
    probe.record(Outcome::Success);
}

#[tokio::test(start_paused = true)]
async fn half_of_twenty_calls_within_a_minute_open_it_without_a_row() {
    let breaker = breaker(Policy { failure_threshold: 100, ..Policy::default() });
    for call in 0..19 {
        let outcome = if call % 2 == 0 { Outcome::Failure } else { Outcome::Success };
        breaker.acquire().unwrap().record(outcome);
    }
    assert_eq!(breaker.state(), State::Closed);
    breaker.acquire().unwrap().record(Outcome::Success);
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn slow_answers_count_in_the_share() {
    let breaker = breaker(Policy { failure_threshold: 100, minimum_calls: 4, ..Policy::default() });
    for _ in 0..4 {
        let permit = breaker.acquire().unwrap();
        advance(5 * SECOND).await;
        permit.record(Outcome::Success);
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn the_switch_and_the_holds_override_the_judgement() {
    let off = breaker(Policy { enabled: false, ..policy() });
    fail(&off, 50);
    assert_eq!(off.state(), State::Closed);
    let held = breaker(policy());
    held.hold(Hold::Closed);
    fail(&held, 50);
    assert_eq!(held.state(), State::Closed);
    held.hold(Hold::Open);
    assert_eq!(held.state(), State::Open);
    assert!(held.acquire().is_err());
    held.hold(Hold::Auto);
    assert!(held.acquire().is_ok());
}

#[tokio::test(start_paused = true)]
async fn every_change_is_told() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let breaker = Breaker::new(policy(), Arc::new(move |state| seen.lock().push(state)));
    fail(&breaker, 3);
    advance(60 * SECOND).await;
    for _ in 0..3 {
        breaker.acquire().unwrap().record(Outcome::Success);
    }
    assert_eq!(*told.lock(), [State::Open, State::HalfOpen, State::Closed]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Call(Outcome),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![Just(Outcome::Success), Just(Outcome::Failure), Just(Outcome::Unknown)];
    let step = prop_oneof![4 => outcome.prop_map(Step::Call), 1 => (1..130_u64).prop_map(Step::Wait)];
    proptest::collection::vec(step, 1..80)
}

/// The same rules for one caller at a time, written as plainly as possible.
struct Model {
    now: u64,
    in_a_row: u32,
    open_until: Option<u64>,
    wait: u64,
    probing: bool,
    good: u32,
}

impl Model {
    fn call(&mut self, outcome: Outcome) -> bool {
        if let Some(until) = self.open_until {
            if self.now < until {
                return false;
            }
            (self.open_until, self.probing, self.good) = (None, true, 0);
        }
        match (self.probing, outcome) {
            (_, Outcome::Unknown) => {}
            (true, Outcome::Failure) => {
                self.wait = (self.wait * 2).min(600);
                (self.open_until, self.probing) = (Some(self.now + self.wait), false);
            }
            (true, Outcome::Success) => {
                self.good += 1;
                if self.good == 3 {
                    (self.probing, self.in_a_row, self.wait) = (false, 0, 60);
                }
            }
            (false, Outcome::Success) => self.in_a_row = 0,
            (false, Outcome::Failure) => {
                self.in_a_row += 1;
                if self.in_a_row == 3 {
                    (self.wait, self.in_a_row) = (60, 0);
                    self.open_until = Some(self.now + self.wait);
                }
            }
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn it_agrees_with_a_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let breaker = breaker(policy());
            let mut model = Model { now: 0, in_a_row: 0, open_until: None, wait: 60, probing: false, good: 0 };
            for step in steps {
                match step {
                    Step::Wait(seconds) => {
                        advance(Duration::from_secs(seconds)).await;
                        model.now += seconds;
                    }
                    Step::Call(outcome) => {
                        let permit = breaker.acquire();
                        assert_eq!(permit.is_ok(), model.call(outcome), "{step:?} at {}", model.now);
                        if let Ok(permit) = permit {
                            permit.record(outcome);
                        }
                    }
                }
            }
        });
    }
}
