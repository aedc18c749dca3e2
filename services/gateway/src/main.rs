//! The `gateway` binary.

fn main() -> std::process::ExitCode {
    service_kit::main(gateway::IDENTITY, gateway::run)
}
