//! The agent, shims and relay as real processes. The test binary plays all of them: see `main`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test with a main of its own is not a test in clippy's eyes, and the program it plays prints"
)]

mod deaths;
mod fixture;
mod garbage;
mod lifecycle;
mod needs;
mod rollouts;
mod world;

use std::future::Future;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|verb| verb == "fixture") {
        let knobs: Vec<String> = args[1..].iter().map(|a| a.to_string_lossy().into_owned()).collect();
        return ExitCode::from(fixture::run(&knobs));
    }
    if let Some(result) = mlctl_agent::dispatch(&args) {
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}: {:?}", std::error::Error::source(&error));
                ExitCode::FAILURE
            }
        };
    }
    let suites =
        [rollouts::trials(), lifecycle::trials(), deaths::trials(), garbage::trials(), needs::trials()];
    let trials = suites.into_iter().flatten().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Makes a test of a future.
fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(test());
        Ok(())
    })
}
