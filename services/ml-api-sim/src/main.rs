//! The `ml-api-sim` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    service_kit::main(ml_api_sim::IDENTITY, ml_api_sim::run)
}
