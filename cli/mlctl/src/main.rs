//! The `mlctl` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    mlctl::main()
}
