//! The `analytics-service` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    service_kit::main(analytics_service::IDENTITY, analytics_service::run)
}
