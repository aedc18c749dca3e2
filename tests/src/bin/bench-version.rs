//! Measures `mlctl version` against `true`: runs of both, one after the other, so that the load of the machine falls on
//! both alike. Ends with 1 when the median ratio is over the budget.
//!
//! `bench-version MLCTL [PAIRS]`; `make bench` calls it with the release build.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that measures prints what it measured"
)]

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// How many times as long as `true` it may take.
const BUDGET: f64 = 10.0;
/// Pairs of runs, and those before that only warm caches.
const PAIRS: usize = 400;
const WARMUP: usize = 20;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(mlctl) = args.next() else {
        eprintln!("bench-version MLCTL [PAIRS]: the binary is missing");
        return ExitCode::from(2);
    };
    let pairs = args.next().and_then(|text| text.parse().ok()).unwrap_or(PAIRS).max(1);
    let mut taken = Vec::with_capacity(pairs);
    for round in 0..pairs + WARMUP {
        // Who comes first changes from pair to pair.
        let pair = if round % 2 == 0 {
            run("true", &[]).and_then(|least| Ok((least, run(&mlctl, &["version"])?)))
        } else {
            run(&mlctl, &["version"]).and_then(|own| Ok((run("true", &[])?, own)))
        };
        match pair {
            Ok(pair) if round >= WARMUP => taken.push(pair),
            Ok(_) => {}
            Err(reason) => {
                eprintln!("bench-version: {reason}");
                return ExitCode::from(2);
            }
        }
    }
    let least = sorted(taken.iter().map(|(least, _)| *least));
    let own = sorted(taken.iter().map(|(_, own)| *own));
    let ratios = sorted(taken.iter().map(|(least, own)| own / least));
    for (name, times) in [("true", &least), ("mlctl version", &own)] {
        println!(
            "{name}: median {:.2} ms (p10 {:.2}, p90 {:.2})",
            at(times, 0.5) * 1e3,
            at(times, 0.1) * 1e3,
            at(times, 0.9) * 1e3
        );
    }
    let ratio = at(&ratios, 0.5);
    let verdict = if ratio <= BUDGET { "within" } else { "over" };
    println!(
        "ratio: median {ratio:.2} (p10 {:.2}, p90 {:.2}) of {pairs} pairs; {verdict} the budget of {BUDGET}",
        at(&ratios, 0.1),
        at(&ratios, 0.9)
    );
    if ratio <= BUDGET { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a program to its end and returns the seconds that took.
fn run(program: &str, args: &[&str]) -> Result<f64, String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let status = command.status().map_err(|error| format!("{program}: {error}"))?;
    let took = began.elapsed().as_secs_f64();
    if status.success() { Ok(took) } else { Err(format!("{program} {args:?}: {status}")) }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Returns the value at a part of the way through sorted ones.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index"
)]
fn at(sorted: &[f64], part: f64) -> f64 {
    let index = ((sorted.len() - 1) as f64 * part).round() as usize;
    sorted[index]
}
