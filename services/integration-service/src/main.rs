//! The `integration-service` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    service_kit::main(integration_service::IDENTITY, integration_service::run)
}
