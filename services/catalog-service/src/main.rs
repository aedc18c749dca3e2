//! The `catalog-service` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    service_kit::main(catalog_service::IDENTITY, catalog_service::run)
}
