//! Measures what a request costs, in CPU time of the processes that serve it, beside a peer in the same run.
//!
//! - the gateway beside nginx, in front of one bare upstream;
//! - a cached item through gateway and integration-service beside a bare answer through the same gateway;
//! - a login at user-service beside the argon2id hash alone.
//!
//! Rounds of both sides alternate, so that the load of the machine falls on both alike, and the median of the ratios
//! counts. The CPU time is user and system time of every process of a side, from `/proc/PID/stat`: the figures that
//! getrusage(2) gives. Ends with 1 when a ratio is over its budget. `make bench` calls it; `bench-services hello` is the
//! bare upstream.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that measures prints what it measured"
)]
#![expect(clippy::cast_precision_loss, reason = "counts of requests, shown as ratios")]

mod cpu;
mod front;
mod hello;
mod load;
mod login;
mod shipped;

use std::process::ExitCode;

/// What a comparison found.
struct Compared {
    /// Ratio of ours to the peer's, of each round.
    ratios: Vec<f64>,
    /// What it may be.
    budget: f64,
}

impl Compared {
    fn median(&self) -> f64 {
        let mut sorted = self.ratios.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Prints the ratio; says whether it is within the budget.
    fn told(&self, what: &str) -> bool {
        let (low, high) = self
            .ratios
            .iter()
            .fold((f64::MAX, 0.0_f64), |(low, high), ratio| (low.min(*ratio), high.max(*ratio)));
        let within = self.median() <= self.budget;
        println!(
            "{what}: ratio {:.2} ({low:.2} to {high:.2} in {} rounds); {} the budget of {}",
            self.median(),
            self.ratios.len(),
            if within { "within" } else { "over" },
            self.budget
        );
        within
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("hello") => return hello::serve().await,
        Some(word) => {
            eprintln!("bench-services {word}: expected no argument, or hello");
            return ExitCode::from(2);
        }
        None => {}
    }
    let mut within = true;
    match front::compare().await {
        Ok(compared) => within &= compared.told("gateway / nginx, CPU a request"),
        Err(reason) => return broken(&reason),
    }
    match shipped::compare().await {
        Ok((item, login)) => {
            within &= item.told("cached item / bare answer behind the same gateway, CPU a request");
            within &= login.told("login / argon2id hash, CPU each");
        }
        Err(reason) => return broken(&reason),
    }
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn broken(reason: &str) -> ExitCode {
    eprintln!("bench-services: {reason}");
    ExitCode::from(2)
}
