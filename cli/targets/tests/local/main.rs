//! The local target against real agents, shims and relays. The test binary plays all of them: see `main`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test with a main of its own is not a test in clippy's eyes, and the program it plays prints"
)]

mod contract;
#[path = "../../../agent/tests/supervision/fixture.rs"]
mod fixture;
mod target;
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
    let trials = contract::trials().into_iter().chain(target::trials()).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Makes a test of a future.
fn trial<F: Future<Output = ()> + 'static>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(test());
        Ok(())
    })
}
