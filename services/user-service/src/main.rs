//! The `user-service` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    service_kit::main(user_service::IDENTITY, user_service::run)
}
